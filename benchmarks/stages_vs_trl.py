"""SFT, reward model, DPO and KTO of this project against TRL's trainers, on the same work.

    python -m benchmarks.stages_vs_trl [--stages sft packed ...] [--workload equal|natural] [--repetitions 2]
        [--steps 8]

Ours is a stage's script with a recipe, from reading the data to saving the adapter; TRL's is its plain trainer with
`save_model`. Runs alternate, each in a process of its own, and medians over repetitions are compared. The same in
both: the model (`equal`: a random Llama of 15M parameters with a vocabulary of 32,000; `natural`: stories260K), the
texts (`benchmarks.stage_data`), LoRA of rank 16 on all linear layers, float32, AdamW, batches of four demonstrations,
pairs or answers, one epoch, no gradient checkpointing. Tokens are those of the batches without padding. The first step,
a warm-up, and the last are left out.

    sft        demonstrations of mixed lengths, padded
    packed     the same in packs of 256 tokens, one a step; also against TRL's padded batches
    reward     pairs
    rankings   2 rankings of four answers: here 8 sequences a step; in TRL, their 12 pairs are 24
    dpo        pairs
    kto        answers, half of them good; the systems order them differently

The last line printed is one JSON object: by stage `tokens_per_second_ratio` (ours over TRL's; `pairs_per_second_ratio`
of `rankings`), the same by processor time, which other work on the machine affects less, `peak_memory_ratio`, whether
the batches had the same tokens, and the figures of every run.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.comparison import ROOT, WORK, alternate, conditions, make_model, measured, ratios
from benchmarks.stage_data import write
from benchmarks.workload import model_folder

STAGES = ("sft", "packed", "reward", "rankings", "dpo", "kto")
BATCH = 4
PER_STEP = {"packed": {"ours": 1, "trl": 1, "trl_padded": BATCH}, "rankings": {"ours": 2, "trl": 12}}
ROWS = {"rankings": 2}  # of a step
GOALS = {"packed": {"trl_padded": 1.3}, "rankings": {"trl": 2.0}}  # else 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--workload", choices=("equal", "natural"), default="equal")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the model that `equal` makes, and the data")
    args = parser.parse_args()
    make_model(args.workload, args.work)
    found = {stage: compared(stage, args) for stage in args.stages}
    print(table(found))
    conditioned = conditions(1, "cpu")
    conditioned["versions"]["trl"] = version("trl")
    print(json.dumps({"workload": args.workload, **conditioned, "stages": found}))


def compared(stage: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run both systems on a stage, and return the ratios by baseline and the runs by system."""
    files = write(stage, args.workload, args.work / "stages", ROWS.get(stage, BATCH) * args.steps)
    work = "pairs" if stage == "rankings" else "tokens"
    per_step = PER_STEP.get(stage, {"ours": BATCH, "trl": BATCH})
    print(f"--- {stage}", flush=True)

    def measure(system: str) -> dict[str, Any]:
        script, _, padded = system.partition("_")
        command = ["-m", f"benchmarks.stages_{script}", "--stage", "sft" if padded else stage, "--work", work]
        command += ["--model", str(model_folder(args.workload, args.work)), "--data", str(files[script])]
        return measured([*command, "--batch", str(per_step[system])], ROOT, threads=1, device="cpu")

    runs = alternate(list(per_step), args.repetitions, measure, work)
    baselines = [system for system in per_step if system != "ours"]
    goals = GOALS.get(stage, {})
    return {
        "against": {
            system: {
                **ratios({key: runs[key] for key in ("ours", system)}, system, "cpu", work)["ours"],
                "goal": goals.get(system, 1.0),
            }
            for system in baselines
        },
        "same_batches": all(run[work] == runs["ours"][0][work] for system in ("ours", "trl") for run in runs[system]),
        "work": work,
        "runs": runs,
    }


def table(found: dict[str, Any]) -> str:
    """The ratios as a Markdown table."""
    lines = ["| stage | against | speed | by processor time | goal | memory |", "|---|---|---|---|---|---|"]
    for stage, each in found.items():
        for system, ratio in each["against"].items():
            per_second, per_cpu_second, memory, goal = ratio.values()
            lines.append(f"| `{stage}` | {system} | {per_second:.2f} | {per_cpu_second:.2f} | {goal} | {memory:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
