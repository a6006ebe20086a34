"""A model's files are read within limits, and decide neither what code runs nor which files are read."""

import json
import os
import shutil

import pytest

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import ModelError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.model_files import check_model_files
from alignment.policy.model_source import resolve_model
from alignment.policy.tokenizer import load_tokenizer


@pytest.fixture
def model(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def change(folder, name, **keys):
    file = folder / name
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | keys))
    return folder


def load(folder, trainable=False):
    keys = ModelKeys(model_name_or_path=str(folder))
    load_tokenizer(keys)
    return load_causal_lm(keys, trainable=trainable, peft=AdapterKeys() if trainable else None)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "attn_implementation", "owner/kernel"),
        ("config.json", "_attn_implementation", "msa|owner/kernel@main"),
        ("config.json", "attn_implementation", {"text_config": "owner/kernel"}),
        ("config.json", "experts_implementation", "owner/kernel"),
        ("config.json", "text_config", {"attn_implementation": "owner/kernel"}),
        ("config.json", "transformers_weights", "adapter_model.bin"),
        ("config.json", "fusion_config", {"fuse": "all"}),
        ("config.json", "distributed_config", {"tp": 2}),
        ("config.json", "dtype", "compile"),
        ("config.json", "torch_dtype", ["float32"]),
        ("config.json", "model_type", ["llama"]),
        ("config.json", "architectures", "LlamaForCausalLM"),
        ("config.json", "num_labels", 10**9),
        ("config.json", "num_labels", "two"),
        ("config.json", "num_hidden_layers", 100_000),
        ("config.json", "n_layer", -1),
        ("config.json", "vocab_size", 10**12),
        ("config.json", "hidden_size", -(10**12)),
        ("config.json", "num_attention_heads", "4"),
        ("config.json", "max_position_embeddings", 10**400),
        ("config.json", "rms_norm_eps", float("nan")),
        ("config.json", "layer_norm_epsilon", float("inf")),
        ("config.json", "norm_eps", -1e-5),
        ("config.json", "rms_norm_eps", "1e-5"),
        ("config.json", "rope_theta", 0),
        ("config.json", "rope_theta", "x"),
        ("config.json", "attention_dropout", 2.0),
        ("config.json", "resid_pdrop", -0.1),
        ("config.json", "logits_scaling", float("-inf")),
        ("config.json", "rope_parameters", {"rope_type": "linear", "factor": float("nan")}),
        ("generation_config.json", "eos_token_id", ["stop"]),
        ("generation_config.json", "eos_token_id", 10**12),
        ("generation_config.json", "pad_token_id", True),
        ("tokenizer_config.json", "init_inputs", ["/etc/passwd"]),
        ("tokenizer_config.json", "vocab_file", "/etc/passwd"),
        ("tokenizer_config.json", "tokenizer_file", "../../other/tokenizer.json"),
        ("tokenizer_config.json", "tokenizer_class", ["a"]),
        ("tokenizer_config.json", "chat_template", 3),
        ("tokenizer_config.json", "chat_template", [{"name": "default"}]),
        ("tokenizer_config.json", "chat_template", "x" * 2_000_000),
        ("tokenizer_config.json", "eos_token", 3),
        ("tokenizer_config.json", "added_tokens_decoder", {"one": {"content": "x"}}),
        ("tokenizer_config.json", "added_tokens_decoder", {"1": "x"}),
        ("special_tokens_map.json", "eos_token", 3),
        ("added_tokens.json", "x", "one"),
    ],
)
def test_a_value_that_no_model_has_is_refused_by_file_and_key(model, tmp_path, name, key, value):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").touch()
    if "../.." in str(value):
        value = "../other/tokenizer.json"
    with pytest.raises(ModelError, match=rf"{name}.*{key}") as refused:
        load(change(model, name, **{key: value}))
    assert "\n" not in str(refused.value)


FILES = ["config.json", "generation_config.json", "tokenizer_config.json"]


def test_numbers_that_models_have_are_taken(model):
    """Mamba's configurations hold an infinity in a list, ESM's a dropout that is none, T5's an epsilon of 1e-6."""
    keys = {"time_step_limit": [0.0, float("inf")], "hidden_dropout": None, "layer_norm_epsilon": 1e-6, "norm_eps": 0}
    check_model_files(change(model, "config.json", classifier_dropout=0.1, dropout=False, rope_theta=10_000, **keys))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"null", b"\xff{}", b'{"a": ' * 5000, b'{"a": 1' + b"0" * 5000 + b"}", b'{"a": 1, "a": 2}'],
    ids=["empty", "list", "cut", "null", "bytes", "deep", "digits", "twice"],
)
def test_a_file_that_is_not_an_object_is_refused(model, name, content):
    (model / name).write_bytes(content)
    with pytest.raises(ModelError, match=name) as refused:
        load(model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [*FILES, "tokenizer.json", "chat_template.jinja", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_in_a_files_place_is_refused(model, name, make):
    (model / name).unlink(missing_ok=True)
    make(model / name)
    with pytest.raises(ModelError, match=name):
        load(model)


def test_a_template_that_links_elsewhere_is_refused(model, tmp_path):
    (tmp_path / "secret").write_text("{{ 'secret' }}")
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.jinja").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="is a link to a file outside the folder"):
        load(model)


def test_the_hubs_own_links_are_followed(model, tmp_path):
    home = tmp_path / "models--owner--model"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for place, file in enumerate(model.iterdir()):
        shutil.copy(file, home / "blobs" / str(place))
        (snapshot / file.name).symlink_to(home / "blobs" / str(place))
    assert load(snapshot).num_parameters()


@pytest.mark.parametrize(
    "keys",
    [
        {"_attn_implementation_autoset": True, "attn_implementation": "flash_attention_2"},
        {"time_step_limit": [0.0, float("inf")], "rope_theta": 1e6, "torch_dtype": "bfloat16"},
        {"id2label": {"0": "a"}, "quantization_config": None, "auto_map": {"AutoConfig": "x.Y"}},
    ],
)
def test_files_of_models_on_the_hub_are_read(model, keys):
    assert load(change(model, "config.json", **keys)).num_parameters()


def test_an_attention_that_a_folder_names_is_not_used(model):
    change(model, "config.json", attn_implementation="eager")
    assert load(model).config._attn_implementation == "sdpa"
    keys = ModelKeys(model_name_or_path=str(model), attn_implementation="eager")
    assert load_causal_lm(keys, trainable=False).config._attn_implementation == "eager"


def test_a_tokenizer_file_of_a_path_that_is_nowhere_is_read(model):
    """Tokenizers on the Hub name the path of the machine that saved them; transformers uses the folder's own."""
    change(model, "tokenizer_config.json", tokenizer_file="/home/somebody/tokenizer.json", name_or_path="x/y")
    assert load(model).num_parameters()


def test_an_adapter_that_is_its_own_base_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "adapter"}')
    shutil.copy(__file__, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError):
        resolve_model("adapter")


def test_a_reward_model_is_not_a_policy(model, tmp_path):
    keys = ModelKeys(model_name_or_path=str(model))
    load_sequence_classifier(keys, trainable=False, pad_token_id=0).save_pretrained(tmp_path / "reward")
    load_tokenizer(keys).save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match=r"is a reward model .*and a policy is needed here"):
        load(tmp_path / "reward")


def test_a_plain_folder_passes(tiny_model_dir):
    check_model_files(tiny_model_dir)
