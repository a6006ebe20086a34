"""The weights that a folder holds are those that its configuration describes, or the run ends with their names."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import deepspeed

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import ModelError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.weight_files import require_described, tensor_shapes
from tests.models import save_tiny_model

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def model(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


@pytest.fixture
def sharded(model):
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    (model / "model.safetensors").unlink()
    placed = {name: f"model-0000{1 + (name > names[9])}-of-00002.safetensors" for name in names}
    for shard in set(placed.values()):
        save_file({n: tensors[n] for n in names if placed[n] == shard}, model / shard, metadata={"format": "pt"})
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return model


def edit(model, what, file="model.safetensors"):
    tensors = load_file(model / file)
    what(tensors)
    save_file(tensors, model / file, metadata={"format": "pt"})
    return model


def configure(model, **keys):
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return model


def load(model, *, trainable=False, full=False):
    peft = AdapterKeys(peft_method="full") if full else AdapterKeys() if trainable else None
    return load_causal_lm(ModelKeys(model_name_or_path=str(model)), trainable=trainable, peft=peft)


def classifier(model, *, trainable=False):
    keys = ModelKeys(model_name_or_path=str(model))
    return load_sequence_classifier(
        keys, trainable=trainable, peft=AdapterKeys() if trainable else None, pad_token_id=0
    )


@pytest.mark.parametrize("how", [{}, {"trainable": True}, {"trainable": True, "full": True}])
def test_weights_without_tensors_are_refused(model, how):
    with pytest.raises(ModelError, match=r"model\.safetensors holds no tensors"):
        load(edit(model, dict.clear), **how)


@pytest.mark.parametrize("name", [UP, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_a_missing_weight_is_named(model, name):
    edit(model, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=rf"the weights lack {name}, which would be random numbers"):
        load(model, trainable=True)
    if name != "lm_head.weight":
        with pytest.raises(ModelError, match=f"the weights lack {name}"):
            classifier(model, trainable=True)


def test_several_missing_weights_are_counted(model):
    edit(model, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1" in name])
    with pytest.raises(ModelError, match=r"lack model\.layers\.1\.input_layernorm\.weight, .* and 6 more"):
        load(model)


def test_an_unexpected_weight_is_named(model):
    edit(model, lambda tensors: tensors.update({"model.layers.7.mlp.up_proj.weight": torch.ones(2, 2)}))
    with pytest.raises(
        ModelError, match=r"hold model\.layers\.7\.mlp\.up_proj\.weight, which config\.json has no place"
    ):
        load(model)


def test_a_weight_of_another_shape_is_named(model):
    edit(model, lambda tensors: tensors.update({UP: torch.ones(64, 31)}))
    with pytest.raises(ModelError, match=rf"other shapes .*{UP}: \(64, 31\) stored, \(64, 32\) described"):
        load(model)


def test_a_weight_that_is_not_a_number_is_named(model):
    edit(model, lambda tensors: tensors[UP].view(-1)[5].fill_(float("inf")))
    with pytest.raises(ModelError, match=f"{UP} holds NaN or infinity"):
        load(model)


def test_tied_weights_are_not_missing(tmp_path):
    model = save_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(model / "model.safetensors")
    assert load(model).num_parameters()


def test_a_reward_model_starts_with_a_new_head_and_keeps_a_trained_one(model, tmp_path):
    classifier(model, trainable=True)
    classifier(model).save_pretrained(tmp_path / "reward")
    saved = load_file(tmp_path / "reward" / "model.safetensors")["score.weight"]
    assert torch.equal(classifier(tmp_path / "reward").score.weight, saved)
    configure(tmp_path / "reward", architectures=["LlamaForCausalLM"])
    with pytest.raises(ModelError, match=r"lack lm_head\.weight|hold score\.weight"):
        load(tmp_path / "reward")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda index: index.update(weight_map={}), "weight_map is {}"),
        (lambda index: index.pop("weight_map"), "weight_map is None"),
        (lambda index: index.update(weight_map=[1]), r"weight_map is \[1\]"),
        (
            lambda index: index["weight_map"].update({UP: "../other.safetensors"}),
            "which is not a safetensors file beside it",
        ),
        (lambda index: index["weight_map"].update({UP: "/etc/passwd"}), "which is not a safetensors file beside it"),
        (
            lambda index: index["weight_map"].update({UP: "pytorch_model.bin"}),
            "which is not a safetensors file beside it",
        ),
        (lambda index: index["weight_map"].update({UP: 3}), "which is not a safetensors file beside it"),
        (lambda index: index["weight_map"].update({"more": "model-00001-of-00002.safetensors"}), "files lack more"),
        (lambda index: index["weight_map"].update({UP: "model-00003-of-00003.safetensors"}), "which is not there"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(sharded, change, found):
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=found):
        load(sharded)


def test_a_sharded_model_is_read_and_its_missing_weight_named(sharded):
    assert load(sharded).num_parameters()
    edit(sharded, lambda tensors: tensors.pop("lm_head.weight"), "model-00001-of-00002.safetensors")
    with pytest.raises(
        ModelError, match=r"its files lack lm_head\.weight, which model\.safetensors\.index\.json names"
    ):
        load(sharded)


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 100_000},
        {"num_hidden_layers": 4_000},
        {"num_hidden_layers": 2**31},
        {"vocab_size": 2_000_000_000},
        {"hidden_size": 1_000_000_000},
        {"intermediate_size": 2_000_000_000},
        {"num_hidden_layers": 21, "intermediate_size": 1_000_000},
        {"num_attention_heads": 100_000_000},
        {"head_dim": 1_000_000_000},
        {"vocab_size": 0},
        {"num_attention_heads": 0},
        {"num_hidden_layers": -1},
        {"hidden_size": [1, 2]},
        {"hidden_size": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("use", [load, classifier])
def test_a_configuration_far_from_its_weights_is_refused_before_memory_is_taken(model, keys, use):
    begin = time.monotonic()
    with pytest.raises(ModelError) as refused:
        use(configure(model, **keys))
    assert "\n" not in str(refused.value)
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_weights_that_are_not_floats_are_refused(model, dtype):
    """transformers casts them, and a model of rounded weights trains on."""
    edit(model, lambda tensors: tensors.update({UP: tensors[UP].to(dtype)}))
    with pytest.raises(ModelError, match=f"holds {UP} as .*not a type of weights"):
        load(model)


def test_causal_masks_that_old_files_hold_are_not_weights(model):
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    rotary = torch.ones(4)
    edit(model, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": rotary}))
    load(model)
    edit(model, lambda tensors: tensors.update({"model.layers.0.attn.bias": mask}))
    with pytest.raises(ModelError, match="has no place for"):  # in this architecture
        load(model)


def test_a_tensor_in_two_shards_is_refused(sharded):
    """transformers loads the last that it reads, whichever the index names."""
    first, second = sorted(sharded.glob("*.safetensors"))
    name = min(load_file(first))
    edit(sharded, lambda tensors: tensors.update({name: torch.zeros_like(load_file(first)[name])}), second.name)
    with pytest.raises(ModelError, match=f"several of its files hold {name}"):
        load(sharded)


def test_an_index_without_metadata_is_refused_by_its_key(sharded):
    file = sharded / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": json.loads(file.read_text())["weight_map"]}))
    with pytest.raises(ModelError, match=r"index\.json: metadata is None; write an object there"):
        load(sharded)


def test_a_reward_model_that_lost_its_head_is_refused(model, tmp_path):
    torch.manual_seed(0)
    classifier(model).save_pretrained(tmp_path / "reward")
    shutil.copytree(
        model, tmp_path / "reward", dirs_exist_ok=True, ignore=lambda *_: ["config.json", "model.safetensors"]
    )
    classifier(tmp_path / "reward")
    edit(tmp_path / "reward", lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(ModelError, match=r"lack score\.weight"):
        classifier(tmp_path / "reward")


class Zero3:
    """What transformers knows of a run that DeepSpeed launched."""

    def is_zero3(self):
        return True


def test_weights_are_counted_completely_under_zero3(model):
    """ZeRO-3 would cut weights on the meta device, which holds none, and no model could be loaded."""
    launched = Zero3()
    deepspeed.set_hf_deepspeed_config(launched)
    try:
        config, shapes = AutoConfig.from_pretrained(model), tensor_shapes(model)
        require_described(AutoModelForCausalLM, config, model, shapes, trust_remote_code=False)
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
