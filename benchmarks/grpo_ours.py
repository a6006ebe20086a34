"""Time GRPO updates of this project on a workload; the last line printed is one JSON object.

The real parts: `load_roles`, `PPOTrainer`, `TransformersEngine`. Started by `grpo_vs_trl.py`, once per repetition.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from typing import Any

from alignment.config.schema import DatasetEntry, GRPORecipe
from benchmarks.ppo_ours import arguments_parser, make_trainer, train_and_measure
from benchmarks.workload import WORKLOADS, Workload, reward


class Checksum:
    """The workload's reward as a scorer."""

    def score(self, prompts: Sequence[Any], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        return [reward(answer) for answer in answers]


def recipe_of(args: argparse.Namespace, workload: Workload, out: str) -> GRPORecipe:
    """The recipe with the workload's numbers."""
    return GRPORecipe(
        stage="grpo",
        output_dir=out,
        datasets=[DatasetEntry(path="unused")],
        model_name_or_path=args.model,
        rollout_batch_size=workload.batch,
        rollout_eval_batch_size=workload.batch,
        num_generations=workload.num_generations,
        total_episodes=workload.batch * args.updates,
        num_iterations=args.epochs,
        num_mini_batches=args.mini_batches,
        max_new_tokens=workload.response_len,
        beta=args.beta,
        lora_r=16,
        lora_alpha=32,
        lora_layers=args.lora_layers,
        num_sample_generations=0,
    )


def main() -> None:
    """Train and print."""
    parser = arguments_parser(__doc__)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--mini_batches", type=int, required=True)
    parser.add_argument("--beta", type=float, required=True)
    args = parser.parse_args()
    workload = WORKLOADS[args.workload]
    with tempfile.TemporaryDirectory() as out:
        trainer, clock = make_trainer(args, workload, recipe_of(args, workload, out), Checksum())
        print(json.dumps(train_and_measure(trainer, clock)))


if __name__ == "__main__":
    main()
