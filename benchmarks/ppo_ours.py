"""Time PPO updates of this project on a workload; the last line printed is one JSON object.

The real parts: `load_roles`, `PPOTrainer`, `TransformersEngine`, with a reward adapter on the same base whose head is
random, and a value that starts from it. Started by `ppo_vs_trl.py`, once per repetition; `grpo_ours.py` uses its parts.
"""

import argparse
import dataclasses
import itertools
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback, TrainingArguments

from alignment.config.schema import AdapterKeys, DatasetEntry, PolicyGradientRecipe, PPORecipe
from alignment.data.template import Template
from alignment.policy.adapters import attach_adapter
from alignment.policy.load_roles import load_roles
from alignment.policy.reward_models import RewardModel, name_roles
from alignment.rollout.engine import Completion, Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.train.policy_gradient.scoring import Scorer
from alignment.train.policy_gradient.trainer import PPOTrainer
from alignment.train.policy_gradient.update_shape import UpdateShape
from benchmarks.workload import WORKLOADS, Workload, prompt_ids


class StopsAt:
    """The engine with the workload's stop token in place of the template's."""

    def __init__(self, engine: TransformersEngine, stop: int | None) -> None:
        self.engine, self.stops = engine, [] if stop is None else [stop]

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        return self.engine.generate(prompt_ids, dataclasses.replace(sampling, stop_token_ids=self.stops))


class Clock(TrainerCallback):
    """Notes wall and processor time at the end of every update, and what the update sampled."""

    def __init__(self, steps_per_update: int) -> None:
        self.steps_per_update = steps_per_update
        self.wall, self.cpu, self.last = [time.perf_counter()], [time.process_time()], []
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps_per_update == 0:
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            self.last.append(dict(self.trainer.metrics))


def reward_adapter(model: str, folder: Path, lora_layers: int | None) -> Path:
    """A sequence classifier's rank-16 adapter on the model, saved; its head is random, as the baseline's is."""
    torch.manual_seed(1)
    classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    keys = AdapterKeys(lora_r=16, lora_alpha=32, lora_layers=lora_layers)
    attach_adapter(classifier, keys, task="SEQ_CLS").save_pretrained(folder)
    return folder


def recipe_of(args: argparse.Namespace, workload: Workload, out: Path) -> PPORecipe:
    """The recipe with the workload's numbers."""
    return PPORecipe(
        stage="ppo",
        output_dir=str(out),
        datasets=[DatasetEntry(path="unused")],
        model_name_or_path=args.model,
        reward_model_path=str(reward_adapter(args.model, out / "reward", args.lora_layers)),
        value_model=args.value_model,
        rollout_batch_size=workload.batch,
        rollout_eval_batch_size=workload.batch,
        total_episodes=workload.batch * args.updates,
        num_ppo_epochs=workload.epochs,
        num_mini_batches=workload.mini_batches,
        max_new_tokens=workload.response_len,
        kl_coef=0.05,
        lora_r=16,
        lora_alpha=32,
        lora_layers=args.lora_layers,
        num_sample_generations=0,
    )


def make_trainer(
    args: argparse.Namespace, workload: Workload, recipe: PolicyGradientRecipe, scorer: Scorer | None = None
) -> tuple[PPOTrainer, Clock]:
    """Everything that the recipe's script builds; scorer: None: the recipe's reward model."""
    shape = UpdateShape.of(recipe, per_device_train_batch_size=args.microbatch, world_size=1)
    arguments = TrainingArguments(
        output_dir=recipe.output_dir,
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=args.microbatch,
        learning_rate=3e-6,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **shape.forced_arguments(),
    )
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    rewards = name_roles([RewardModel.resolve(recipe.reward_model_path)]) if recipe.reward_model_path else []
    roles = load_roles(recipe, rewards=rewards)
    clock = Clock(shape.steps_per_update)
    count = workload.batch * (args.updates + 1)
    prompts = prompt_ids(tokenizer, workload, args.prompts, count, roles.policy_lm.config.vocab_size)
    engine = TransformersEngine(roles.policy_lm, tokenizer.pad_token_id, workload.batch)
    trainer = PPOTrainer(
        roles,
        arguments,
        recipe=recipe,
        template=Template(tokenizer),
        prompts=[f"w{row}" for row in range(count)],
        scorer=scorer,
        engine=StopsAt(engine, workload.stop_token_id),
        callbacks=[clock],
    )
    trainer.prompt_ids = prompts  # ids, not text: both systems answer the very same
    clock.trainer = trainer
    return trainer, clock


def arguments_parser(description: str | None) -> argparse.ArgumentParser:
    """What a script that measures this project is given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--microbatch", type=int, required=True)
    parser.add_argument("--lora_layers", type=int)
    return parser


def train_and_measure(trainer: PPOTrainer, clock: Clock) -> dict[str, Any]:
    """Train, and return the figures of the updates."""
    clock.wall[0], clock.cpu[0] = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = ([b - a for a, b in itertools.pairwise(times)] for times in (clock.wall, clock.cpu))
    tokens = [last["tokens"] for last in clock.last]
    found = {
        "system": "alignment",
        "update_seconds": seconds,
        "update_cpu_seconds": cpu,
        "response_tokens": tokens,
        "seconds_sample": [last["seconds_sample"] for last in clock.last],
        "seconds_score": [last["seconds_score"] for last in clock.last],
        "response_tokens_per_second": statistics.median(tokens[1:]) / statistics.median(seconds[1:]),
        "response_tokens_per_cpu_second": statistics.median(tokens[1:]) / statistics.median(cpu[1:]),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if torch.cuda.is_available():
        found["peak_cuda_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def main() -> None:
    """Train and print."""
    parser = arguments_parser(__doc__)
    parser.add_argument("--value_model", choices=("adapter", "head"), default="adapter")
    args = parser.parse_args()
    workload = WORKLOADS[args.workload]
    with tempfile.TemporaryDirectory() as out:
        trainer, clock = make_trainer(args, workload, recipe_of(args, workload, Path(out)))
        print(json.dumps(train_and_measure(trainer, clock)))


if __name__ == "__main__":
    main()
