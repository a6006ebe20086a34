"""PPO of this project against PPO of TRL 1.12.0, the last release that had it, on the same work.

    python -m pip install --no-deps --target runs/benchmarks/trl-1.12.0 trl==1.12.0
    python -m benchmarks.ppo_vs_trl --workload equal|natural [--repetitions 3] [--updates 4] [--threads 1]
        [--lora_layers N]

Runs alternate, each in a process of its own, and medians over repetitions are compared, so that a machine that slows
down slows all. The last line printed is one JSON object with `workload`, `tokens_per_second_ratio` (ours over
TRL's), `peak_memory_ratio`, the same `by_value_model`, and every run's raw figures; `tokens_per_cpu_second_ratio` is by
processor time, which others' load on the machine touches less. The ratios are those of the value model named first.

Workloads, both with LoRA of rank 16 on all linear layers, float32 on a CPU, 4 epochs of 4 minibatches (16 optimizer
steps an update), learning rate 3e-6, KL coefficient 0.05, the first update left out as a warm-up:

- `equal`: a random Llama of 15M parameters (hidden 288, 6 layers, vocabulary 32,000, tied), 32 prompts of 32 random
  tokens, answers of 64 tokens without a stop token.
- `natural`: stories260K, 64 prompts of 32 tokens of stories, answers of up to 192 tokens that end at token 1.
- `tiny`: the model of `equal`, a few answers of a few tokens, to see that the script runs.

What each system does in one update:

- TRL: samples through `generate` with the adapter unmerged, always to the full length, and keeps the logits; asks the
  reference (the policy with its adapter off), a value model and a reward model, both whole copies of the trunk with
  random heads; trains the policy's adapter and *all* of the value model with AdamW.
- Ours: samples with its own loop, rows leaving the batch as they end; asks policy, reference, value and reward, which
  are adapters of rank 16 on one base; trains the policy's adapter and the value, AdamW, gradients clipped at norm 1.
  `ours-head`: the value is a head on the policy's trunk, what TRL's AutoModelForCausalLMWithValueHead was;
  `ours-adapter`: it has an adapter of its own, the recipes' default, and passes through the trunk once more.
  With `--lora_layers N` the adapters of all its roles are in the top N layers, and the layers below run once a rollout;
  TRL's stay in all layers.

So the prompts, the batch, the number of optimizer steps and the answers' lengths (under `natural` up to chance) are
equal, and the value is trained in all; its capacity differs, which is what one base for four roles means. Microbatches
are free: TRL takes a whole minibatch at once, as in its script; ours is given by `--microbatch`, default likewise.
Response tokens count up to and including the stop token in both systems.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.comparison import (
    ROOT,
    WORK,
    alternate,
    arguments_parser,
    conditions,
    make_model,
    measured,
    ratios,
    require_device,
)
from benchmarks.workload import SHARED, WORKLOADS, Workload, model_folder, prompts_file

TRL = "trl==1.12.0"


def main() -> None:
    """Measure and print."""
    parser = arguments_parser(__doc__)
    parser.add_argument("--microbatch", type=int, help="ours; default: a whole minibatch")
    parser.add_argument("--value_model", choices=("head", "adapter"), nargs="+", default=["head", "adapter"])
    parser.add_argument("--baseline", type=Path, default=SHARED / "bench" / "trl_ppo_baseline.py")
    parser.add_argument("--trl", type=Path, default=WORK / "trl-1.12.0", help="folder that pip installed TRL 1.12.0 to")
    args = parser.parse_args()
    if not args.baseline.is_file():
        sys.exit(f"the baseline script {args.baseline} is missing; name it with --baseline")
    require_device(args.device)
    if not args.trl.is_dir():
        sys.exit(f"{args.trl} is missing; run `pip install --no-deps --target {args.trl} {TRL}`, or name it with --trl")
    make_model(args.workload, args.work)
    systems = [*(f"ours-{value}" for value in args.value_model), "trl"]
    report(args, alternate(systems, args.repetitions, lambda system: _measure(system, args)))


def report(args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print every system's medians, then the JSON object."""
    by_system = ratios(runs, "trl", args.device)
    by_value = {value: by_system[f"ours-{value}"] for value in args.value_model}
    print(
        json.dumps(
            {
                "workload": args.workload,
                **by_value[args.value_model[0]],
                "value_model": args.value_model[0],
                "by_value_model": by_value,
                "lora_layers": args.lora_layers,
                **conditions(args.threads, args.device),
                **runs,
            }
        )
    )


def _measure(system: str, args: argparse.Namespace) -> dict[str, Any]:
    workload: Workload = WORKLOADS[args.workload]
    model, texts = str(model_folder(args.workload, args.work)), prompts_file(args.workload)
    prompts = ["--prompts", str(texts)] if texts else []
    if system != "trl":
        microbatch = args.microbatch or workload.batch // workload.mini_batches
        command = ["-m", "benchmarks.ppo_ours", "--workload", args.workload, "--model", model, *prompts]
        command += ["--updates", str(args.updates), "--microbatch", str(microbatch)]
        command += ["--value_model", system.removeprefix("ours-")]
        command += ["--lora_layers", str(args.lora_layers)] if args.lora_layers else []
        path = ROOT
    else:
        command = [str(ROOT / "benchmarks" / "ppo_trl.py"), str(args.baseline), "--model", model, "--lora", *prompts]
        numbers = {
            "--batch": workload.batch,
            "--prompt-len": workload.prompt_len,
            "--response-len": workload.response_len,
            "--mini-batches": workload.mini_batches,
            "--epochs": workload.epochs,
            "--updates": args.updates,
            "--stop-token-id": workload.stop_token_id,
        }
        command += [word for key, number in numbers.items() if number is not None for word in (key, str(number))]
        path = args.trl
    return measured(command, path, threads=args.threads, device=args.device)


if __name__ == "__main__":
    main()
