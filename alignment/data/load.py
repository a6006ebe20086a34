"""From a recipe's `datasets:` to rows: every format, mixtures with fractions, bad rows stopped or skipped."""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from alignment.config.function_columns import ALL
from alignment.data.contradictions import contradictions, is_opinion, same_text
from alignment.data.conversations import carrying_tools
from alignment.data.demonstrations import demonstration_of_best
from alignment.data.fields import BadRow
from alignment.data.formats import ANSWERS, Format
from alignment.data.layouts import Parsed
from alignment.data.rankings import best_response
from alignment.data.readers import RawRow
from alignment.data.remedies import scorer_hint
from alignment.data.rows import Demonstration, Prompt, Ranking, Unpaired
from alignment.data.source_rows import Convert, Kept, Loaded, OnBadRow, objects_of, read_source
from alignment.data.sources import read_entry, refuse_rejected, require_there
from alignment.data.unpaired import unpaired_of_label, unpaired_of_ranking
from alignment.errors import DataError, named_inputs, printable
from alignment.meter import say_left_out

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

T = TypeVar("T")


def load_demonstrations(
    entries: "list[DatasetEntry]", *, on_bad_row: OnBadRow, seed: int, max_samples: int | None = None
) -> Loaded[Demonstration]:
    """Load prompts with the answer to imitate. Of rankings, that is the answer that wins most."""
    refuse_rejected(entries)
    return load(entries, to_demonstration, on_bad_row, seed, max_samples, agreeing=True)


def load_rankings(
    entries: "list[DatasetEntry]",
    *,
    on_bad_row: OnBadRow,
    seed: int,
    max_samples: int | None = None,
    agreeing: bool = True,
) -> Loaded[Ranking]:
    """Load answers that are compared, to train on them; `agreeing` as in `load`.

    Raises: DataError where they are labels that missed their gate, or cannot be used.
    """
    refuse_rejected(entries)
    return load(entries, ranking, on_bad_row, seed, max_samples, agreeing=agreeing)


def load_unpaired(
    entries: "list[DatasetEntry]", *, on_bad_row: OnBadRow, seed: int, max_samples: int | None = None
) -> Loaded[Unpaired]:
    """Load answers with a label each. Of rankings, an answer's label is its mean probability of being the better one.

    Raises: DataError where they are labels that missed their gate, or a format has no labels.
    """
    refuse_rejected(entries)
    return load(entries, _unpaired, on_bad_row, seed, max_samples, agreeing=True)


def load_answers(
    entries: "list[DatasetEntry]", *, on_bad_row: OnBadRow, seed: int, max_samples: int | None = None
) -> Loaded[Ranking]:
    """Load answers to be compared, with or without comparisons.

    Raises: DataError where they are labels that missed their gate, or cannot be used.
    """
    refuse_rejected(entries)
    return load(entries, _answers, on_bad_row, seed, max_samples)


def load_single_answers(entries: "list[DatasetEntry]", *, on_bad_row: OnBadRow, seed: int) -> Loaded[Ranking]:
    """Load answers to be found good or bad one by one: those of `load_answers`, and answers without a partner.

    Raises: DataError where they are labels that missed their gate, or cannot be used.
    """
    refuse_rejected(entries)
    return load(entries, _single_answers, on_bad_row, seed, None)


def load_prompts(
    entries: "list[DatasetEntry]",
    *,
    on_bad_row: OnBadRow,
    seed: int,
    max_samples: int | None = None,
    columns: Mapping[str, bool] | None = None,
) -> Loaded[Prompt]:
    """Load prompts, from any format that has them, and further columns of their rows.

    Args:
        columns: name → whether a row must have it; `ALL`: every column that the layout does not read.

    Raises: DataError where a column is needed that no row has.
    """
    if not columns:
        return load(entries, _prompt, on_bad_row, seed, max_samples)
    wanted = columns
    others: set[str] = set()  # keys that the layout does not read, of rows that lack a column

    def convert(parsed: Parsed, raw: RawRow, fmt: Format) -> tuple[Prompt, dict[str, Any]] | None:
        value: dict[str, Any] = raw.value if isinstance(raw.value, dict) else {}
        names = value.keys() - set(fmt.reads_in(value)) if ALL in wanted else set()
        names |= {name for name in wanted if name in value}
        if any(needed and name not in value for name, needed in wanted.items()):
            others.update(value.keys() - set(fmt.reads_in(value)))
        return _prompt(parsed, raw, fmt), {name: value[name] for name in value if name in names}

    found = load(entries, convert, on_bad_row, seed, max_samples, also_read=tuple(wanted))
    values: list[Mapping[str, Any]] = [row[1] for row in found.rows]
    absent = [name for name, needed in wanted.items() if needed and not any(name in each for each in values)]
    if absent:
        _refuse_absent(absent, found.sources[0], values, others)
    return Loaded(
        [row[0] for row in found.rows],
        found.skipped,
        found.formats,
        found.files,
        comparisons=found.comparisons,
        read=found.read,
        sources=found.sources,
        columns=values,
    )


@named_inputs(DataError)  # the recipe's scorer and its data do not fit
def _refuse_absent(absent: list[str], source: str, values: list[Mapping[str, Any]], others: set[str]) -> NoReturn:
    known = ", ".join(sorted(others.union(*values))) or "no further column"
    name = f"Name the file's column with columns: {{{absent[0]}: COLUMN OF THE FILE}}, or correct the scorer"
    raise DataError(
        f"{source}: no row has the column {', '.join(absent)}, which a scorer reads; found {known}. "
        f"{scorer_hint(sorted(others), absent) or name}."
    )


def load_any(
    entries: "list[DatasetEntry]", *, on_bad_row: OnBadRow, seed: int, max_samples: int | None = None
) -> Loaded[Parsed]:
    """Load rows of every layout, each as its layout reads it."""
    refuse_rejected(entries)
    return load(entries, lambda parsed, raw, fmt: parsed, on_bad_row, seed, max_samples)


def load_columns(entries: "list[DatasetEntry]", *, on_bad_row: OnBadRow, **_: Any) -> Loaded[RawRow]:
    """Load objects with named fields, whether a layout reads them or not."""
    loaded: Loaded[RawRow] = Loaded([])
    for source in (source for entry in entries for source in read_entry(entry)):
        loaded.rows += objects_of(source, on_bad_row, loaded)
    loaded.sources = [raw.where for raw in loaded.rows]
    return loaded


def load_rows(recipe: Any, *, on_bad_row: OnBadRow | None = None) -> Loaded[Any]:
    """Load what a recipe's stage reads of its `datasets`, of a stream the first rows; `on_bad_row` in its place."""
    loaders: dict[str, Callable[..., Loaded[Any]]] = {
        "demonstrations": load_demonstrations,
        "rankings": load_rankings,
        "unpaired": load_unpaired,
        "prompts": load_prompts,
        "any": load_any,
    }
    if getattr(recipe, "streaming", False):
        from alignment.data.streamed import head  # which imports this module

        return head(recipe.datasets, on_bad_row or recipe.on_bad_row)
    given = getattr(recipe, "responses", "") == "given"
    load_them = load_answers if given else loaders[recipe.STAGE.rows]
    if getattr(recipe, "reads_columns", False):
        load_them = load_columns
    columns = getattr(recipe, "columns_read", None)
    return load_them(
        recipe.datasets,
        on_bad_row=on_bad_row or recipe.on_bad_row,
        seed=recipe.seed,
        max_samples=getattr(recipe, "max_samples", None),
        **({"columns": columns} if columns else {}),
    )


@named_inputs(DataError)
def require_data(recipe: Any) -> None:
    """Refuse a recipe whose data sets' paths do not exist, before a run's folder is made; reads no file.

    Raises: DataError.
    """
    for key in ("datasets", "eval_datasets", "perplexity_datasets", "outside_tasks"):
        require_there(getattr(recipe, key, None) or [])
    for asked in getattr(recipe, "outside_questions", ()):
        require_there(asked.datasets)


def to_demonstration(parsed: Parsed, raw: RawRow, fmt: Format) -> Demonstration | None:
    """Return the text or answer to imitate that was read; None if it is labelled bad."""
    if isinstance(parsed, Demonstration):
        bad = parsed.desirable is not None and parsed.desirable <= 0.5  # it is not imitated
        return None if bad else replace(parsed, source=raw.where)
    if isinstance(parsed, Ranking) and fmt.name != ANSWERS:
        _refuse_same_text(parsed)
        return demonstration_of_best(parsed, best_response(parsed), raw.where)
    raise BadRow("holds a prompt without an answer to learn")


def _refuse_same_text(ranking: Ranking) -> None:
    ends = same_text(ranking)
    if ends is not None and not is_opinion(ranking):
        raise BadRow(f"answers {ends[0]} and {ends[1]} are the same text and yet one is preferred")


def ranking(parsed: Parsed, raw: RawRow, fmt: Format) -> Ranking:
    """Return the ranking that was read, with its file and line.

    Raises: DataError where the format compares nothing.
    """
    if isinstance(parsed, Ranking) and fmt.name != ANSWERS:
        _refuse_same_text(parsed)
        return _answers(parsed, raw, fmt)
    rated = " Where a column rates the responses, set columns: {scores: THAT COLUMN}." if fmt.name == ANSWERS else ""
    raise DataError(
        f"{raw.where}: the format {fmt.name} holds no comparisons of answers, which this stage needs. Use rows with "
        f"prompt, chosen and rejected, or prompt, responses and ranks, scores or pairs.{rated}"
    )


def _unpaired(parsed: Parsed, raw: RawRow, fmt: Format) -> Unpaired:
    if isinstance(parsed, Demonstration) and parsed.desirable is not None:
        return unpaired_of_label(parsed, parsed.desirable, raw.where)
    if isinstance(parsed, Ranking) and fmt.name != ANSWERS:
        return unpaired_of_ranking(ranking(parsed, raw, fmt))
    if fmt.name == "kto":
        raise BadRow("holds a label and no answer: the conversation ends with the user's message")
    raise DataError(
        f"{raw.where}: the format {fmt.name} holds no labels of answers, which this stage needs. Add a column label, "
        "true or false, to prompt and completion or to messages; or use preferences, such as prompt, chosen, rejected."
    )


def _answers(parsed: Parsed, raw: RawRow, fmt: Format) -> Ranking:
    return replace(parsed, source=raw.where) if isinstance(parsed, Ranking) else ranking(parsed, raw, fmt)


def _single_answers(parsed: Parsed, raw: RawRow, fmt: Format) -> Ranking:
    if isinstance(parsed, Demonstration):
        _prompt(parsed, raw, fmt)  # refuses a text without one
        return unpaired_of_label(parsed, None, raw.where)
    return _answers(parsed, raw, fmt)


def _prompt(parsed: Parsed, raw: RawRow, fmt: Format) -> Prompt:
    if isinstance(parsed, Demonstration) and isinstance(parsed.prompt, list):
        return carrying_tools(parsed.prompt, parsed.tools)
    if not parsed.prompt and fmt.name == "text":
        raise DataError(
            f"{raw.where}: the format text has no prompts, which this stage needs. Use rows with prompt, or prompt and "
            "completion: cut each text where the answer should begin."
        )
    return parsed.prompt


def load(
    entries: "list[DatasetEntry]",
    convert: Convert[T],
    on_bad_row: OnBadRow,
    seed: int,
    max_samples: int | None,
    *,
    agreeing: bool | Callable[[T], bool] = False,
    also_read: tuple[str, ...] = (),
) -> Loaded[T]:
    """Load what `convert` returns for each parsed row and the row as its file has it; None leaves the row out.

    Args:
        agreeing: two rows that prefer opposite answers are bad rows, both of them; a function: of the rows for which
            it is true.
        also_read: keys that `convert` looks at.

    Raises: DataError where a file cannot be read or gives nothing, and at a bad row where `on_bad_row` is stop.
    """
    loaded: Loaded[T] = Loaded([])
    read: list[list[Kept[T]]] = []
    for entry in entries:
        of_entry: list[Kept[T]] = []
        for source in read_entry(entry):
            of_entry += read_source(source, entry.format, convert, on_bad_row, loaded, also_read)
        read.append(of_entry)
    if agreeing:
        read = _agreeing(read, on_bad_row, loaded, agreeing if callable(agreeing) else lambda _: True)
    parts = [[(kept.row, kept.where) for kept in of_entry if kept.row is not None] for of_entry in read]
    for entry, part, of_entry in zip(entries, parts, read, strict=True):
        if not part:
            different: dict[str, str] = {}
            for skip in loaded.skipped:
                different.setdefault(skip.partition(": ")[2], skip)
            reasons = "".join(f"\n  {skip}" for skip in [*different.values()][:3])
            if of_entry:
                reasons += f" {len(of_entry)} hold no answer to learn: their label is false, or no answer is the best."
            raise DataError(f"{entry.path} gives no usable row; {len(loaded.skipped)} were skipped.{reasons}")
    say_left_out(loaded.skipped, loaded.read, "rows")
    rows = [row for part in mixed(parts, [entry.fraction for entry in entries]) for row in part]
    if max_samples is not None:
        random.Random(seed).shuffle(rows)
        del rows[max_samples:]
    loaded.rows, loaded.sources = [row for row, _ in rows], [where for _, where in rows]
    return loaded


def _agreeing(
    parts: list[list[Kept[T]]], on_bad_row: OnBadRow, loaded: Loaded[T], concerned: Callable[[T], bool]
) -> list[list[Kept[T]]]:
    """Leave out rows that prefer opposite answers, or refuse them."""
    everything = [kept for part in parts for kept in part]
    bad: dict[int, str] = {}
    for found in contradictions(
        [kept.claims if kept.row is None or concerned(kept.row) else [] for kept in everything]
    ):
        first, second = (printable(everything[place].where) for place in (found.first, found.second))
        fault = f"prefers the other of the two answers that {first} compares for the same prompt"
        if found.first == found.second:
            fault = "prefers each of two answers to the other"
        if on_bad_row == "stop":
            raise DataError(
                f"{second}: {fault}. Take one of the rows out, or set on_bad_row: skip to leave both out; opinions of "
                "several people name each in provenance.annotator."
            )
        bad[found.first] = f"{first}: {second} prefers the other of the two answers for the same prompt"
        bad[found.second] = f"{second}: {fault}"
    loaded.skipped += [bad[place] for place in sorted(bad)]
    places = itertools.count()
    return [[kept for kept in part if next(places) not in bad] for part in parts]


def mixed(parts: list[list[T]], fractions: list[float | None]) -> list[list[T]]:
    """Cut each part to its share, as TRL's `get_dataset` does.

    Fractions are normalised to sum to one, and the mixture is as large as it can be with no part used twice: of each
    part the first `round(fraction * total)` rows.
    """
    shares = shares_of(fractions)
    if shares is None:
        return parts
    total = min(len(part) / share for part, share in zip(parts, shares, strict=True))
    return [part[: round(share * total)] for part, share in zip(parts, shares, strict=True)]


def shares_of(fractions: list[float | None]) -> list[float] | None:
    """Return fractions that are normalised to sum to one; None if none is given.

    Raises: DataError if some are given and others not.
    """
    given = [fraction for fraction in fractions if fraction is not None]
    if not given:
        return None
    if len(given) < len(fractions):
        raise DataError("fraction is given for some of the datasets and not for others; give it for all or none.")
    return [fraction / sum(given) for fraction in given]
