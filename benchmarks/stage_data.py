"""The data of `stages_vs_trl`: real texts, in files that this project and TRL's trainers both read.

For the random model a word becomes one token `wN` of its vocabulary, so that lengths and repetitions are those of the
texts; stories260K reads the texts.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignment.run.files import read_jsonl
from benchmarks.workload import SHARED

DEMONSTRATIONS = SHARED / "data" / "self-instruct" / "t0_train_2k.jsonl"  # 2 to 700 words
PAIRS = SHARED / "data" / "hh-harmless" / "harmless-base_test.jsonl.gz"
LONGEST = {"demonstrations": 240, "pairs": 110}  # words of prompt and answer
CONTEXT = 480  # bytes, each at most one of the 512 tokens that stories260K reads
TOKENS = range(
    3000, 10_000
)  # that words become: a name that begins with w0, w1 or w2 would be read as that special token
TURN = "\n\nAssistant:"


def write(stage: str, workload: str, folder: Path, count: int) -> dict[str, Path]:
    """Write `count` rows of a stage; return the files that each system reads."""
    words = _as_words if workload == "natural" else _as_tokens
    halved = stage in ("rankings", "packed")  # where answers follow another row's prompt, and a pack has 256 tokens
    bytes_at_most = CONTEXT // (1 + halved) if workload == "natural" else None
    rows = list(_rows(stage, words, count, bytes_at_most))
    files = {system: folder / f"{stage}_{workload}_{system}.jsonl" for system in ("ours", "trl")}
    folder.mkdir(parents=True, exist_ok=True)
    for system, file in files.items():
        given = [pair for row in rows for pair in pairs_of(row)] if (stage, system) == ("rankings", "trl") else rows
        file.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    return files


def pairs_of(ranking: dict[str, Any]) -> list[dict[str, str]]:
    """Return the K(K-1)/2 pairs of a ranking of K answers, the better one chosen."""
    ordered = [answer for _, answer in sorted(zip(ranking["ranks"], ranking["responses"], strict=True))]
    return [
        {"prompt": ranking["prompt"], "chosen": better, "rejected": worse}
        for place, better in enumerate(ordered)
        for worse in ordered[place + 1 :]
    ]


def _rows(stage: str, words: Callable[[str], str], count: int, bytes_at_most: int | None) -> Iterator[dict[str, Any]]:
    if stage in ("sft", "packed"):
        made = _demonstrations(bytes_at_most)
        yield from ({key: words(text) for key, text in next(made).items()} for _ in range(count))
        return
    pairs = _pairs(bytes_at_most)
    for number in range(count):
        prompt, chosen, rejected = map(words, next(pairs))
        if stage == "kto":
            yield {"prompt": prompt, "completion": (rejected, chosen)[number % 2], "label": number % 2 == 1}
        elif stage == "rankings":
            others = list(map(words, next(pairs)[1:]))
            yield {"prompt": prompt, "responses": [chosen, rejected, *others], "ranks": [1, 2, 3, 4]}
        else:
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _demonstrations(bytes_at_most: int | None) -> Iterator[dict[str, str]]:
    for row in read_jsonl(DEMONSTRATIONS):
        text = f"{row['prompt']} {row['completion']}"
        if row["completion"].strip() and _fits(text, LONGEST["demonstrations"], bytes_at_most):
            yield {key: row[key] for key in ("prompt", "completion")}


def _pairs(bytes_at_most: int | None) -> Iterator[tuple[str, str, str]]:
    """Prompt and two answers, all different."""
    with gzip.open(PAIRS, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            (prompt, _, chosen), (other, _, rejected) = (row[key].rpartition(TURN) for key in ("chosen", "rejected"))
            texts = [f"{prompt} {answer}" for answer in (chosen, rejected)]
            if (
                prompt == other
                and chosen.strip()
                and rejected.strip()
                and all(_fits(text, LONGEST["pairs"], bytes_at_most) for text in texts)
                and chosen != rejected
            ):
                yield prompt + TURN, chosen, rejected


def _fits(text: str, words: int, bytes_at_most: int | None) -> bool:
    return len(text.split()) <= words and (bytes_at_most is None or len(text.encode()) <= bytes_at_most)


def _as_tokens(text: str) -> str:
    return "".join(f"w{TOKENS[zlib.crc32(word.encode()) % len(TOKENS)]} " for word in text.split())


def _as_words(text: str) -> str:
    return "".join(f"{word} " for word in text.split())
