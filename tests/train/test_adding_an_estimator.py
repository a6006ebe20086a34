"""An advantage estimator takes one file: a pure function with its mark."""

import json

import pytest

from alignment.config.estimators import marked_estimators
from tests.package_copy import PackageCopy

MODULE = "alignment/ops/last_reward.py"
FUNCTION = '''
"""A dummy estimator."""

from alignment.ops.advantages import Estimate, EstimatorInput, estimator


@estimator("last_reward", uses_value=False, keys=("gamma",))
def last_reward(batch: EstimatorInput, *, gamma: float) -> Estimate:
    """Give every token the sum of its answer's rewards, times gamma."""
    return Estimate(batch.rewards.sum(dim=1, keepdim=True) * gamma * batch.mask)
'''
STEPS = """
import json, sys

import torch

from alignment.config import load_recipe
from alignment.config.schema import PPORecipe
from alignment.ops.advantages import EstimatorInput
from alignment.train.policy_gradient.estimators import estimate_advantages

recipe = load_recipe(PPORecipe, ["--config", sys.argv[1]])
batch = EstimatorInput(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[True, True, False]]), [0])
found = estimate_advantages(batch, recipe.update_rule())
print(json.dumps({"advantages": found.advantages.tolist(), "value": recipe.value is not None}))
"""


def test_an_estimator_takes_one_file(tmp_path):
    copy = PackageCopy(tmp_path / "copy")
    (copy.folder / MODULE).write_text(FUNCTION)
    assert copy.changed() == [MODULE]

    recipe = {"stage": "ppo", "model_name_or_path": "m", "output_dir": str(tmp_path / "run"), "total_episodes": 640}
    recipe |= {"datasets": [{"path": "d"}], "reward_model_path": "r", "gamma": 0.5}
    (tmp_path / "ppo.yaml").write_text(json.dumps({**recipe, "advantage_estimator": "last_reward"}))
    (tmp_path / "typo.yaml").write_text(json.dumps({**recipe, "advantage_estimator": "last_rewards"}))

    ran = copy.run("-c", STEPS, str(tmp_path / "ppo.yaml"))
    assert ran.returncode == 0, ran.stderr[-2000:]
    # (1 + 2 + 0) * 0.5 on both tokens of the answer
    assert json.loads(ran.stdout) == {"advantages": [[1.5, 1.5, 0.0]], "value": False}
    assert "did you mean last_reward?" in copy.run("-m", "alignment.cli", "check", str(tmp_path / "typo.yaml")).stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            '@estimator("a", uses_value=False)\ndef f(): ...\n@estimator("a", uses_value=True)\ndef g(): ...\n',
            "the name a",
        ),
        ('NAME = "a"\n@estimator(NAME, uses_value=False)\ndef f(): ...\n', "malformed node"),
    ],
)
def test_a_mark_that_cannot_be_read_is_refused(tmp_path, source, message):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ValueError, match=message):
        marked_estimators(tmp_path)
