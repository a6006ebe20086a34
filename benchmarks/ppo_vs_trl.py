"""PPO of this project against PPO of TRL 1.12.0, the last release that had it, on the same work.

    python -m pip install --no-deps --target runs/benchmarks/trl-1.12.0 trl==1.12.0
    python -m benchmarks.ppo_vs_trl --workload equal|natural [--repetitions 3] [--updates 4] [--threads 1]

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

So the prompts, the batch, the number of optimizer steps and the answers' lengths (under `natural` up to chance) are
equal, and the value is trained in all; its capacity differs, which is what one base for four roles means. Microbatches
are free: TRL takes a whole minibatch at once, as in its script; ours is given by `--microbatch`, default likewise.
Response tokens count up to and including the stop token in both systems.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.workload import SHARED, WORKLOADS, Workload, model_folder, prompts_file

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "runs" / "benchmarks"
TRL = "trl==1.12.0"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="equal")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--updates", type=int, default=4, help="per run; the first is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--microbatch", type=int, help="ours; default: a whole minibatch")
    parser.add_argument("--value_model", choices=("head", "adapter"), nargs="+", default=["head", "adapter"])
    parser.add_argument("--baseline", type=Path, default=SHARED / "bench" / "trl_ppo_baseline.py")
    parser.add_argument("--trl", type=Path, default=WORK / "trl-1.12.0", help="folder that pip installed TRL 1.12.0 to")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the model that `equal` makes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    if not args.baseline.is_file():
        sys.exit(f"the baseline script {args.baseline} is missing; name it with --baseline")
    if args.device == "cuda" and not _has_gpu():
        sys.exit("--device cuda: torch sees no CUDA device here; nothing was run")
    if not args.trl.is_dir():
        sys.exit(f"{args.trl} is missing; run `pip install --no-deps --target {args.trl} {TRL}`, or name it with --trl")
    _run(
        [sys.executable, "-m", "benchmarks.workload", args.workload, str(args.work)], _found_first(ROOT)
    )  # torch in here would be counted
    systems = [*(f"ours-{value}" for value in args.value_model), "trl"]
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    for repetition in range(args.repetitions):
        for system in systems if repetition % 2 == 0 else reversed(systems):
            runs[system].append(_measure(system, args))
            print(_line(system, runs[system][-1]), flush=True)
    report(args, runs)


def report(args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print every system's medians, then the JSON object."""
    memory = "peak_cuda_mib" if args.device == "cuda" else "peak_rss_mib"
    names = {
        "tokens_per_second_ratio": "response_tokens_per_second",
        "tokens_per_cpu_second_ratio": "response_tokens_per_cpu_second",
        "peak_memory_ratio": memory,
    }
    medians = {
        system: {figure: statistics.median(run[figure] for run in found) for figure in names.values()}
        for system, found in runs.items()
    }
    for system, found in medians.items():
        print(_line(f"median {system}", found))
    ratios = {
        value: {ratio: medians[f"ours-{value}"][figure] / medians["trl"][figure] for ratio, figure in names.items()}
        for value in args.value_model
    }
    print(
        json.dumps(
            {
                "workload": args.workload,
                **ratios[args.value_model[0]],
                "value_model": args.value_model[0],
                "by_value_model": ratios,
                "threads": args.threads,
                "device": _device(args.device),
                "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
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
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    threads = {"OMP_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false"}
    printed = _run([sys.executable, *command], {**_found_first(path), "HF_HUB_OFFLINE": "1", **threads, **hidden})
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def _found_first(folder: Path) -> dict[str, str]:
    """Have Python look for modules in `folder` first, then where it looks now."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))}


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _line(system: str, found: dict[str, Any]) -> str:
    memory = found.get("peak_cuda_mib", found["peak_rss_mib"]) if "peak_rss_mib" in found else found["peak_cuda_mib"]
    return (
        f"{system:19}: {found['response_tokens_per_second']:8.1f} response tokens/s, "
        f"{found['response_tokens_per_cpu_second']:8.1f} by processor time, peak {memory:6.0f} MiB"
    )


def _has_gpu() -> bool:
    return _run([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], {}).strip() == "True"


def _device(kind: str) -> str:
    if kind == "cuda":
        return _run([sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"], {}).strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
