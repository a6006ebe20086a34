"""How long `alignment prepare` takes to clean and de-duplicate short rows, in how much memory, and what it finds.

    python -m benchmarks.preparing CORPUS [CORPUS ...] [--rows 10000 100000 1000000] [--num_proc 2]

CORPUS is a JSONL file with texts under `text`. Of its words `benchmarks.planted` makes rows of a prompt and a
completion: 5 % near-duplicates at Jaccard similarity 0.8, 2 % copies, and 2 % with HTML. A process runs the stage with
the steps clean, exact_duplicates and near_duplicates. Given are its CPU seconds with those of its child processes, the
elapsed seconds, the peak of the memory of all these processes together (shared pages once), the share of planted
near-duplicates of which one row is dropped, and the share of the other rows that are dropped. The last line is one JSON
object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.planted import Planted, texts_of, write

ROOT = Path(__file__).resolve().parents[1]
STEPS = [
    {"kind": "clean", "html": True},
    {"kind": "exact_duplicates"},
    {"kind": "near_duplicates", "threshold": 0.8},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--num_proc", type=int, default=2)
    given = parser.parse_args()
    corpus, found = texts_of(given.corpus), []
    print("| rows | CPU s | elapsed s | CPU s per 100,000 rows | peak MiB | recall | false positives |")
    print("|---|---|---|---|---|---|---|")
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            planted = write(Path(folder) / "rows.jsonl", corpus, rows=rows, similarity=0.8, seed=0)
            row = {"rows": rows, **measured(Path(folder), given.num_proc), **outcome(Path(folder), planted)}
        found.append(row)
        print(
            "| {rows:,} | {cpu_seconds:.0f} | {elapsed:.0f} | {per_row:.1f} | {peak_mib:,.0f} | {recall:.4f} | "
            "{false_positives:.4%} |".format(per_row=row["cpu_seconds"] * 100_000 / rows, **row),
            flush=True,
        )
    print(json.dumps({"num_proc": given.num_proc, "cores": len(os.sched_getaffinity(0)), "runs": found}))


def measured(folder: Path, processes: int) -> dict[str, float]:
    """Run the stage in a process of its own."""
    recipe = {
        "stage": "prepare",
        "output_dir": str(folder / "run"),
        "datasets": [{"path": str(folder / "rows.jsonl")}],
        "steps": STEPS,
        "num_proc": processes,
        "record_texts": False,
        "report_to": "none",
    }
    (folder / "prepare.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "recipes.prepare", "--config", str(folder / "prepare.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = Peak(process.pid)
    peak.start()
    if process.wait():
        sys.exit(f"the stage ended with {process.returncode}")
    peak.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "elapsed": time.perf_counter() - begun,
        "peak_mib": peak.bytes / 2**20,
    }


class Peak(threading.Thread):
    """The most memory that a process and its child processes hold together, looked at four times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.bytes = psutil.Process(pid), 0

    def run(self) -> None:
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            held = 0
            try:
                for one in [self.process, *self.process.children(recursive=True)]:
                    held += one.memory_full_info().pss
            except psutil.Error:
                continue
            self.bytes = max(self.bytes, held)
            time.sleep(0.25)


def outcome(folder: Path, planted: Planted) -> dict[str, Any]:
    """Return what the duplicate steps dropped of what was planted, and of the other rows."""
    with (folder / "run" / "dropped.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    dropped = {int(one["origin"].rpartition(":")[2]) - 1 for one in records if one["action"] == "dropped"}
    members = {place for pair in planted.near + planted.exact for place in pair}
    return {
        "recall": sum(not dropped.isdisjoint(pair) for pair in planted.near) / len(planted.near),
        "copies_found": sum(not dropped.isdisjoint(pair) for pair in planted.exact) / len(planted.exact),
        "false_positives": len(dropped - members) / (planted.rows - len(members)),
        "planted_similarity": sum(planted.similarity) / len(planted.similarity),
    }


if __name__ == "__main__":
    main()
