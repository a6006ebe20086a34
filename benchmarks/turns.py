"""How long SFT takes to tokenise one conversation of many turns.

    python -m benchmarks.turns MODEL [MODEL ...] [--turns 10 50 100 200] [--commit 58f4144]

MODEL is a folder with a tokenizer and a chat template. A conversation alternates between user and assistant; each
message has 30 words. Given are CPU seconds of one conversation, the least of three, for this checkout and for that of
`--commit`, each in a process of its own. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "the quick brown fox jumps over the lazy dog and says that it will come back tomorrow with bread".split()
LENGTH = 30  # words of a message
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--commit", help="an earlier commit to compare with")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.models[0], given.turns)))
        return
    from benchmarks.tokenising import ROOT, checkout

    with tempfile.TemporaryDirectory() as folder:
        checkouts = {"this checkout": ROOT}
        if given.commit:
            checkouts[given.commit] = checkout(given.commit, Path(folder) / "earlier")
        found = [
            {"model": model.name, "checkout": name, "seconds": apart(path, model.resolve(), given.turns)}
            for model in given.models
            for name, path in checkouts.items()
        ]
    print(f"| template | checkout | {' | '.join(f'{turns} turns, CPU s' for turns in given.turns)} |")
    print("|---|---|" + "---|" * len(given.turns))
    for row in found:
        seconds = " | ".join(f"{second:.3f}" for second in row["seconds"])
        print(f"| {row['model']} | {row['checkout']} | {seconds} |")
    print(json.dumps(found))


def apart(path: Path, model: Path, turns: list[int]) -> list[float]:
    """Measure the code of a checkout in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), str(model), "--measure", "--turns", *map(str, turns)]
    environment = {**os.environ, "PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=path, check=True, stdout=subprocess.PIPE, text=True)
    return list(json.loads(done.stdout.rstrip("\n").split("\n")[-1]))


def measure(model: Path, turns: list[int]) -> list[float]:
    """Tokenise one conversation of each length in this process."""
    from transformers import AutoTokenizer

    from alignment.data.rows import Demonstration
    from alignment.data.template import Template

    template = Template(AutoTokenizer.from_pretrained(model))
    found = []
    for count in turns:
        times = []
        for repeat in range(REPEATS):  # each a conversation of its own, of which nothing is known
            messages = conversation(count, f"({repeat}) ")
            row = Demonstration(messages[:-1], messages[-1]["content"])
            begun = time.process_time()
            template.demonstrations(row)
            times.append(time.process_time() - begun)
        found.append(min(times))
    return found


def conversation(turns: int, begin: str) -> list[dict[str, str]]:
    """Return messages that all differ; `begin` is written before each."""
    texts = [" ".join(WORDS[(7 * place + word) % len(WORDS)] for word in range(LENGTH)) for place in range(turns)]
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": f"{begin}{text} {place}."} for place, text in enumerate(texts)]


if __name__ == "__main__":
    main()
