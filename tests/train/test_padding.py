"""Padding changes nothing: on the left where answers are sampled, on the right where roles are asked and trained."""

import pytest
import torch

from alignment.data.template import Template
from alignment.ops.advantages import advantages_and_returns
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import aggregate, policy_loss, value_loss
from alignment.ops.masking import whiten
from alignment.ops.rewards import token_rewards
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.train.policy_gradient import experience as experience_module
from alignment.train.policy_gradient import rollout_trainer as rollout_module
from alignment.train.policy_gradient.experience import pack
from tests.models import make_model, make_tokenizer, save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

PROMPTS = ["hi", "tell me a story about a small cat", "name?", "what is the name of your friend? 0 1 2 3 4 5 6 7"]
TIMED = ("seconds", "tokens_per_second", "peak")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("padding") / "base", initializer_range=0.3)


def wider(prompts, answers, pad_token_id):
    """Five more columns on the right of every microbatch."""
    input_ids, mask = pack(prompts, answers, pad_token_id)
    return torch.nn.functional.pad(input_ids, (0, 5), value=pad_token_id), torch.nn.functional.pad(mask, (0, 5))


def junk(prompts, answers, pad_token_id):
    """Tokens of all kinds, stop tokens too, where padding was."""
    input_ids, mask = pack(prompts, answers, pad_token_id)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        input_ids[row, end:] = torch.arange(1, 1 + input_ids.shape[1] - end)
    return input_ids, mask


def more_left_padding(self, prompts, device):
    """Seven more columns on the left of every batch of prompts."""
    ids, mask = TransformersEngine.plain_left_pad(self, prompts, device)
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    return torch.nn.functional.pad(ids, (7, 0), value=self.pad_token_id), torch.nn.functional.pad(mask, (7, 0))


def run(base, out, *, double=False, **keys):
    """Two updates, and what the first collected; SGD, so that rounding is not blown up where gradients are tiny."""
    trainer = make_trainer(
        base, out, updates=2, per_device=4, prompts=PROMPTS,
        **{"arguments": {"optim": "sgd", "learning_rate": 0.1}, **keys},
    )  # fmt: skip
    if double:
        trainer.roles.double()
    experience = trainer.collect(0)
    numbers = {name: value for name, value in trainer.metrics.items() if not name.startswith(TIMED)}
    before = trained_weights(trainer)
    trainer.train()
    after = trained_weights(trainer)
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3
    assert len({len(ids) for ids in experience.answer_ids}) > 1  # else nothing is padded
    return experience, numbers, after


def assert_same(ours, theirs, atol):
    (experience, numbers, weights), (other, other_numbers, other_weights) = ours, theirs
    assert experience.answer_ids == other.answer_ids
    for name in ("logp", "values", "advantages", "returns"):
        torch.testing.assert_close(getattr(experience, name), getattr(other, name), rtol=0, atol=atol)
    assert numbers == pytest.approx(other_numbers, rel=0, abs=max(atol, 1e-12), nan_ok=True)
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, other_weights[name], rtol=0, atol=atol)


@pytest.fixture(scope="module", params=[{}, {"value_model": "head"}, {"peft_method": "full"}], ids=str)
def plain(request, base, tmp_path_factory):
    return request.param, run(base, tmp_path_factory.mktemp("plain"), **request.param)


def pack_otherwise(monkeypatch, packed):
    calls = []
    for module in (rollout_module, experience_module):
        monkeypatch.setattr(module, "pack", lambda *given: (calls.append(given), packed(*given))[1])
    return calls


def test_the_content_of_right_padding_does_not_change_experience_or_weights(base, tmp_path, plain, monkeypatch):
    keys, expected = plain
    calls = pack_otherwise(monkeypatch, junk)
    assert_same(run(base, tmp_path, **keys), expected, 0.0)  # causal attention never reads it
    assert calls


@pytest.mark.parametrize("keys", [{}, {"value_model": "head"}, {"peft_method": "full"}], ids=str)
def test_more_right_padding_does_not_change_experience_or_weights(base, tmp_path, monkeypatch, keys):
    """In float64: another width may round otherwise, by how much depends on the processor's kernels.

    What is left are experience's numbers, which are kept in float32: one that lies between two of them may go to either
    side, 2⁻²³ of itself apart, for numbers below 16 less than 1e-6.
    """
    expected = run(base, tmp_path / "plain", double=True, **keys)
    calls = pack_otherwise(monkeypatch, wider)
    assert_same(run(base, tmp_path / "wider", double=True, **keys), expected, 1e-6)
    assert calls


def test_the_padding_token_changes_nothing(base, tmp_path, plain):
    keys, expected = plain
    assert_same(run(base, tmp_path, eos_as_pad=True, **keys), expected, 0.0)


def test_left_padding_while_sampling_changes_nothing(base, tmp_path, plain, monkeypatch):
    keys, expected = plain
    monkeypatch.setattr(TransformersEngine, "plain_left_pad", TransformersEngine._left_pad, raising=False)
    monkeypatch.setattr(TransformersEngine, "_left_pad", more_left_padding)
    assert_same(run(base, tmp_path, **keys), expected, 0.0)


def test_how_many_are_sampled_together_changes_nothing(base, tmp_path, plain):
    keys, expected = plain
    assert_same(run(base, tmp_path, rollout_eval_batch_size=3, **keys), expected, 0.0)


def test_the_tokenizers_padding_side_changes_nothing(base, tmp_path, plain, monkeypatch):
    keys, expected = plain
    init = Template.__init__

    def on_the_left(self, tokenizer, *args):
        tokenizer.padding_side = "left"
        init(self, tokenizer, *args)

    monkeypatch.setattr(Template, "__init__", on_the_left)
    assert_same(run(base, tmp_path, **keys), expected, 0.0)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_logits_behind_left_padding_are_those_without(positions):
    tokenizer = make_tokenizer()
    if positions == "rotary":
        model = make_model(tokenizer, initializer_range=0.3)
    else:
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
        ).eval()
    from alignment.rollout.steps import StepInputs

    prompt, device = [5, 9, 13, 40], torch.device("cpu")
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        engine = TransformersEngine(model, 0)
        for longer in (5, 9, 17):
            input_ids, mask = engine._left_pad([prompt, [7] * longer], device)
            together = StepInputs(model, mask, 1).forward(input_ids)[0]
            torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_arithmetic_passes_over_padding_on_any_side(side):
    g = torch.Generator().manual_seed(0)
    lengths, time = [5, 1, 3], 5
    mask = torch.arange(time) < torch.tensor(lengths).unsqueeze(-1)
    logp, old, ref, values, old_values = (torch.randn(3, time, generator=g, dtype=torch.float64) for _ in range(5))
    scores = torch.randn(3, generator=g, dtype=torch.float64)
    left = {"left": 4, "right": 0, "both": 2}[side]

    def padded(x, fill):
        return torch.nn.functional.pad(x, (left, 4 - left), value=fill)

    def everything(mask, logp, old, ref, values, old_values):
        rewards = token_rewards(scores, kl_estimate(old, ref, "k1"), mask, kl_coef=0.1)
        advantages, returns = advantages_and_returns(rewards, old_values, mask, gamma=0.9, lam=0.8, lam_value=1.0)
        advantages = whiten(advantages, mask)
        policy = policy_loss(logp, old, advantages, cliprange=0.2, cliprange_high=0.28, dual_clip=3.0)
        value = value_loss(values, old_values, returns, cliprange_value=0.2)
        means = [
            aggregate(loss, mask, how)
            for loss in (policy.loss, value.loss)
            for how in ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
        ]
        return [rewards[mask], advantages[mask], returns[mask], policy.loss[mask], value.loss[mask], torch.stack(means)]

    plain = everything(mask, logp, old, ref, values, old_values)
    wide = everything(padded(mask, False), *(padded(x, 3.0) for x in (logp, old, ref, values, old_values)))
    for ours, theirs in zip(wide, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
