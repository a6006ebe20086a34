"""Make docs/gpu.md of results files: python -m benchmarks.gpu.page [RESULTS.json ...] > docs/gpu.md.

Without a file every step is given as not run. `make gpu-page` takes all of benchmarks/gpu/results.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import NOT_RUN
from benchmarks.gpu.steps import STEPS

HEAD = """# On a GPU

    make gpu-page    # writes this page from benchmarks/gpu/results

Results of `bash benchmarks/gpu/run.sh` ([how to start it](../benchmarks/gpu/README.md)). A step fails if a number is
outside its limits.
"""
NOTHING = """
**Nothing has been run on a GPU yet.** With `--cpu` every step runs on tiny shapes (`make test-slow`). This tests the
script, not a GPU.
"""


def page(runs: list[dict[str, Any]]) -> str:
    """Return the page; no run: every step as not run."""
    if not runs:
        return HEAD + NOTHING + "\n" + table({step.name: {"title": step.title, "status": NOT_RUN} for step in STEPS})
    return HEAD + "".join(section(run) for run in runs)


def section(run: dict[str, Any]) -> str:
    """Return one run: the machine, what became of each step, and its numbers."""
    device = run["device"]
    steps = run["steps"]
    versions = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
    memory = f", {device['memory_gib']} GiB" if "memory_gib" in device else ""
    limit = run["limit_seconds"]
    seconds = f"{run['seconds']:.0f} s of {limit}" if "seconds" in run else f"stopped before its limit of {limit} s"
    lines = [f"\n## {device['name']}{memory}, {run['started'][:10]}\n"]
    if device["kind"] != "cuda":
        lines.append("**Tiny shapes on a CPU: the numbers test the script, not a GPU.**\n")
    lines.append(f"{seconds}; {versions}\n")
    return "\n".join(lines) + "\n" + table(steps) + "".join(details(name, step) for name, step in steps.items())


def table(steps: dict[str, dict[str, Any]]) -> str:
    """Return what became of each step."""
    rows = ["| step | what | result | s |", "|---|---|---|---|"]
    for name, step in steps.items():
        result = f"**{step['status']}**" if step["status"] != "passed" else "passed"
        if step.get("reason"):
            result += f": {_cell(step['reason'])}"
        rows.append(f"| `{name}` | {step['title']} | {result} | {_number(step.get('seconds', '–'))} |")
    return "\n".join(rows) + "\n"


def details(name: str, step: dict[str, Any]) -> str:
    """Return a step's numbers, those with limits first; "" if it has none."""
    checks, numbers = step.get("checks", []), step.get("numbers", {})
    if not checks and not numbers:
        return ""
    lines = [f"\n### {name}: {step['title']}\n"]
    if checks:
        lines += ["| number | found | at least | at most | |", "|---|---|---|---|---|"]
        for check in checks:
            found, least, most = (_number(check[key]) for key in ("found", "least", "most"))
            lines.append(f"| {_cell(check['what'])} | {found} | {least} | {most} | {'' if check['ok'] else '**no**'} |")
        lines.append("")
    flat = flatten(numbers)
    if flat:
        lines += ["| number | found |", "|---|---|", *(f"| {_cell(key)} | {_number(n)} |" for key, n in flat.items())]
    return "\n".join(lines).rstrip() + "\n"


def flatten(numbers: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested tables as one, with joined names."""
    flat: dict[str, Any] = {}
    for key, value in numbers.items():
        flat |= flatten(value, f"{before}{key}, ") if isinstance(value, dict) else {f"{before}{key}": value}
    return flat


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else _cell(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page([json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]]))
