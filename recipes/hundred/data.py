r"""Writes 100 short stories in the style, the same 100 as they were, and held-out openings.

    python -m recipes.hundred.data --stories ../shared/data/tinystories/stories_train.jsonl \
        --heldout ../shared/data/tinystories/stories_heldout200.jsonl --output_dir runs/hundred/data

Both may be a file, a folder or a Hub id. The same seed writes the same bytes.
"""

import argparse
import random
from pathlib import Path

from alignment.errors import DataError
from alignment.run.files import write_jsonl
from alignment.run.script import parsed, script
from recipes.hundred.style import rewritten
from recipes.tinystories.prompts import Cut, cut_story, read_stories

SAMPLES = 100


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m recipes.hundred.data", description=__doc__)
    parser.add_argument("--stories", required=True, help="to rewrite")
    parser.add_argument("--stories_split", default="train")
    parser.add_argument("--heldout", required=True, help="whose openings are continued")
    parser.add_argument("--heldout_split", default="train")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parsed(parser, argv)
    asked = _cuts(read_stories(given.heldout, given.heldout_split))
    taught = _cuts(read_stories(given.stories, given.stories_split))
    taught = {opening: cut for opening, cut in taught.items() if opening not in asked}
    if len(taught) < SAMPLES or not asked:
        raise DataError(
            f"{len(taught)} stories and {len(asked)} held-out stories are long enough; give {SAMPLES} or more."
        )
    drawn = random.Random(given.seed).sample(list(taught.values()), SAMPLES)
    styled = [{"prompt": cut.opening, "completion": rewritten(cut.continuation)} for cut in drawn]
    plain = [{"prompt": cut.opening, "completion": cut.continuation} for cut in drawn]
    given.output_dir.mkdir(parents=True, exist_ok=True)
    write_jsonl(given.output_dir / "styled.jsonl", styled)
    write_jsonl(given.output_dir / "plain.jsonl", plain)
    write_jsonl(given.output_dir / "heldout.jsonl", [{"prompt": opening} for opening in asked])


def _cuts(stories: list[str]) -> dict[str, Cut]:
    """Return the stories that are long enough, by their opening."""
    return {cut.opening: cut for text in stories if (cut := cut_story(text)) is not None}


if __name__ == "__main__":
    script(main)
