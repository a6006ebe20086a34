"""Engines that do not sample with the policy end the run; a correct one, in 16 bits too, does not."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignment.errors import ModelError
from alignment.ops.agreement import share_towards
from alignment.policy.merged import policy_weights
from alignment.rollout.engine import Completion
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


class Separate:
    """An engine with a plain model of its own, which gets the weights of `weights()` before each call."""

    def __init__(self, base, dtype=torch.float32):
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        self.inner = TransformersEngine(self.model, 0)
        self.roles = None

    def weights(self):
        return {name: tensor.detach().clone() for name, tensor in policy_weights(self.roles)}

    def prompt(self, ids):
        return ids

    @torch.no_grad()
    def generate(self, prompt_ids, sampling):
        own = dict(self.model.named_parameters())
        for name, tensor in self.weights().items():
            own[name].copy_(tensor)
        prompts = [self.prompt(ids) for ids in prompt_ids]
        with torch.autocast("cpu", enabled=False):
            found = self.inner.generate(prompts, sampling)
            return [
                Completion(each.ids, each.stopped, self.logp(ids, each.ids, sampling.temperature))
                for ids, each in zip(prompts, found, strict=True)
            ]

    def logp(self, prompt, answer, temperature):
        logits = self.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float() / temperature
        return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].tolist()


class BaseAlone(Separate):
    def weights(self):
        return {}


class OneCallLate(Separate):
    before = None

    def weights(self):
        before, self.before = self.before, super().weights()
        return before or self.before


class MergedTwice(Separate):
    def weights(self):
        plain = dict(AutoModelForCausalLM.from_pretrained(self.model.name_or_path).named_parameters())
        return {name: 2 * tensor - plain[name] for name, tensor in super().weights().items()}


class OtherTemplate(Separate):
    def prompt(self, ids):
        return [*ids[:-1], 9, 4, ids[-1]]


class OtherTemperature(Separate):
    def logp(self, prompt, answer, temperature):
        return super().logp(prompt, answer, 1.3 * temperature)


class OtherStops(Separate):
    def generate(self, prompt_ids, sampling):
        return [
            Completion([*each.ids[:2], 11], True, [-1.0] * 3) for each in super().generate(prompt_ids, sampling)
        ]  # fmt: skip


class NeverStops(Separate):
    def generate(self, prompt_ids, sampling):
        stop = next(iter(sampling.stop_token_ids))
        return [Completion([5, stop, 7, 8, 9, 3], False, [-1.0] * 6) for _ in prompt_ids]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("canary") / "base", initializer_range=0.3)


def run(base, out, engine_class, *, updates=3, dtype=torch.float32, **keys):
    """Train with such an engine, and return the trainer."""
    arguments = {"learning_rate": keys.pop("rate", 1e-2), "bf16": dtype == torch.bfloat16}
    trainer = make_trainer(
        base, out, updates=updates, many_stops=False, arguments=arguments, temperature=0.8,
        rollout_engine="continuous_batching", **keys,
    )  # fmt: skip
    engine = engine_class(base, dtype)
    engine.roles = trainer.roles
    trainer.engine = engine
    trainer.train()
    return trainer


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_a_correct_engine_passes_and_its_difference_is_logged(base, tmp_path, method):
    trainer = run(base, tmp_path, Separate, peft_method=method, engine_check_updates=2, rate=1e-3)
    logged = [entry for entry in trainer.state.log_history if "score" in entry]
    assert all(entry["engine_logp_difference"] < 1e-5 for entry in logged)
    assert len(logged) == 3


@pytest.mark.parametrize("rate", [1e-4, 1e-2])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_correct_engine_in_16_bits_passes(base, tmp_path, method, rate):
    trainer = run(
        base, tmp_path, Separate, dtype=torch.bfloat16, updates=5, engine_check_updates=1, peft_method=method, rate=rate
    )  # fmt: skip
    differences = [entry["engine_logp_difference"] for entry in trainer.state.log_history if "score" in entry]
    assert len(differences) == 5
    assert all(1e-4 < difference < 0.05 for difference in differences)


def test_an_engine_without_the_adapter_is_found_once_the_adapter_is_trained(base, tmp_path):
    with pytest.raises(ModelError, match=r"before update 1, .* match the base's without the adapter"):
        run(base, tmp_path, BaseAlone)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A policy with a trained adapter to start from."""
    folder = tmp_path_factory.mktemp("trained")
    run(base, folder / "run", Separate, updates=1).save_model(str(folder / "policy"))
    return folder / "policy"


def test_an_engine_without_the_adapter_is_found_before_the_first_update(base, trained, tmp_path):
    with pytest.raises(ModelError, match=r"before update 0, .* match the base's without the adapter"):
        run(base, tmp_path, BaseAlone, model_name_or_path=str(trained))


@pytest.mark.parametrize("rate", [1e-5, 1e-2], ids=["below the tolerance", "above it"])
def test_an_engine_that_is_one_update_late_is_found(base, trained, tmp_path, rate):
    with pytest.raises(ModelError, match=r"before update 1, .* match those of the update before .* weights are stale"):
        run(base, tmp_path, OneCallLate, rate=rate, max_new_tokens=16, model_name_or_path=str(trained))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_late_engine_of_a_new_policy_has_the_weights_of_the_base(base, tmp_path, method):
    with pytest.raises(ModelError, match=r"before update 1, .* does not reach it, or its weights are stale"):
        run(base, tmp_path, OneCallLate, rate=1e-5, peft_method=method, max_new_tokens=16)


def test_an_adapter_that_is_merged_twice_is_found(base, tmp_path):
    with pytest.raises(ModelError, match="the adapter is applied more than once"):
        run(base, tmp_path, MergedTwice, rate=1e-3, max_new_tokens=16)


@pytest.mark.parametrize("engine", [OtherTemplate, OtherTemperature])
def test_another_template_or_temperature_is_found(base, tmp_path, engine):
    with pytest.raises(ModelError, match=r"differ from the policy's by .* and from the base's by .* prompt template"):
        run(base, tmp_path, engine)


def test_other_stop_tokens_are_found(base, tmp_path):
    with pytest.raises(ModelError, match="does not stop where training does: an answer ended after 3 tokens"):
        run(base, tmp_path, OtherStops)
    with pytest.raises(ModelError, match="does not stop where training does: an answer went on after the stop token"):
        run(base, tmp_path, NeverStops)


def test_a_check_changes_nothing_of_the_run(base, tmp_path):
    checked = run(base, tmp_path / "checked", Separate, engine_check_updates=1)
    unchecked = run(base, tmp_path / "unchecked", Separate, engine_check_updates=None)
    assert unchecked.canary.tolerance == 1e-3
    for (name, weight), other in zip(
        trained_weights(checked).items(), trained_weights(unchecked).values(), strict=True
    ):
        assert torch.equal(weight, other), name


def test_the_shares_of_a_noisy_engine():
    """10,000 tokens, rounding noise of 0.02 and weights that move log-probabilities by 0.01: half of the noise."""
    g = torch.Generator().manual_seed(0)
    policy, moved, noise = (torch.randn(10_000, generator=g) for _ in range(3))
    other = policy + 0.01 * moved
    for share in (0.0, 1.0, -1.0):
        engine = policy + share * 0.01 * moved + 0.02 * noise
        found = share_towards(engine, policy, other)
        assert found.error == pytest.approx(2 / 100, rel=0.05)  # 0.02 / (0.01 * sqrt(10,000))
        assert abs(found.share - share) < 4 * found.error
        assert (found.above(0.6), found.below(-0.6)) == (share == 1.0, share == -1.0)


def test_few_tokens_decide_nothing():
    ones = torch.ones(31)
    assert not share_towards(ones, 0 * ones, ones).above(0.0)
    assert not share_towards(ones, ones, ones).above(0.0)


def test_rounding_noise_of_an_untrained_adapter_decides_nothing():
    """The policy's own noise is in both differences: the share of a correct engine is about 1/2, never above 0.6."""
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        true = torch.randn(256, generator=g)
        engine, policy, other = (true + 0.02 * torch.randn(256, generator=g) for _ in range(3))
        assert not share_towards(engine, policy, other).above(0.6)
