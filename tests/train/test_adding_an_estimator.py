"""An advantage estimator takes two files: a pure function, and its entry in the table of estimators."""

import json

from tests.package_copy import PackageCopy

TABLE, MODULE = "alignment/config/estimators.py", "alignment/ops/last_reward.py"
FUNCTION = '''
"""A dummy estimator."""

from alignment.ops.advantages import Estimate, EstimatorInput


def last_reward(batch: EstimatorInput, *, gamma: float) -> Estimate:
    """Give every token the sum of its answer's rewards, times gamma."""
    return Estimate(batch.rewards.sum(dim=1, keepdim=True) * gamma * batch.mask)
'''
ENTRY = (
    '    "last_reward": EstimatorEntry("alignment.ops.last_reward:last_reward", uses_value=False, keys=("gamma",)),\n'
)
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


def test_an_estimator_takes_two_files(tmp_path):
    copy = PackageCopy(tmp_path / "copy")
    (copy.folder / MODULE).write_text(FUNCTION)
    table = (copy.folder / TABLE).read_text()
    assert table.count('    "grpo": ') == 1
    (copy.folder / TABLE).write_text(table.replace('    "grpo": ', ENTRY + '    "grpo": '))
    assert copy.changed() == [TABLE, MODULE]

    recipe = {"stage": "ppo", "model_name_or_path": "m", "output_dir": str(tmp_path / "run"), "total_episodes": 640}
    recipe |= {"datasets": [{"path": "d"}], "reward_model_path": "r", "gamma": 0.5}
    (tmp_path / "ppo.yaml").write_text(json.dumps({**recipe, "advantage_estimator": "last_reward"}))
    (tmp_path / "typo.yaml").write_text(json.dumps({**recipe, "advantage_estimator": "last_rewards"}))

    ran = copy.run("-c", STEPS, str(tmp_path / "ppo.yaml"))
    assert ran.returncode == 0, ran.stderr[-2000:]
    # (1 + 2 + 0) * 0.5 on both tokens of the answer
    assert json.loads(ran.stdout) == {"advantages": [[1.5, 1.5, 0.0]], "value": False}
    assert "did you mean last_reward?" in copy.run("-m", "alignment.cli", "check", str(tmp_path / "typo.yaml")).stderr
