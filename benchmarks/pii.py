"""How much of the personal data of labelled texts the step `pii` finds, without a model of named entities.

    python -m benchmarks.pii [--file FILE] [--write docs/prepare.md]

FILE holds texts with gold spans in the form of presidio-research; by default its synthetic texts (750 of the 1,500 of
synth_dataset_v2.json). A span counts as found if its type, beginning and end equal the gold span's. Patterns were
developed on the texts whose template has an even number, the first half; the other half was held out. Dates are split:
a day in digits has a pattern, a year or a day of the week alone has none. `--write` puts the table between the marks
`<!-- pii -->` of a page. The last line is one JSON object.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.data.prepare.pii.finder import Finder
from alignment.run.files import write_atomic
from benchmarks.workload import SHARED

FILE = SHARED / "data" / "pii" / "synthetic_pii_750.json"
MARK = "<!-- pii -->"
SAME = {"DOMAIN_NAME": "URL"}  # the gold type's name → ours
PATTERN = (
    "CREDIT_CARD",
    "DATE_TIME (days)",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "PHONE_NUMBER",
    "URL",
    "US_SSN",
)
GOAL = 0.95
HALVES = ("developed on", "held out", "all")


@dataclass
class Tally:
    """Spans of one type that were found rightly, found wrongly, and missed."""

    counts: Counter[str] = field(default_factory=Counter)

    @property
    def scores(self) -> tuple[float, float, float]:
        """Return precision, recall and F1."""
        right, wrong, missed = (self.counts[name] for name in ("right", "wrong", "missed"))
        precision = right / (right + wrong) if right + wrong else 0.0
        recall = right / (right + missed) if right + missed else 0.0
        return precision, recall, 2 * right / (2 * right + wrong + missed) if right else 0.0


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--write", type=Path, help="a page with two marks, between which the table is written")
    given = parser.parse_args(argv)
    tallies = measure(json.loads(given.file.read_text(encoding="utf-8")))
    lines = table(tallies)
    print(lines)
    if given.write:
        before, _, after = given.write.read_text(encoding="utf-8").split(MARK)
        write_atomic(given.write, f"{before}{MARK}\n{lines}\n{MARK}{after}")
    print(json.dumps({kind: [round(score, 4) for score in halves["all"].scores] for kind, halves in tallies.items()}))


def measure(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Tally]]:
    """Return the tally of every gold type, for each half of the templates and for all."""
    finder = Finder()
    tallies: dict[str, dict[str, Tally]] = {}
    for row in rows:
        text = row["full_text"]
        gold = {
            (span["start_position"], span["end_position"], SAME.get(span["entity_type"], span["entity_type"]))
            for span in row["spans"]
        }
        found = {(span.start, span.end, span.kind) for span in finder.find(text, finder.kinds)}
        for half in (HALVES[row["template_id"] % 2], "all"):
            for name, spans in (("right", gold & found), ("missed", gold - found), ("wrong", found - gold)):
                for start, end, kind in spans:
                    halves = tallies.setdefault(split(kind, text[start:end]), {each: Tally() for each in HALVES})
                    halves[half].counts[name] += 1
    return tallies


def split(kind: str, value: str) -> str:
    """Return a type, of dates in two parts."""
    if kind != "DATE_TIME":
        return kind
    return "DATE_TIME (days)" if sum(each.isdigit() for each in value) > 4 else "DATE_TIME (years, days of the week)"


def table(tallies: dict[str, dict[str, Tally]]) -> str:
    """Return the lines of a Markdown table: types with a pattern first."""
    lines = ["| type | pattern | spans | precision | recall | F1 | F1, developed on | F1, held out |", "|---" * 8 + "|"]
    for kind, halves in sorted(tallies.items(), key=lambda item: (item[0] not in PATTERN, item[0])):
        whole = halves["all"]
        spans = whole.counts["right"] + whole.counts["missed"]
        if not spans:
            continue
        if not whole.counts["right"]:
            lines.append(f"| `{kind}` | no | {spans} | – | 0 | – | – | – |")
            continue
        parts = [halves[half] for half in HALVES[:2]]
        cells = [f"{score:.3f}" for score in whole.scores]
        cells += [f"{part.scores[2]:.3f}" if part.counts else "–" for part in parts]
        lines.append(f"| `{kind}` | {'yes' if kind in PATTERN else 'no'} | {spans} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
