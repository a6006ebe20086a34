"""Reads recorded verdicts in the files of LLMBar's evaluators (https://arxiv.org/abs/2310.07641).

A file is a JSON list of comparisons with their gold label and the judge's verdicts in both orders, or in one. The
`replay` judge returns these verdicts, and `alignment audit` and `alignment mix` read them as labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.contradictions import claims_of, contradictions
from alignment.data.keys import unread
from alignment.data.readers import RawRow, read_file
from alignment.data.rows import Pair, Prompt, Ranking, SingleVerdict
from alignment.data.source_rows import OnBadRow
from alignment.errors import DataError
from alignment.evaluate.judging import Verdict, combine
from alignment.meter import say_left_out
from alignment.strict_json import shown as quoted

ORDERS = (("swap = False", "first"), ("swap = True", "swapped"))
FILE = "result.json"
READS = ("input", "output_1", "output_2", "label", "results")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded comparison."""

    prompt: Prompt
    first: str  # output_1 of the file
    second: str
    label: int | None  # gold: 1 or 2, the number of the better output
    verdicts: tuple[SingleVerdict, ...]  # one for each recorded order
    raw: tuple[str, ...]  # the judge's replies, in the order of `verdicts`


@dataclass(frozen=True, slots=True)
class Recording:
    """The verdicts of one judge on a whole set."""

    name: str  # of the judge: the last two folders of the path, "GPT-4/Vanilla"
    sha256: str  # of the file, in place of the prompt's hash, which was not recorded
    rows: list[Recorded]
    skipped: list[str]  # rows left out, "file:row: reason"


def is_recording(path: Path) -> bool:
    """Whether a path is a recorded result file, or a folder with one."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".json":
        return False
    try:
        rows = read_file(file).rows
    except DataError:
        return False
    return bool(rows) and isinstance(rows[0].value, dict) and {"input", "output_1", "results"} <= rows[0].value.keys()


def read_recording(path: Path, on_bad_row: OnBadRow | None = None) -> Recording:
    """Read a result file, or the `result.json` of a folder.

    Args:
        on_bad_row: None: stop, where nothing lets a user leave rows out.
    Raises: DataError naming file and line if it is not, and at a row that breaks the format unless `on_bad_row` is
        skip.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path} has no recorded verdicts: there is no {file.name}. Name the file or its folder.")
    source = read_file(file)
    parts = file.resolve().parent.parts
    rows: list[Recorded] = []
    places: list[str] = []
    skipped: list[str] = []
    for raw in source.rows:
        try:
            rows.append(_recorded(raw))
            places.append(raw.where)
        except DataError as error:
            if on_bad_row != "skip":
                remedy = " Or leave such rows out with on_bad_row: skip." if on_bad_row else ""
                raise DataError(f"{error}{remedy}") from None
            skipped.append(str(error))
    claims = [claims_of(_gold(row, {}), None) if row.label is not None else [] for row in rows]
    opposite: set[int] = set()
    for found in contradictions(claims):
        first, second = places[found.first], places[found.second]
        fault = "its 'label' is the opposite of that of {}, on the same answers."
        if on_bad_row != "skip":
            remedy = ", or leave both out with on_bad_row: skip" if on_bad_row else ""
            raise DataError(f"{second}: {fault.format(first)} Correct one{remedy}.")
        for place, other in ((found.first, second), (found.second, first)):
            if place not in opposite:
                skipped.append(f"{places[place]}: {fault.format(other)}")
        opposite |= {found.first, found.second}
    say_left_out(skipped, len(source.rows), "rows")
    kept = [row for place, row in enumerate(rows) if place not in opposite]
    return Recording("/".join(parts[-2:]), source.sha256, kept, skipped)


def judged(recording: Recording) -> list[Ranking]:
    """Return the judge's labels as the labeler writes them, averaged over both orders where both were recorded."""
    provenance = {"judge": recording.name, "prompt_hash": recording.sha256, "source": "judge"}
    rankings = []
    for row in recording.rows:
        found = _label(row.verdicts)
        pair = Pair(0, 1, found.probability, found.status, verdicts=row.verdicts)
        rankings.append(Ranking(row.prompt, [row.first, row.second], [pair], provenance))
    return rankings


def _label(asked: Sequence[SingleVerdict]) -> Verdict:
    """Return the verdict on the first output; of one order alone, that order's."""
    verdicts = [Verdict(one.probability, one.status) for one in asked]
    if len(verdicts) == 2:
        return combine(*verdicts)
    (only,) = verdicts
    if only.probability is None or asked[0].shown == "first":
        return only
    return Verdict(1 - only.probability, only.status)


def rankings_of(path: Path, on_bad_row: OnBadRow | None = None) -> list[tuple[Ranking, float | None]] | None:
    """Return the judge's labels of recorded verdicts; None if a path has none.

    Beside each, the file's gold label as a probability that the first output is better; None without one.
    """
    if not is_recording(path):
        return None
    recording = read_recording(path, on_bad_row)
    labels = [None if row.label is None else float(row.label == 1) for row in recording.rows]
    return list(zip(judged(recording), labels, strict=True))


def gold(recording: Recording) -> list[Ranking]:
    """Return the gold labels in the same file."""
    provenance = {"source": "person", "annotator": "gold"}
    return [_gold(row, provenance) for row in recording.rows if row.label is not None]


def _gold(row: Recorded, provenance: dict[str, Any]) -> Ranking:
    pair = Pair(0, 1, 1.0 if row.label == 1 else 0.0)
    return Ranking(row.prompt, [row.first, row.second], [pair], provenance)


def _recorded(row: RawRow) -> Recorded:
    value = row.value
    if row.fault is not None or not isinstance(value, dict):
        raise DataError(f"{row.where}: {row.fault or 'the row is not an object'}.")
    if keys := unread(value, READS):
        raise DataError(
            f"{row.where}: the keys {', '.join(map(quoted, keys))} are unknown; recorded verdicts have "
            f"{', '.join(READS)}. Remove the others from the file."
        )
    texts = [value.get(key) for key in ("input", "output_1", "output_2")]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{row.where}: 'input', 'output_1' and 'output_2' must be text, as in LLMBar's result files.")
    label = value.get("label")
    if isinstance(label, bool) or label not in (1, 2, None):
        raise DataError(f"{row.where}: 'label' is {quoted(label)}, not 1 or 2, the number of the better output.")
    verdicts = _by_order(value.get("results"), row.where)
    recorded = [(key, shown) for key, shown in ORDERS if key in verdicts]
    asked = tuple(_asked(verdicts[key], shown, row.where) for key, shown in recorded)
    prompt: Prompt = [{"role": "user", "content": str(texts[0])}]
    raw = tuple(_completion(verdicts[key]) for key, _ in recorded)
    return Recorded(prompt, str(texts[1]), str(texts[2]), label, asked, raw)


def _by_order(results: Any, where: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts of the last result, by order: of several steps, the last one is the verdict."""
    for result in reversed(results if isinstance(results, Sequence) else []):
        if isinstance(result, dict) and (found := {k: v for k, _ in ORDERS if isinstance(v := result.get(k), dict)}):
            return found
    raise DataError(f"{where}: 'results' has no object with {' or '.join(repr(key) for key, _ in ORDERS)}.")


def _asked(result: dict[str, Any], shown: Any, where: str) -> SingleVerdict:
    """Return one verdict; `winner` numbers the outputs as in the file, a probability is of the answer shown first."""
    winner = result.get("winner")
    if winner is None:  # the evaluator's pattern matched nothing
        return SingleVerdict(shown, 0, None, "parse_error")
    if str(winner) not in ("1", "2"):
        raise DataError(f"{where}: 'winner' is {quoted(winner)}, not 1, 2 or null.")
    return SingleVerdict(shown, 0, float((str(winner) == "1") == (shown == "first")), "ok")


def _completion(result: dict[str, Any]) -> str:
    completion = result.get("completion")
    text = completion[0] if isinstance(completion, list) and completion else completion
    return text if isinstance(text, str) else ""
