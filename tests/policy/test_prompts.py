"""Soft prompts before the decoder compute what PEFT computes, with padding, a cache and checkpointing too."""

import copy

import pytest
import torch
from peft import (
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
)

from alignment.errors import DataError, ModelError
from alignment.policy.checkpointing import checkpoint_layers
from alignment.policy.switch import SwitchedBase
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_model, make_tokenizer

SHAPE = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 5}
ENCODER = {**SHAPE, "encoder_hidden_size": 16}
CONFIGS = {
    "prompt": PromptTuningConfig(**SHAPE),
    "vocabulary": PromptTuningConfig(**SHAPE, prompt_tuning_init="SAMPLE_VOCAB"),
    "mlp": PromptEncoderConfig(**ENCODER),
    "lstm": PromptEncoderConfig(**ENCODER, encoder_reparameterization_type="LSTM"),
    "prefix": PrefixTuningConfig(**SHAPE),
    "prefix_mlp": PrefixTuningConfig(**ENCODER, prefix_projection=True),
}
IDS = torch.randint(3, 250, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base():
    return make_model(make_tokenizer(), initializer_range=0.3)


@pytest.fixture(params=CONFIGS)
def kind(request):
    return request.param


def alone(base, kind):
    torch.manual_seed(0)
    return get_peft_model(copy.deepcopy(base), copy.deepcopy(CONFIGS[kind])).eval()


@pytest.fixture
def switched(base, kind):
    """A base with a LoRA role, and the soft prompt as the active role."""
    found = SwitchedBase(copy.deepcopy(base))
    found.add("reward", LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear"))
    torch.manual_seed(0)
    found.add("policy", copy.deepcopy(CONFIGS[kind]))
    found.prompt("policy").encoder.load_state_dict(alone(base, kind).prompt_encoder["default"].state_dict())
    found.base.eval()
    found.activate("policy")
    return found


def logits_of(model, **inputs):
    return model(**({"input_ids": IDS} | inputs)).logits


def gradients(model, trained):
    return torch.autograd.grad(logits_of(model).square().mean(), trained)


def test_logits_and_gradients_are_pefts(base, kind, switched):
    theirs = alone(base, kind)
    expected = logits_of(theirs)[:, -IDS.shape[1] :]
    found = logits_of(switched.base)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # PEFT encodes the prompt once for each row
    if kind in ("prompt", "vocabulary", "prefix"):  # no matrix product encodes them
        assert torch.equal(found, expected)
    assert not torch.allclose(expected, logits_of(base), atol=0.1)
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    wanted = torch.autograd.grad(expected.square().mean(), trained)
    torch.testing.assert_close(gradients(switched.base, switched.adapters["policy"].trained), wanted)


def test_other_roles_have_no_soft_prompt(base, switched):
    switched.activate(None)
    assert torch.equal(logits_of(switched.base), logits_of(base))
    switched.activate("reward")
    lora = logits_of(switched.base)
    switched.activate("policy")
    assert not torch.equal(logits_of(switched.base), lora)
    switched.activate("reward")
    assert torch.equal(logits_of(switched.base), lora)


def test_padding_on_either_side_changes_nothing(switched):
    expected = logits_of(switched.base)
    padding, mask = torch.full((2, 6), 7), torch.ones(2, 26, dtype=torch.long)
    mask[:, 20:] = 0
    right = logits_of(switched.base, input_ids=torch.cat([IDS, padding], 1), attention_mask=mask)[:, :20]
    torch.testing.assert_close(right, expected, rtol=1e-4, atol=1e-4)
    mask = mask.flip(1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    left = torch.cat([padding, IDS], 1)
    found = logits_of(switched.base, input_ids=left, attention_mask=mask, position_ids=positions)[:, 6:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("look_every", [1, 4])  # 4: with a mask of four dimensions where the attention takes one
def test_sampling_with_a_cache_equals_sampling_without(switched, look_every):
    prompts = [IDS[0, :5].tolist(), IDS[1, :12].tolist(), IDS[1, :9].tolist()]
    engine = TransformersEngine(switched.base, 0, look_every=look_every)
    answers = engine.generate(prompts, Sampling(max_new_tokens=8, temperature=0.0, stop_token_ids=[]))
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = list(prompt)
        for _ in range(8):
            ids.append(int(switched.base(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer.ids == ids[len(prompt) :]


def test_checkpointed_activations_give_the_same_gradients(switched):
    trained = switched.adapters["policy"].trained
    expected = gradients(switched.base, trained)
    switched.base.train()
    checkpoint_layers(switched.base, {"use_reentrant": False})
    loss = logits_of(switched.base).square().mean()
    torch.testing.assert_close(torch.autograd.grad(loss, trained), expected, rtol=0, atol=0)


def test_a_soft_prompt_is_saved_as_peft_saves_it_and_loaded_without_its_encoder(base, kind, switched):
    theirs = get_peft_model_state_dict(alone(base, kind))
    with switched.plain("policy") as model:
        saved = get_peft_model_state_dict(model)
    assert saved.keys() == theirs.keys() == {"prompt_embeddings"}
    assert torch.equal(saved["prompt_embeddings"], theirs["prompt_embeddings"])
    again = SwitchedBase(copy.deepcopy(base))
    again.add("reference", copy.deepcopy(CONFIGS[kind]), saved)
    again.base.eval()
    again.activate("reference")
    assert torch.equal(logits_of(again.base), logits_of(switched.base))
    assert len(again.adapters["reference"].trained) == 1


def test_a_new_prefix_is_the_keys_and_values_of_words(base, monkeypatch):
    words = torch.tensor([[9, 200, 31, 77, 5]])
    monkeypatch.setattr("alignment.policy.prompts.torch.randint", lambda *_: words)
    switched = SwitchedBase(copy.deepcopy(base))
    switched.add("policy", copy.deepcopy(CONFIGS["prefix"]))
    switched.base.eval()
    switched.activate("policy")
    expected = logits_of(base, input_ids=torch.cat([words.expand(2, -1), IDS], dim=1))[:, 5:]
    torch.testing.assert_close(logits_of(switched.base), expected, rtol=1e-4, atol=1e-4)


def test_sampling_beyond_what_the_soft_prompt_leaves_of_the_context_is_refused(switched):
    engine = TransformersEngine(switched.base, 0)
    sampling = Sampling(max_new_tokens=6, temperature=0.0, stop_token_ids=[])
    fits = [list(range(3, 3 + 256 - 5 - 6))]  # of 256 tokens, 5 are the soft prompt's
    assert len(engine.generate(fits, sampling)[0].ids) == 6
    refusal = (
        "prompt 0 has 246 tokens; with max_new_tokens 6 it does not fit the model's context of 256 less its soft "
        "prompt of 5. Leave out prompts of more than 245 tokens, or lower max_new_tokens."
    )
    with pytest.raises(DataError, match=refusal):
        engine.generate([[*fits[0], 3]], sampling)
    with pytest.raises(DataError, match=r"soft prompt of 5\. Lower max_new_tokens\."):
        engine.generate([[3]], Sampling(max_new_tokens=251, temperature=0.0, stop_token_ids=[]))


def test_a_prompt_that_does_not_fit_is_refused(base):
    with pytest.raises(ModelError, match="num_virtual_tokens is 256, and the model's context has 256 tokens"):
        SwitchedBase(copy.deepcopy(base)).add("policy", PromptTuningConfig(**{**SHAPE, "num_virtual_tokens": 256}))
    with pytest.raises(ModelError, match=r"the policy adapter does not fit the base: a soft prompt is prompt_embed"):
        SwitchedBase(copy.deepcopy(base)).add("policy", PromptTuningConfig(**SHAPE), {"x": IDS})
    weights = {"prompt_embeddings": torch.zeros(5, 16)}
    with pytest.raises(ModelError, match=r"size mismatch: \(5, 16\) saved, \(5, 32\) expected"):
        SwitchedBase(copy.deepcopy(base)).add("policy", PromptTuningConfig(**SHAPE), weights)
    eager = make_model(make_tokenizer(), attn_implementation="eager")
    with pytest.raises(ModelError, match="prefix_tuning needs attn_implementation sdpa"):
        SwitchedBase(eager).add("policy", PrefixTuningConfig(**SHAPE))
