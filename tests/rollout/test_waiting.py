"""How often sampling waits for the device, and that looking seldom changes no answer."""

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from alignment.rollout.engine import Sampling
from alignment.rollout.steps import StepInputs, takes_ready_mask
from alignment.rollout.transformers_engine import LOOK_EVERY, TransformersEngine
from tests.models import make_model, make_tokenizer

READING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")
PROMPTS = [[5, 9, 77, 30], [8, 8, 40], [100, 3, 61, 62, 63, 64, 65], [200], [5, 9, 77, 30]]


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU: operations whose result the host needs, and tensors made into lists."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.seen = []
        for name in ("tolist", "numpy"):
            plain = getattr(torch.Tensor, name)
            monkeypatch.setattr(torch.Tensor, name, self._counting(name, plain))

    def _counting(self, name, plain):
        def counted(tensor, *inputs, **keys):
            self.seen.append(name)
            return plain(tensor, *inputs, **keys)

        return counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        by_mask = name in ("index", "index_put_") and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        if name in READING or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer(), initializer_range=0.3)


@pytest.mark.parametrize("stops", [[], [1], list(range(1, 12))], ids=["none", "one", "many"])
@pytest.mark.parametrize("prompts", [PROMPTS, [[5, 9], [8, 8]]], ids=["padded", "even"])
@pytest.mark.parametrize("keys", [{"temperature": 0.0}, {"top_p": 0.9, "top_k": 50}, {}], ids=str)
def test_sampling_waits_once_in_sixteen_steps(model, monkeypatch, prompts, stops, keys):
    sampling = Sampling(max_new_tokens=64, stop_token_ids=stops, seed=3, **keys)
    expected = TransformersEngine(model, 0).generate(prompts, sampling)
    waits = Waits(monkeypatch)
    with waits:
        found = TransformersEngine(model, 0, look_every=LOOK_EVERY).generate(prompts, sampling)
    assert [answer.ids for answer in found] == [answer.ids for answer in expected]
    assert [answer.stopped for answer in found] == [answer.stopped for answer in expected]
    assert 1 <= len(waits.seen) <= 64 / 16, waits.seen


def test_rows_that_ended_leave_the_batch_between_two_looks(model, monkeypatch):
    widths = []
    forward = StepInputs.forward

    def watched(self, input_ids):
        widths.append(len(input_ids))
        return forward(self, input_ids)

    monkeypatch.setattr(StepInputs, "forward", watched)
    sampling = Sampling(max_new_tokens=64, stop_token_ids=list(range(1, 12)), seed=3)
    TransformersEngine(model, 0, look_every=8).generate(PROMPTS * 4, sampling)
    assert widths[:8] == [20] * 8
    assert widths[-1] < 20
    assert len(set(widths)) > 2


SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
CLASSES = {
    "Llama": ({}, True),
    "Mistral": ({"sliding_window": None}, True),
    "Qwen2": ({}, True),
    "Qwen3": ({"head_dim": 8}, True),
    "Granite": ({}, True),
    "Cohere": ({}, True),
    "GPTNeoX": ({}, True),
    "Gemma2": ({"head_dim": 8}, False),  # windows in every other layer
    "MistralWindow": ({"sliding_window": 4}, False),
    "Bloom": ({}, False),  # ALiBi
    "LlamaEager": ({"attn_implementation": "eager"}, False),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_ready_mask_is_given_where_it_changes_nothing(name):
    keys, takes = CLASSES[name]
    kind = name.removesuffix("Window").removesuffix("Eager")
    sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4} if kind == "Bloom" else SIZES
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=300, pad_token_id=0, bos_token_id=2, eos_token_id=1, initializer_range=0.3, **sizes, **keys
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    assert takes_ready_mask(model) is takes
    steps = []
    with torch.no_grad():
        for ready in (False, True):
            input_ids, mask = TransformersEngine(model, 0)._left_pad(PROMPTS, torch.device("cpu"))
            inputs = StepInputs(model, mask, 3, ready_mask=ready)
            found = [inputs.forward(input_ids)]
            for step in range(3):
                found.append(inputs.forward(torch.full((len(found[0]), 1), 7 + step)))
                if step == 1:
                    inputs.select(torch.tensor([0, 2, 4]))
                    found[0] = found[0][[0, 2, 4]]
            steps.append(found)
    for ours, theirs in zip(*steps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
