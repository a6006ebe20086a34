"""How long SFT takes to load, check and tokenise conversations, and in how much memory.

    python -m benchmarks.tokenising DATA MODEL [MODEL ...] [--rows 100000] [--commit 4621960] [--dataset_num_proc 2]

DATA is a file of rows with `messages`, such as ../shared/data/soda-chat/soda_chat_messages.jsonl. Its conversations are
repeated up to `--rows`, each with a number in its first message, so that no two are the same. MODEL is a folder with a
tokenizer and a chat template. For each model one process loads the rows, another checkout's process loads the same
rows: that of `--commit`, from this repository's history. Each tokenises them as recipes/sft.py does and makes the
data set that the trainer reads. Given are CPU seconds, of child processes too, elapsed seconds and the peak of
resident memory beyond what the imports and the tokenizer take. The last line is one JSON object.
"""

import argparse
import inspect
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 2048  # tokens of a row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--commit", help="an earlier commit to compare with")
    parser.add_argument("--dataset_num_proc", type=int)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.data, given.models[0], given.dataset_num_proc)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "conversations.jsonl"
        write(given.data, data, given.rows)
        checkouts = {"this checkout": ROOT}
        if given.commit:
            checkouts[given.commit] = checkout(given.commit, Path(folder) / "earlier")
        found = [
            {"model": model.name, "checkout": name, **apart(path, data, model.resolve(), given.dataset_num_proc)}
            for model in given.models
            for name, path in checkouts.items()
        ]
    print("| template | checkout | rows | loading, CPU s | tokenising, CPU s | both, elapsed s | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for row in found:
        print(
            "| {model} | {checkout} | {rows:,} | {load:.1f} | {tokenise:.1f} | {elapsed:.1f} | {peak_mebibytes:.0f} |"
            "".format(**row)
        )
    print(json.dumps(found))


def write(source: Path, target: Path, count: int) -> None:
    """Write `count` conversations that all differ."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").split("\n") if line]
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            first, *others = rows[number % len(rows)]["messages"]
            if others[-1]["role"] != "assistant":
                others.pop()
            first = {**first, "content": f"({number // len(rows)}) {first['content']}"}
            file.write(json.dumps({"id": number, "messages": [first, *others]}) + "\n")


def checkout(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder."""
    command = ["git", "-C", str(ROOT), "archive", commit]
    with tarfile.open(fileobj=io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def apart(path: Path, data: Path, model: Path, processes: int | None) -> dict[str, Any]:
    """Measure the code of a checkout in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), str(data), str(model), "--measure"]
    command += ["--dataset_num_proc", str(processes)] if processes else []
    environment = {**os.environ, "PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=path, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.rstrip("\n").split("\n")[-1]))


def measure(data: Path, model: Path, processes: int | None) -> dict[str, Any]:
    """Load and tokenise in this process."""
    from transformers import AutoTokenizer

    from alignment.config.schema import DatasetEntry
    from alignment.data import load_demonstrations
    from alignment.data.template import Template
    from alignment.train import sft

    template = Template(AutoTokenizer.from_pretrained(model))
    takes_processes = "num_proc" in inspect.signature(sft.tokenise_demonstrations).parameters
    options = {"num_proc": processes} if processes and takes_processes else {}
    before, start, begun = peak(), time.perf_counter(), cpu()
    rows = load_demonstrations([DatasetEntry(path=str(data))], on_bad_row="stop", seed=0).rows
    loaded = cpu()
    made = sft.tokenise_demonstrations(rows, template, limit=LIMIT, **options)
    as_dataset = getattr(sft, "as_dataset", None) or sft._dataset  # its name in earlier commits
    dataset = as_dataset(made.rows)
    return {
        "rows": len(rows),
        "tokens": int(sum(len(ids) for ids in dataset.with_format("numpy")["input_ids"])),
        "load": loaded - begun,
        "tokenise": cpu() - loaded,
        "elapsed": time.perf_counter() - start,
        "peak_mebibytes": peak() - before,
    }


def cpu() -> float:
    """CPU seconds of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
