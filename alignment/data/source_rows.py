"""The rows of one source: its layout, each row as that layout reads it, and bad rows stopped or skipped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar

from alignment.data.contradictions import Claim, claims_of
from alignment.data.damage import Damage
from alignment.data.detection import decoded, detect, require_answers_alone, require_one_kind, told
from alignment.data.fields import BadRow, keys_of, kind_of
from alignment.data.formats import Format
from alignment.data.keys import UnreadKey
from alignment.data.layouts import Parsed
from alignment.data.readers import RawRow, RawSource
from alignment.data.recognition import named, recognise, refuse_unread, require_given
from alignment.data.rows import Ranking
from alignment.data.thumbs import require_thumbs
from alignment.data.turns import refuse_missing_turns
from alignment.errors import DataError, printable
from alignment.meter import say_once
from alignment.strict_json import shown

if TYPE_CHECKING:
    pass

T = TypeVar("T")
OnBadRow = Literal["stop", "skip"]
MOST_COMPARISONS = 20_000_000  # of a recipe's data: several gigabytes of memory


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A row, where it comes from, and the comparisons that it states; `row` is None if the row is left out."""

    row: T | None
    where: str
    claims: list[Claim]


Convert = Callable[[Parsed, RawRow, Format], T | None]


@dataclass
class Loaded(Generic[T]):
    """Rows, and what the manifest keeps about where they came from."""

    rows: list[T]
    skipped: list[str] = field(default_factory=list)  # "file:line: reason"
    formats: dict[str, str] = field(default_factory=dict)  # file → format
    files: dict[str, str] = field(default_factory=dict)  # file → sha256, or the Hub data set's fingerprint
    comparisons: int = 0  # of two answers, in the rows that were read
    read: int = 0  # rows of the files, bad ones too
    sources: list[str] = field(default_factory=list)  # "file:line" of each of `rows`
    columns: list[Mapping[str, Any]] = field(default_factory=list)  # of each of `rows`, where columns are read


def read_source(
    source: RawSource,
    format_name: str | None,
    convert: Convert[T],
    on_bad_row: OnBadRow,
    loaded: Loaded[T],
    also_read: tuple[str, ...],
    *,
    tell: bool = True,
) -> list[Kept[T]]:
    """Return what `convert` makes of each row of a source, and add what the manifest keeps to `loaded`.

    Args:
        source, format_name, convert, on_bad_row, loaded, also_read: as in `alignment.data.load.load`.
        tell: whether to write how the first row was understood.

    Raises: DataError if the layout is unknown, and at a bad row where `on_bad_row` is stop.
    """
    source = replace(source, rows=[_decoded(raw) for raw in source.rows])
    fmt = named(format_name) if format_name is not None else detect(source)
    require_answers_alone(source, fmt)
    if fmt is not None and fmt.name == "kto":
        require_thumbs((raw.where, raw.value) for raw in source.rows)
    rows: list[Kept[T]] = []
    damage = Damage(source.name)
    kinds: dict[bool, str] = {}  # whether prompts are texts → the first such row
    for raw in source.rows:
        try:
            value = _object(raw)
            if fmt is None or (format_name is None and value.keys().isdisjoint(fmt.reads_in(value))):
                _refuse_unknown(value, raw.where, on_bad_row)
            refuse_unread(value, fmt, chosen=format_name is not None, also_read=also_read)
            for parsed in fmt.read(value):
                refuse_missing_turns(parsed)
                if not kinds and tell:
                    say_once(
                        printable(f"{source.name}: layout {fmt.name}{_left_out(fmt, value)}; first row: {told(parsed)}")
                    )
                if not kinds or "provenance" not in value:  # our own labels may be of several files
                    kinds.setdefault(isinstance(parsed.prompt, str), raw.where)
                damage.look_at(parsed, raw.where)
                claims = claims_of(parsed, value) if isinstance(parsed, Ranking) else []
                if isinstance(parsed, Ranking):
                    _count(parsed, raw, loaded)
                rows.append(Kept(convert(parsed, raw, fmt), raw.where, claims))
        except UnreadKey as error:
            raise DataError(printable(f"{raw.where}: {error}.")) from None
        except BadRow as error:
            fault = printable(f"{raw.where}: {error}")
            if on_bad_row == "stop":
                raise DataError(f"{fault}. {raw.remedy}.") from None
            loaded.skipped.append(fault)
    require_one_kind(kinds)
    damage.say()
    loaded.read += len(source.rows)
    loaded.files[source.name] = source.sha256
    if fmt is not None:
        loaded.formats[source.name] = fmt.name
    return rows


def objects_of(source: RawSource, on_bad_row: OnBadRow, loaded: Loaded[Any]) -> list[RawRow]:
    """Return the rows of a source that are objects, and add what the manifest keeps to `loaded`.

    Args:
        source, format_name, convert, on_bad_row, loaded, also_read: as in `alignment.data.load.load`.
        tell: whether to write how the first row was understood.

    Raises: DataError at a row that is none where `on_bad_row` is stop.
    """
    rows = []
    for raw in source.rows:
        try:
            _object(raw)
            rows.append(raw)
        except BadRow as error:
            fault = printable(f"{raw.where}: {error}")
            if on_bad_row == "stop":
                raise DataError(f"{fault}. {raw.remedy}.") from None
            loaded.skipped.append(fault)
    loaded.read += len(source.rows)
    loaded.files[source.name] = source.sha256
    return rows


def _left_out(fmt: Format, row: Mapping[str, Any]) -> str:
    """Return a note on the classes of texts, which are not read."""
    label = row.get("label") if fmt.name == "text" else None
    return f", without its label {shown(label)}, which is taken for a class" if label is not None else ""


def _decoded(raw: RawRow) -> RawRow:
    value = decoded(raw.value)
    return raw if value is raw.value else replace(raw, value=value)


def _count(parsed: Ranking, raw: RawRow, loaded: Loaded[Any]) -> None:
    loaded.comparisons += len(parsed.pairs)
    if loaded.comparisons > MOST_COMPARISONS:
        raise DataError(
            f"{printable(raw.where)}: with this row the data compares answers more than {MOST_COMPARISONS:,} times, "
            "which would fill the memory; give fewer rows, or fewer answers in each."
        )


def _object(raw: RawRow) -> dict[str, object]:
    if raw.fault is not None:
        raise BadRow(raw.fault)
    if not isinstance(raw.value, dict):
        raise BadRow(f"the row is {kind_of(raw.value)}, not an object with named fields")
    return raw.value


def _refuse_unknown(value: dict[str, object], where: str, on_bad_row: OnBadRow) -> NoReturn:
    """Refuse a row that has no key of its file's layout, or fits none."""
    try:
        require_given(value, recognise(value, where))
    except DataError as error:
        if on_bad_row == "stop":
            raise
        raise BadRow(str(error).partition(": ")[2].partition(". Known")[0]) from None
    raise BadRow(f"the row has no key of the file's layout; found {keys_of(value)}")
