"""GRPO of this project against TRL's GRPOTrainer, on the same work.

    python -m benchmarks.grpo_vs_trl --workload equal|natural [--repetitions 3] [--updates 4] [--threads 1]
        [--lora_layers N]

Runs alternate, each in a process of its own, and medians over repetitions are compared, as in `ppo_vs_trl`; the
workloads are those of `benchmarks.workload`. The last line printed is one JSON object with `workload`,
`tokens_per_second_ratio` (ours over TRL's), `peak_memory_ratio`, `tokens_per_cpu_second_ratio` (by processor time,
which other work on the machine affects less), and the figures of every run. Response tokens count up to and including
the stop token.

The same in both systems: the prompts as token ids, eight answers to each, float32, LoRA of rank 16 on all linear
layers, AdamW at learning rate 3e-6, gradients clipped at norm 1, the loss `dapo`, the reward (a checksum of the
answer), optimizer steps (`--epochs` times `--mini_batches`, by default the workload's 4 times 4), answers of a
microbatch (a whole minibatch), sampling of all answers of an update in one batch, no gradient checkpointing. The first
update is left out as a warm-up. Each system computes the log-probabilities before the update if it takes several steps,
and those of the reference if `--beta` is above 0. With `--lora_layers N` our adapter is in the top N layers, and the
layers below run once a rollout; TRL's stays in all layers.
"""

import argparse
import json
from importlib.metadata import version
from typing import Any

from benchmarks.comparison import (
    ROOT,
    alternate,
    arguments_parser,
    conditions,
    make_model,
    measured,
    ratios,
    require_device,
)
from benchmarks.workload import WORKLOADS, model_folder, prompts_file


def main() -> None:
    """Measure and print."""
    parser = arguments_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="default: the workload's")
    parser.add_argument("--mini_batches", type=int, help="default: the workload's")
    parser.add_argument("--beta", type=float, default=0.0)
    args = parser.parse_args()
    require_device(args.device)
    make_model(args.workload, args.work)
    workload = WORKLOADS[args.workload]
    args.epochs = args.epochs or workload.epochs
    args.mini_batches = args.mini_batches or workload.mini_batches
    runs = alternate(["ours", "trl"], args.repetitions, lambda system: _measure(system, args))
    found = conditions(args.threads, args.device)
    found["versions"]["trl"] = version("trl")
    work = {name: getattr(args, name) for name in ("workload", "epochs", "mini_batches", "beta", "lora_layers")}
    print(json.dumps({**work, **ratios(runs, "trl", args.device)["ours"], **found, **runs}))


def _measure(system: str, args: argparse.Namespace) -> dict[str, Any]:
    command = ["-m", f"benchmarks.grpo_{system}", "--workload", args.workload, "--updates", str(args.updates)]
    command += ["--model", str(model_folder(args.workload, args.work)), "--beta", str(args.beta)]
    command += ["--epochs", str(args.epochs), "--mini_batches", str(args.mini_batches)]
    texts = prompts_file(args.workload)
    command += ["--prompts", str(texts)] if texts else []
    if system == "ours":
        command += ["--microbatch", str(WORKLOADS[args.workload].batch // args.mini_batches)]
        command += ["--lora_layers", str(args.lora_layers)] if args.lora_layers else []
    return measured(command, ROOT, threads=args.threads, device=args.device)


if __name__ == "__main__":
    main()
