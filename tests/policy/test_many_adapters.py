"""An adapter for each row: equal to one adapter at a time, for any types and ranks, while adapters come and go."""

import json
import math

import pytest
import torch
from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.many_adapters import ManyAdapters
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import save_tiny_model
from tests.policy.test_merge import trained_adapter

pytestmark = pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
ADAPTER = "adapter_model.safetensors"
PROMPTS = [[2, 40, 41], [2, 50], [2, 60, 61, 62, 63], [2, 70], [2, 80, 81], [2, 90]]
LORAS = {
    "rank 2": {"r": 2},
    "rank 8": {"r": 8, "lora_alpha": 3},
    "few targets": {"r": 4, "target_modules": ["q_proj", "down_proj"]},
    "rslora": {"r": 4, "use_rslora": True},
    "patterns": {"r": 4, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"up_proj": 1}},
}
OTHERS = {
    "DoRA": ("LORA", {"r": 4, "use_dora": True, "target_modules": ["q_proj", "up_proj"]}),
    "LoRA on embeddings": ("LORA", {"r": 2, "target_modules": ["embed_tokens", "q_proj"]}),
    "whole head": ("LORA", {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "IA3": ("IA3", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "OFT": ("OFT", {"oft_block_size": 4, "r": 0, "target_modules": ["v_proj", "up_proj"]}),
    "LoHa": ("LOHA", {"r": 2, "target_modules": ["q_proj", "down_proj"]}),
}


def saved(base, path, kind, seed, **fields):
    """An adapter whose weights are random."""
    fields = {"target_modules": "all-linear", **fields} if kind == "LORA" else fields
    torch.manual_seed(seed)
    model = load_causal_lm(ModelKeys(model_name_or_path=str(base)), trainable=False)
    wrapped = get_peft_model(model, PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **fields))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    wrapped.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folders(tiny_model_dir, tmp_path_factory):
    place = tmp_path_factory.mktemp("adapters")
    kinds = {**{name: ("LORA", fields) for name, fields in LORAS.items()}, **OTHERS}
    return {
        name: saved(tiny_model_dir, place / f"{number}", kind, number, **fields)
        for number, (name, (kind, fields)) in enumerate(kinds.items())
    }


def many(base, folders, **options):
    model = load_causal_lm(ModelKeys(model_name_or_path=str(base)), trainable=False)
    adapters = ManyAdapters(model, str(base), **options)
    for name, folder in folders.items():
        adapters.add(name, folder)
    return adapters


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def alone(base, folders, name, ids):
    """Logits of an adapter by PEFT alone."""
    path = base if name is None else folders[name]
    return logits(load_causal_lm(ModelKeys(model_name_or_path=str(path)), trainable=False), ids)


@pytest.mark.parametrize(
    "rows",
    [
        [*LORAS, None],
        ["rank 8", "rank 8", "rank 2", "rank 2"],
        ["rank 8", "rank 2", "rank 8", None, "rank 8", "few targets"],
        [*LORAS, *OTHERS, None, "DoRA", "rank 2"],
        *([name, None, name] for name in OTHERS),
    ],
    ids=str,
)
def test_each_row_has_the_logits_of_its_adapter_alone(tiny_model_dir, folders, rows):
    adapters = many(tiny_model_dir, folders)
    torch.manual_seed(0)
    ids = torch.randint(3, 250, (len(rows), 7))
    adapters.assign(rows)
    found = logits(adapters.base, ids)
    for row, name in enumerate(rows):
        wanted = alone(tiny_model_dir, folders, name, ids[row : row + 1])
        assert torch.allclose(found[row], wanted[0], atol=2e-5), name
    adapters.assign(None)
    assert torch.equal(logits(adapters.base, ids), alone(tiny_model_dir, folders, None, ids))


def test_adapters_differ(tiny_model_dir, folders):
    ids = torch.tensor([[2, 40, 41, 42]])
    base = alone(tiny_model_dir, folders, None, ids)
    for name in folders:
        assert (alone(tiny_model_dir, folders, name, ids) - base).abs().max() > 0.01, name


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_equals_one_adapter_at_a_time(tiny_model_dir, folders, temperature):
    """Rows end at different steps and leave the batch; each draws its own random numbers."""
    names = ["rank 2", "DoRA", "rank 8", None, "rank 2", "IA3"]
    sampling = Sampling(max_new_tokens=12, temperature=temperature, stop_token_ids=range(100, 140), seed=5)
    adapters = many(tiny_model_dir, folders)
    engine = TransformersEngine(adapters.base, 0, batch_size=5, adapters=adapters)
    found = engine.generate(PROMPTS, sampling, names)
    for name in set(names):
        path = tiny_model_dir if name is None else folders[name]
        model = load_causal_lm(ModelKeys(model_name_or_path=str(path)), trainable=False)
        wanted = TransformersEngine(model, 0).generate(PROMPTS, sampling)
        assert [found[row] for row in range(6) if names[row] == name] == [
            wanted[row] for row in range(6) if names[row] == name
        ], name
    assert any(answer.stopped for answer in found)
    assert len({len(answer.ids) for answer in found}) > 2


def test_64_adapters_of_mixed_ranks_equal_one_at_a_time(tiny_model_dir, tmp_path):
    """In four batches with room for 16 in memory, twice, so that each adapter is read again."""
    ranks = {f"{number}": 1 + number % 16 for number in range(64)}
    places = {name: saved(tiny_model_dir, tmp_path / name, "LORA", int(name), r=rank) for name, rank in ranks.items()}
    adapters = many(tiny_model_dir, places, capacity=16)
    engine = TransformersEngine(adapters.base, 0, batch_size=16, adapters=adapters)
    prompts = [[2, 40 + number, 41 + number % 7] for number in range(64)]
    sampling = Sampling(max_new_tokens=6, temperature=0.0, stop_token_ids=range(100, 120), seed=0)
    found = engine.generate(prompts, sampling, [*ranks])
    assert len(adapters.in_memory) == 16
    assert engine.generate(prompts, sampling, [*ranks]) == found
    assert len({tuple(answer.ids) for answer in found}) > 50
    for name, place in places.items():
        model = load_causal_lm(ModelKeys(model_name_or_path=str(place)), trainable=False)
        assert TransformersEngine(model, 0).generate([prompts[int(name)]], sampling) == [found[int(name)]], name


def test_one_adapter_for_all_rows_takes_batches_of_any_size(tiny_model_dir, folders):
    adapters = many(tiny_model_dir, folders)
    for name in ("rank 8", "DoRA", None, "rank 8"):
        adapters.activate(name)
        for rows in (1, 3):
            ids = torch.arange(3, 3 + 5 * rows).view(rows, 5)
            wanted = alone(tiny_model_dir, folders, name, ids)
            assert torch.allclose(logits(adapters.base, ids), wanted, atol=2e-5)


def test_a_4_bit_base_takes_them(wide_model_dir, tmp_path):
    keys = {"load_in_4bit": True, "dtype": "float32"}
    runs = {name: trained_adapter(wide_model_dir, tmp_path / name, lora_alpha=alpha, load_in_4bit=True)
            for name, alpha in (("a", 8), ("b", 20))}  # fmt: skip
    model = load_causal_lm(ModelKeys(model_name_or_path=str(wide_model_dir), **keys), trainable=False)
    adapters = ManyAdapters(model, str(wide_model_dir))
    for name, run in runs.items():
        adapters.add(name, run)
    ids = torch.tensor([[2, 40, 41], [2, 50, 51]])
    adapters.assign(["a", "b"])
    found = logits(model, ids)
    for row, run in enumerate(runs.values()):
        plain = load_causal_lm(ModelKeys(model_name_or_path=str(run), **keys), trainable=False)
        assert torch.allclose(found[row], logits(plain, ids[row : row + 1])[0], atol=2e-5)


def test_the_least_recently_used_leave_memory(tiny_model_dir, folders):
    adapters = many(tiny_model_dir, folders, capacity=2)
    assert adapters.in_memory == []
    for name in ("rank 2", "rank 8", "rank 2", "rslora"):
        adapters.activate(name)
    assert adapters.in_memory == ["rank 2", "rslora"]
    adapters.activate("DoRA")
    assert adapters.in_memory == ["rslora", "DoRA"]
    adapters.activate("IA3")
    adapters.assign([*LORAS])  # more than there is room for: all rows are served
    assert set(adapters.in_memory) == set(LORAS)
    ids = torch.tensor([[2, 40, 41]])
    adapters.activate("DoRA")
    assert torch.allclose(
        logits(adapters.base, ids), alone(tiny_model_dir, folders, "DoRA", ids), atol=2e-5
    )  # it was read again


def test_adapters_are_replaced_and_removed_while_they_are_in_use(tiny_model_dir, folders):
    adapters = many(tiny_model_dir, folders)
    ids = torch.tensor([[2, 40, 41]])
    for first, second in (("rank 2", "rank 8"), ("DoRA", "IA3"), ("rank 2", "DoRA"), ("DoRA", "rank 8")):
        adapters.add("one", folders[first])
        adapters.activate("one")
        before = logits(adapters.base, ids)
        adapters.add("one", folders[second])
        assert torch.equal(logits(adapters.base, ids), alone(tiny_model_dir, folders, None, ids))
        adapters.activate("one")
        after = logits(adapters.base, ids)
        assert torch.allclose(after, alone(tiny_model_dir, folders, second, ids), atol=2e-5)
        assert not torch.allclose(after, before, atol=1e-3)
    adapters.remove("one")
    with pytest.raises(ModelError, match="no adapter is called 'one'"):
        adapters.activate("one")


def test_adapters_that_do_not_fit_are_refused(tiny_model_dir, folders, tmp_path):
    adapters = many(tiny_model_dir, folders)
    save_tiny_model(tmp_path / "base", seed=5)
    with pytest.raises(ModelError, match="is an adapter of another base"):
        adapters.add("x", trained_adapter(tmp_path / "base", tmp_path / "x"))
    with pytest.raises(ModelError, match="is a whole model"):
        adapters.add("x", tiny_model_dir)
    with pytest.raises(ModelError, match="is a reward model's adapter"):
        adapters.add("x", trained_adapter(tiny_model_dir, tmp_path / "r", load=load_sequence_classifier))
    run = trained_adapter(tiny_model_dir, tmp_path / "run")
    whole = load_file(run / ADAPTER)
    name = next(iter(whole))

    def with_weights(weights, match):
        save_file(weights, run / ADAPTER, metadata={"format": "pt"})
        adapters.add("x", run)
        with pytest.raises(ModelError, match=match):
            adapters.activate("x")

    with_weights({key: w for key, w in whole.items() if key != name}, "differ in model.layers.0")
    with_weights({**whole, name: whole[name][:, :5].contiguous()}, "does not fit the base")
    with_weights({**whole, name: whole[name] * math.nan}, "NaN or infinity")
    with_weights({**whole, "base_model.model.more": whole[name].clone()}, "has no counterpart")
    config = json.loads((run / "adapter_config.json").read_text())
    save_file(whole, run / ADAPTER, metadata={"format": "pt"})
    (run / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    adapters.add("x", run)
    with pytest.raises(ModelError, match="and its configuration differ in"):
        adapters.activate("x")
    adapters.activate("rank 2")  # the others still work
