"""PPO that samples from a merged copy in bfloat16, and with fixed shapes."""

import pytest
import torch

from alignment.errors import ModelError
from alignment.policy.merged import policy_weights
from alignment.rollout.static_batch import StaticDecoder
from alignment.train.policy_gradient.engines import require_engine
from tests.models import save_tiny_model
from tests.rollout.recorded import Recorder
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("merged") / "base", initializer_range=0.3)


def run(base, out, **keys):
    trainer = make_trainer(base, out, many_stops=False, **keys)
    trainer.train()
    return trainer


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_fixed_shapes_train_the_same_weights_as_a_growing_cache(base, tmp_path):
    plain = run(base, tmp_path / "plain", updates=2)
    static = run(base, tmp_path / "static", updates=2, cache_implementation="static")
    assert static.engine.decoder.memory is None  # training has the memory for itself
    for name, weight in trained_weights(static).items():
        torch.testing.assert_close(weight, trained_weights(plain)[name], msg=name)


@pytest.mark.parametrize("keys", [{}, {"peft_method": "full"}, {"tied": True}], ids=str)
def test_the_copy_has_the_policys_weights_at_each_rollout_and_stays_in_its_place(base, tmp_path, keys):
    keys = dict(keys)
    if keys.pop("tied", False):
        base = save_tiny_model(tmp_path / "base", initializer_range=0.3, tie_word_embeddings=True)
    trainer = make_trainer(base, tmp_path / "run", many_stops=False, updates=3, rollout_engine="merged", **keys)
    sample, seen, places = trainer.engine.generate, [], set()

    def watched(prompt_ids, sampling):
        expected = {name: tensor.detach().bfloat16() for name, tensor in policy_weights(trainer.roles)}
        answers = sample(prompt_ids, sampling)
        found = dict(trainer.engine.model.named_parameters())
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        seen.append(torch.cat([tensor.flatten() for tensor in expected.values()]))
        places.add(tuple(tensor.data_ptr() for tensor in found.values()))
        return answers

    trainer.engine.generate = watched
    trainer.canary.generate = trainer.generate
    trainer.train()
    assert len(places) == 1
    assert len(seen) > 3  # rollouts, and checks of the engine
    assert not torch.equal(seen[0], seen[-1])
    differences = logged(trainer, "engine_logp_difference")
    assert len(differences) == 2
    assert all(1e-5 < difference < 0.05 for difference in differences)


def test_importance_weights_correct_the_copys_rounding(base, tmp_path):
    trainer = make_trainer(
        base, tmp_path / "run", many_stops=False, updates=1, rollout_engine="merged", cache_implementation="static"
    )  # fmt: skip
    trainer.engine.engine.decoder = StaticDecoder(trainer.engine.model, Recorder())
    kept, make = [], trainer.make_experience

    def watched(rollout, outputs, rewards):
        kept.append((rollout, outputs, make(rollout, outputs, rewards)))
        return kept[-1][-1]

    trainer.make_experience = watched
    trainer.train()
    [(rollout, outputs, experience)] = kept
    mask = experience.mask
    expected = (outputs.logp - rollout.engine_logp).exp().clamp(max=2.0)
    torch.testing.assert_close(experience.weights[mask], expected[mask])
    spread = (experience.weights[mask] - 1).abs()
    assert 0 < float(spread.max()) < 0.5
    assert trainer.engine.engine.decoder.memory is not None


def test_a_model_of_other_masks_is_refused_before_it_is_loaded(base, tmp_path):
    recipe = make_trainer(base, tmp_path / "run", updates=1, cache_implementation="static").recipe
    require_engine(recipe)
    with pytest.raises(ModelError, match="LlamaForCausalLM makes its own attention masks") as caught:
        require_engine(recipe.model_copy(update={"attn_implementation": "eager"}))
    assert caught.value.exit_code == 2


def test_the_policys_weights_must_be_those_of_the_copy(base, tmp_path):
    trainer = make_trainer(base, tmp_path / "run", many_stops=False, updates=1, rollout_engine="merged")
    trainer.engine.weights = lambda: iter([("model.norm.weight", torch.zeros(32))])
    with pytest.raises(ModelError, match=r"copied as a plain LlamaForCausalLM: they differ in lm_head\.weight"):
        trainer.train()
