r"""Cuts stories into an opening, which becomes a prompt, and the few sentences after it, which become the answer.

    python -m recipes.tinystories.prompts --stories roneneldan/TinyStories --stories_split "train[:2000]" \
        --heldout roneneldan/TinyStories --heldout_split "validation[:200]" --output_dir runs/tinystories/data

Both may be a file or a folder too. The same seed writes the same bytes.
"""

import argparse
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.schema import DatasetEntry
from alignment.data.sources import read_entry
from alignment.errors import DataError
from alignment.run.files import write_jsonl
from alignment.run.script import parsed, script

OPENING_WORDS = (8, 20)  # whole sentences until the first is reached; cut at a word where they pass the second
ANSWER_WORDS = (25, 50)  # the same; the sentence that would pass the second is left out
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+[\"'”’]*(?=\s|$)|(?=\n)|$)", re.DOTALL)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Cut:
    """One story's beginning in two parts; joined as they are, they are its text."""

    opening: str
    continuation: str  # begins with the blank that followed the opening


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m recipes.tinystories.prompts", description=__doc__)
    parser.add_argument("--stories", required=True, help="to train on: a file, a folder or a Hub id")
    parser.add_argument("--stories_split", default="train")
    parser.add_argument("--heldout", required=True, help="to evaluate on")
    parser.add_argument("--heldout_split", default="train", help="validation, say, where it is a Hub id")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parsed(parser, argv)
    stories = read_stories(given.stories, given.stories_split)
    heldout = read_stories(given.heldout, given.heldout_split)
    write_data(given.output_dir, stories, heldout, given.seed)


def read_stories(path: str, split: str) -> list[str]:
    """Return the stories' texts.

    Raises: DataError if a row has none.
    """
    stories = []
    for source in read_entry(DatasetEntry(path=path, split=split)):
        for row in source.rows:
            text = row.value.get("text") if isinstance(row.value, dict) else None
            if not isinstance(text, str):
                raise DataError(f"{row.where}: {row.fault or 'a story needs the field text, which is missing here'}.")
            stories.append(text)
    return stories


def write_data(output_dir: Path, stories: list[str], heldout: list[str], seed: int) -> None:
    """Write demonstrations and prompts to train on, and held-out prompts; an opening is on one side only.

    Raises: DataError if no story is long enough.
    """
    asked = {cut.opening: cut for cut in _cuts(heldout, "held-out stories")}
    taught: dict[str, Cut] = {}
    clash = again = 0
    for cut in _cuts(stories, "stories"):
        clash += cut.opening in asked
        again += cut.opening in taught
        if cut.opening not in asked:
            taught.setdefault(cut.opening, cut)
    _say(f"left out: {clash} stories that open as a held-out one does, {again} that open as an earlier one does")
    if not asked or not taught:
        raise DataError("no story is long enough to be cut into an opening and a continuation; give others.")
    cuts = list(taught.values())
    random.Random(seed).shuffle(cuts)
    files: dict[str, list[dict[str, Any]]] = {
        "demonstrations": [{"prompt": cut.opening, "completion": cut.continuation} for cut in cuts],
        "prompts_train": [{"prompt": cut.opening} for cut in cuts],
        "prompts_heldout": [{"prompt": opening} for opening in asked],
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        write_jsonl(output_dir / f"{name}.jsonl", rows)
    _say(f"{output_dir}: {len(cuts)} demonstrations and prompts, {len(asked)} held-out prompts")


def cut_story(text: str) -> Cut | None:
    """Cut one story; None if it is too short for both parts."""
    text = text.strip()
    begin = _take(text, 0, *OPENING_WORDS, cut_long=True)
    end = _take(text, begin, *ANSWER_WORDS, cut_long=False)
    words = len(_WORD.findall(text[begin:end]))
    if len(_WORD.findall(text[:begin])) < OPENING_WORDS[0] or words < ANSWER_WORDS[0]:
        return None
    return Cut(text[:begin], text[begin:end])


def _take(text: str, start: int, least: int, most: int, *, cut_long: bool) -> int:
    """Return where whole sentences from `start` reach `least` words, without passing `most`."""
    words, end = 0, start
    for sentence in _SENTENCE.finditer(text, start):
        found = list(_WORD.finditer(text, sentence.start(), sentence.end()))
        if words + len(found) > most:
            return found[most - words - 1].end() if cut_long else end
        words, end = words + len(found), sentence.end()
        if words >= least:
            break
    return end


def _cuts(stories: Iterable[str], what: str) -> list[Cut]:
    found = [cut_story(text) for text in stories]
    kept = [cut for cut in found if cut is not None]
    _say(f"{what}: {len(kept)} cut, {len(found) - len(kept)} too short")
    return kept


def _say(line: str) -> None:
    print(line)  # noqa: T201


if __name__ == "__main__":
    script(main)
