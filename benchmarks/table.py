"""Runs the comparisons, and writes one Markdown table of them: our figure, the other's, the ratio and the goal.

    python -m benchmarks.table [NAME ...] [--kept]

Each comparison's JSON object is kept in runs/benchmarks/results/NAME.json, and runs/benchmarks/table.md is written of
all that are there. With names only those run; with `--kept` only those without a result. "By processor time" is the
ratio to trust where other work runs on the machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import ROOT, WORK
from benchmarks.workload import SHARED

RESULTS, TABLE = WORK / "results", WORK / "table.md"
NONE = "–"
HEAD = "| comparison | ours | other | ratio | by processor time | goal |\n|---|---|---|---|---|---|"
Runs = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table."""

    what: str
    ours: str
    other: str = NONE
    ratio: float | None = None
    by_cpu: float | None = None
    goal: str = NONE

    def __str__(self) -> str:
        ratio, by_cpu = (NONE if number is None else f"{number:.2f}" for number in (self.ratio, self.by_cpu))
        return f"| {self.what} | {self.ours} | {self.other} | {ratio} | {by_cpu} | {self.goal} |"


def against(what: str, ours: Runs, other: Runs, ratios: dict[str, float], *, work: str, goal: float) -> Iterator[Line]:
    """Lines of speed and of memory of two systems' runs; work: what the runs count."""
    unit = work.rpartition("_")[2]
    speed, memory = (
        [statistics.median(run[figure] for run in runs) for runs in (ours, other)]
        for figure in (f"{work}_per_second", "peak_rss_mib")
    )
    yield Line(
        what=f"{what}, {unit}/s",
        ours=f"{speed[0]:,.0f}",
        other=f"{speed[1]:,.0f}",
        ratio=ratios[f"{unit}_per_second_ratio"],
        by_cpu=ratios[f"{unit}_per_cpu_second_ratio"],
        goal=f"≥ {goal:g}",
    )
    yield Line(
        what=f"{what}, peak MiB",
        ours=f"{memory[0]:,.0f}",
        other=f"{memory[1]:,.0f}",
        ratio=ratios["peak_memory_ratio"],
        goal="≤ 1",
    )


def of_ppo(found: dict[str, Any]) -> Iterator[Line]:
    for value, ratios in found["by_value_model"].items():
        what = f"PPO `{found['workload']}`, value {value}, TRL 1.12.0"
        yield from against(what, found[f"ours-{value}"], found["trl"], ratios, work="response_tokens", goal=1)


def of_grpo(found: dict[str, Any]) -> Iterator[Line]:
    what = f"GRPO `{found['workload']}`, TRL {found['versions']['trl']}"
    yield from against(what, found["ours"], found["trl"], found, work="response_tokens", goal=1)


def of_stages(found: dict[str, Any]) -> Iterator[Line]:
    for stage, each in found["stages"].items():
        for system, ratios in each["against"].items():
            what = f"`{stage}`, `{found['workload']}`, {system.replace('_', ' ').replace('trl', 'TRL')}"
            ours, other = (each["runs"][name] for name in ("ours", system))
            yield from against(what, ours, other, ratios, work=each["work"], goal=ratios["goal"])


def of_roles(found: dict[str, Any]) -> Iterator[Line]:
    for precision in ("bf16", "nf4"):
        if precision in found:
            four, one = (found[precision]["measured"][name] / 2**30 for name in ("four_models", "one_base_four_roles"))
            yield Line(
                what=f"four roles of {found['shape']}, {precision}, GiB; four models",
                ours=f"{one:.1f}",
                other=f"{four:.1f}",
                ratio=one / four,
                goal="≤ 1",
            )


def of_startup(found: dict[str, Any]) -> Iterator[Line]:
    for name, what in (("help", "`alignment --help`"), ("first_step", "first step of SFT on stories260K")):
        seconds, goal = found[name]["cpu_seconds"], found[name]["goal"]
        yield Line(what=f"{what}, s of processor time", ours=f"{seconds:.2f}", goal=f"< {goal:g}")


def of_tokenising(found: Runs) -> Iterator[Line]:
    for row in found:
        seconds = row["load"] + row["tokenise"]
        yield Line(
            what=f"loading and tokenising {row['rows']:,} conversations, s of processor time", ours=f"{seconds:.0f}"
        )
        yield Line(what="the same, peak MiB", ours=f"{row['peak_mebibytes']:,.0f}")


def of_labeler(found: dict[str, Any]) -> Iterator[Line]:
    what = f"labeler, {found['calls']:,} calls"
    yield Line(what=f"{what}, in flight of {found['in_flight']}", ours=f"{found['occupancy']:.1%}")
    added, client = found["added_milliseconds_per_call"], found["client_milliseconds_per_call"]
    yield Line(what=f"{what}, ms a call; the client alone", ours=f"{client + added:.2f}", other=f"{client:.2f}")


CONVERSATIONS = str(SHARED / "data" / "soda-chat" / "soda_chat_messages.jsonl")
COMPARISONS: dict[str, tuple[list[str], Callable[[Any], Iterator[Line]]]] = {  # module and arguments, and its lines
    "ppo_equal": (["ppo_vs_trl", "--workload", "equal"], of_ppo),
    "ppo_natural": (["ppo_vs_trl", "--workload", "natural"], of_ppo),
    "grpo_equal": (["grpo_vs_trl", "--workload", "equal"], of_grpo),
    "grpo_natural": (["grpo_vs_trl", "--workload", "natural"], of_grpo),
    "stages": (["stages_vs_trl"], of_stages),
    "stages_natural": (["stages_vs_trl", "--workload", "natural", "--steps", "20"], of_stages),
    "roles": (["roles_memory", "--shape", "7b"], of_roles),
    "startup": (["startup"], of_startup),
    "tokenising": (["tokenising", CONVERSATIONS, str(SHARED / "models" / "kinds" / "qwen25")], of_tokenising),
    "labeler": (["labeler"], of_labeler),
}


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument("--kept", action="store_true", help="run only those without a result")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in COMPARISONS]:
        parser.error(f"there is no comparison {unknown[0]}; choose from {', '.join(COMPARISONS)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in args.names or COMPARISONS:
        if not (args.kept and (RESULTS / f"{name}.json").is_file()):
            run(name)
    TABLE.write_text(table(RESULTS), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"), end="")


def run(name: str) -> None:
    """Run a comparison, show what it prints, and keep its JSON object."""
    (module, *arguments), _ = COMPARISONS[name]
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    print(f"== {' '.join(command[1:])}", flush=True)
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.returncode:
        sys.exit(f"{name} ended with {process.returncode}")
    (RESULTS / f"{name}.json").write_text(last, encoding="utf-8")


def table(folder: Path) -> str:
    """Return the table of all results in a folder."""
    lines = [HEAD]
    for name, (_, lines_of) in COMPARISONS.items():
        file = folder / f"{name}.json"
        if file.is_file():
            lines += map(str, lines_of(json.loads(file.read_text(encoding="utf-8"))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
