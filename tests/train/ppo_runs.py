"""Small PPO runs for tests: a tiny base, prompts, and a scorer that counts a letter."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainingArguments

from alignment.config.launched import is_sharded
from alignment.config.schema import STAGES, DatasetEntry
from alignment.data.template import Template
from alignment.policy.load_roles import load_roles
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.train.policy_gradient.trainer import PPOTrainer
from alignment.train.policy_gradient.update_shape import UpdateShape
from tests.models import on_base

PROMPTS = [f"tell me {number}" for number in range(20)]


class CountE:
    """Scores an answer by its letters e, a quarter each: 0.0 for most answers at first."""

    def score(self, prompts, answers, *, stopped):
        return [answer.count("e") / 4 for answer in answers]


class ManyStops(TransformersEngine):
    """Samples with a fifth of the vocabulary as stop tokens, so that answers have many lengths."""

    def generate(self, prompt_ids, sampling):
        return super().generate(prompt_ids, dataclasses.replace(sampling, stop_token_ids=list(range(1, 60))))


def on_cpu() -> dict[str, Any]:
    return {"use_cpu": False, "ddp_backend": "gloo"} if is_sharded() else {"use_cpu": True}


def make_trainer(
    base: Path,
    out: Path,
    *,
    updates: int = 3,
    per_device: int = 8,
    reward: Path | None = None,
    scorer: Any = None,
    monitor: Any = None,
    prompts: list[str] | None = None,
    arguments: dict[str, Any] | None = None,
    callbacks: list[Any] | None = None,
    eos_as_pad: bool = False,
    many_stops: bool = True,
    stage: str = "ppo",
    **keys: Any,
) -> PPOTrainer:
    settings = {
        "model_name_or_path": str(base),
        "rollout_batch_size": 16,
        "total_episodes": 16 * updates,
        **({"num_ppo_epochs": 2} if stage == "ppo" else {}),
        "num_mini_batches": 2,
        "max_new_tokens": 6,
        "lora_r": 4,
        **keys,
    }
    recipe = STAGES[stage](
        stage=stage,
        output_dir=str(out),
        datasets=[DatasetEntry(path="unused")],
        reward_model_path=str(reward or "unused"),
        **settings,
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    if eos_as_pad:
        tokenizer.pad_token = tokenizer.eos_token
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    shape = UpdateShape.of(recipe, per_device_train_batch_size=per_device, world_size=processes)
    given = {
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        **(arguments or {}),
    }
    args = TrainingArguments(
        output_dir=str(out), **on_cpu(), per_device_train_batch_size=per_device, **given, **shape.forced_arguments()
    )
    if reward is None and scorer is None:
        scorer = CountE()
    torch.manual_seed(recipe.seed)  # new adapters are the same in every run
    roles = load_roles(recipe, rewards=on_base(reward) if reward else [])
    return PPOTrainer(
        roles,
        args,
        recipe=recipe,
        template=Template(tokenizer),
        prompts=prompts or PROMPTS,
        scorer=scorer,
        monitor=monitor,
        engine=ManyStops(roles.policy_lm, tokenizer.pad_token_id) if many_stops else None,
        callbacks=callbacks,
    )


def trained_weights(trainer: PPOTrainer) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in trainer.roles.named_parameters() if p.requires_grad}
