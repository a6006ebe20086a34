"""Rules for combinations of keys; each rule yields faults.

The types and ranges of single keys are in `alignment.config.schema`.
"""

from alignment.config.rules.grpo import GRPO_RULES
from alignment.config.rules.judges import call_limits, judges
from alignment.config.rules.keys import Fault, Keys, Rule, Unknown
from alignment.config.rules.kto import KTO_RULES
from alignment.config.rules.label import LABEL_RULES
from alignment.config.rules.lm_tasks import compared_by, task_names
from alignment.config.rules.named_files import json_files
from alignment.config.rules.ppo import PPO_RULES
from alignment.config.rules.pretrain import PRETRAIN_RULES
from alignment.config.rules.scorers import questions
from alignment.config.rules.shared import SHARED_RULES
from alignment.config.rules.steps import PREPARE_RULES
from alignment.config.rules.synthesize import SYNTHESIZE_RULES
from alignment.config.rules.training import TRAINING_RULES
from alignment.config.rules.tuning import TUNING_RULES
from alignment.config.schema import PolicyGradientRecipe

RULES: list[Rule] = [
    json_files,
    *TRAINING_RULES,
    *SHARED_RULES,
    *TUNING_RULES,
    judges,
    call_limits,
    task_names,
    compared_by,
    *LABEL_RULES,
    *GRPO_RULES,
    *KTO_RULES,
    *PREPARE_RULES,
    *PRETRAIN_RULES,
    *SYNTHESIZE_RULES,
    questions,
]


def broken_rules(keys: Keys) -> list[Fault]:
    """Return the faults of all rules, except rules that read a key with a fault of its own."""
    found: list[Fault] = []
    for rule in [*RULES, *(PPO_RULES if issubclass(keys.cls, PolicyGradientRecipe) else [])]:
        try:
            found += list(rule(keys))
        except Unknown:
            continue
    return found
