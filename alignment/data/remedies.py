"""Error messages for rows with unread keys; each remedy was tried on the row before a message suggests it."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from alignment.data.columns import without
from alignment.data.fields import BadRow, is_message
from alignment.data.formats import Format
from alignment.data.inner_columns import renamed
from alignment.data.keys import MEANT, MEDIA, UnreadKey, as_yaml, example, plain_name, unread
from alignment.data.known import known_remedy
from alignment.data.opinions import is_text, siblings
from alignment.strict_json import shown

_WITHOUT_PROMPT = ("hh", "implicit_preference")  # layouts whose prompt is what the answers share
_REFERENCES = (  # names of the right answer, for a scorer
    "answer", "answers", "target", "targets", "solution", "solutions", "ground_truth", "reference", "reference_answer",
    "final_answer", "expected", "expected_answer", "gold", "gold_answer", "gt",
)  # fmt: skip
_WITHOUT_ANSWERS = ("prompt", "answers", "text")  # layouts that would leave out an answer


def refusal(
    row: Mapping[str, Any], keys: list[str], fmt: Format, formats: Sequence[Format], fitting: Iterable[Format]
) -> UnreadKey:
    """Return the error for unread keys.

    Args:
        fmt: the row's layout. formats: all layouts. fitting: other layouts that fit the row.
    """
    named = ", ".join(f"{shown(key)} ({example(row[key])})" for key in keys[:5])
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    reads = ", ".join(key for key in fmt.reads if key == plain_name(key) and not re.search("score_|rating", key))
    fault = f"the layout {fmt.name} does not read {named}{more}; it reads {reads}"
    if known := known_remedy(row, formats):
        return UnreadKey(f"{fault}. {known}")
    others = [other.name for other in fitting if any(key in other.reads for key in keys)]
    if others:
        ways = " or ".join(f"format: {name}" for name in (fmt.name, *others))
        return UnreadKey(f"{fault}. Two layouts fit the row, so name the one to read: set {ways}")
    taken, home, rest = rated_columns(row, formats) or _columns(row, keys, fmt, formats)
    instead = {key: name for key in rest for name in MEANT.get(plain_name(key), ()) if name in taken}
    read = [key for key in keys if any(one.name == home and key in one.reads for one in formats)]
    found = (
        *_hints(row, read, formats, near=False),
        *_hints(row, [key for key in rest if key not in instead], formats),
    )
    hints = [f"{hint}." for hint in dict.fromkeys(found)]
    hints += [f"{key} may be {name} instead." for key, name in instead.items()]
    if taken:
        hints.insert(0, f"Set {columns_text(taken)}" + (f" for the layout {home}." if home != fmt.name else "."))
    texts = sorted(
        (key for key in rest if is_text(row[key]) or _is_chat(row[key])), key=lambda key: not _is_chat(row[key])
    )
    question = texts[0] if texts and fmt.name in _WITHOUT_PROMPT else None
    if question is not None and not taken:
        hints.insert(0, f"If {shown(question)} is the prompt, set {columns_text({'prompt': question})}.")
    if taken and not rest:
        return UnreadKey(f"{fault}. {' '.join(hints).removesuffix('.')}")
    names = ", ".join(map(as_yaml, rest or keys))
    if {"message_id", "parent_id"} <= row.keys():
        return UnreadKey(f"{fault}. The rows are messages of trees; give the file of whole trees, which oasst reads")
    to_train = "To train without the others" if taken and rest else "To train without"
    return UnreadKey(f"{fault}. {' '.join([*hints, to_train])}, set ignore_columns: [{names}]")


def _columns(
    row: Mapping[str, Any], keys: list[str], fmt: Format, formats: Sequence[Format]
) -> tuple[dict[str, str], str, list[str]]:
    """Return key of a layout → key of the row, for as many of `keys` as one layout reads, its name, and other `keys`.

    Keys that are read already keep their meaning. The row's own layout is tried first.
    """
    read = [key for key in row if key in fmt.reads]
    best: tuple[dict[str, str], str, list[str]] = ({}, "", list(keys))
    for candidate in (fmt, *(other for other in formats if other is not fmt)):
        if not set(read) <= set(candidate.reads):
            continue
        pairs = _meant(row, keys, candidate.reads)
        spare = [key for key in keys if key not in pairs.values() and key not in candidate.reads]
        if _compared(row, pairs, spare):
            continue
        if len(pairs) > len(best[0]) and reads_whole(row, pairs, spare, candidate, formats):
            best = pairs, candidate.name, spare
    return best if best[0] else _two_conversations(row, keys, formats)


def _two_conversations(
    row: Mapping[str, Any], keys: Collection[str], formats: Sequence[Format]
) -> tuple[dict[str, str], str, list[str]]:
    """Return the columns, as `_columns`, of a row whose `messages` are the better one of two conversations."""
    worse = next((key for key in keys if "rejected" in MEANT.get(plain_name(key), ())), None)
    spare = [key for key in keys if key != worse]
    for better in ("messages", "conversations"):
        pairs = {"chosen": better, "rejected": str(worse)}
        for fmt in formats if worse is not None and better in row else ():
            if reads_whole(row, pairs, spare, fmt, formats):
                return pairs, fmt.name, spare
    return {}, "", list(keys)


def rated_columns(row: Mapping[str, Any], formats: Sequence[Format]) -> tuple[dict[str, str], str, list[str]] | None:
    """Return the columns of a row with a list of rated answers, as `_columns` does; None where it has none."""
    ranking = next(fmt for fmt in formats if fmt.name == "ranking")
    prompt = next((one for one in row if "prompt" in (one, *MEANT.get(plain_name(one), ()))), None)
    for key, value in row.items():
        if prompt is None or (rated := _rated(value)) is None:
            continue
        text, number, ours = rated
        pairs = {"responses": f"{key}.{text}", ours: f"{key}.{number}"}
        pairs = pairs if prompt == "prompt" else {"prompt": prompt, **pairs}
        found = renamed(row, pairs)
        inside = sorted({name for one in found.get(key, ()) for name in one})
        spare = [*(name for name in unread(found, ranking.reads, ranking.harmless) if name != key), *inside]
        if reads_whole(row, pairs, spare, ranking, formats):
            return pairs, ranking.name, spare
    return None


def _meant(row: Mapping[str, Any], keys: Iterable[str], reads: Collection[str]) -> dict[str, str]:
    """Return key of a layout → key of the row, by names that other programs use, and by likeness."""
    pairs: dict[str, str] = {}
    for key in keys:
        free = [name for name in reads if name not in row and name not in pairs]
        wanted = [*difflib.get_close_matches(key, free, 1, 0.75), *MEANT.get(plain_name(key), ())]
        wanted += ["messages"] if plain_name(key) == "data" and isinstance(row[key], list) else []
        target = next((target for target in wanted if target in free), None)
        if target is not None:
            pairs[target] = key
    return pairs


def reads_whole(
    row: Mapping[str, Any], pairs: Mapping[str, str], spare: Collection[str], fmt: Format, formats: Sequence[Format]
) -> bool:
    """Whether a row is valid in the layout `fmt` after renaming columns and leaving out `spare`."""
    found = renamed(without(dict(row), frozenset(spare), set()), pairs)
    if next((one for one in formats if one.matches(found)), None) is not fmt:
        return False
    try:
        fmt.read(found)
    except BadRow:
        return False
    return not unread(found, fmt.reads_in(found), fmt.harmless_in(found))


def _compared(row: Mapping[str, Any], pairs: Mapping[str, str], spare: Collection[str]) -> bool:
    """Whether only some of the answers that a row compares would be read."""
    return any(other in spare for key in pairs.values() for other in siblings(key, dict(row)))


def _asks_alone(row: Mapping[str, Any], spare: Collection[str], fmt: Format) -> bool:
    """Whether a row is read as prompts only without the `spare` keys, which may hold the answers."""
    parsed = fmt.read({key: value for key, value in row.items() if key not in spare})
    return not any(hasattr(one, "completion") or hasattr(one, "responses") for one in parsed)


def nearest(row: Mapping[str, Any], formats: Sequence[Format]) -> str:
    """Return the end of a sentence: how to read a row that fits no layout; "" if no way is known."""
    best: tuple[dict[str, str], list[str], str] | None = None
    if rated := rated_columns(row, formats):
        best = rated[0], rated[2], rated[1]
    for candidate in formats:
        pairs = _meant(row, (key for key in row if key not in candidate.reads), candidate.reads)
        found = renamed(row, pairs)
        spare = unread(found, candidate.reads, candidate.harmless_in(found))
        if not pairs or (spare and candidate.name in _WITHOUT_ANSWERS) or (best and len(spare) >= len(best[1])):
            continue
        if not _compared(row, pairs, spare) and reads_whole(row, pairs, spare, candidate, formats):
            if spare and _asks_alone(found, spare, candidate):
                continue
            best = pairs, spare, candidate.name
    if best is None:
        hints = (*_holds(row, formats), *_hints(row, [*row], formats, near=False))
        return "".join(f". {hint}" for hint in dict.fromkeys(hints))
    pairs, spare, name = best
    rest = f" and ignore_columns: [{', '.join(map(as_yaml, spare))}]" if spare else ""
    return f". To read them as the layout {name}, set {columns_text(dict(sorted(pairs.items())))}{rest}"


def _holds(row: Mapping[str, Any], formats: Sequence[Format]) -> Iterator[str]:
    """Yield hints about lists of messages under other names, and lists of rows."""
    for key, value in row.items():
        if not isinstance(value, list) or not value or not isinstance(value[0], dict):
            continue
        if "messages" in MEANT.get(plain_name(key), ()) and all(map(is_message, value)):
            yield f"To read {key} as messages, set {columns_text({'messages': key})}"
        elif fmt := next((one for one in formats if one.matches(value[0])), None):
            yield f"{key} holds rows of the layout {fmt.name}; save that list alone as the file"


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def _hints(
    row: Mapping[str, Any], keys: Collection[str], formats: Sequence[Format], *, near: bool = True
) -> Iterator[str]:
    """Yield hints about keys that renaming does not help; `near`: include similar keys of layouts."""
    texts = {key: row[key] for key in keys if is_text(row[key])}
    for key in keys:
        group = siblings(key, texts) if key in texts else []
        name = plain_name(key)
        if MEDIA.fullmatch(name):
            yield "Only text is supported: images, videos and sounds are not"
        elif len(group) > 1:
            yield (
                f"{' and '.join(group[:4])} look like answers that are compared: write the better one as chosen, the "
                "other one as rejected and the prompt as prompt"
            )
        elif rated := _rated(row[key]):
            text, number, ours = rated
            yield f"{key} holds objects: write each {text} into a list responses, and each {number} into {ours}"
        elif near:
            yield from _near(key, formats)


def _near(key: str, formats: Sequence[Format]) -> Iterator[str]:
    for target in (key, *MEANT.get(plain_name(key), ())):
        if reading := [one.name for one in formats if target in one.reads]:
            yield f"{target} is a key of {', '.join(reading)}"
            return
    known = sorted({name for one in formats for name in one.reads})
    if close := difflib.get_close_matches(key, known, 1, 0.75):
        yield f"The nearest key of a layout is {close[0]}"


def _rated(value: Any) -> tuple[str, str, str] | None:
    """Return the names of the text and the number in a list of rated answers, and the key that takes the numbers."""
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, dict) for one in value):
        return None
    numbers = [key for key, part in value[0].items() if isinstance(part, int | float) and not isinstance(part, bool)]
    text = next((key for key in ("response", "answer", "text", "content") if isinstance(value[0].get(key), str)), None)
    number = next((key for key in ("rank", "overall_score", "score", "rating") if key in numbers), None)
    return None if text is None or number is None else (text, number, "ranks" if number == "rank" else "scores")


def columns_text(pairs: Mapping[str, str]) -> str:
    """Return the recipe's `columns:` for key of a layout → key of the row."""
    return "columns: {" + ", ".join(f"{ours}: {as_yaml(theirs)}" for ours, theirs in pairs.items()) + "}"


def scorer_hint(keys: Iterable[str], wanted: Collection[str]) -> str:
    """Return which of `keys` may be a column that a scorer reads and the row lacks, as a sentence; "" for none.

    Args:
        wanted: the columns that scorers read and the row lacks.
    """
    for name in wanted:
        near = difflib.get_close_matches(name, keys, 1, 0.6)
        near += [key for key in keys if plain_name(key) in _REFERENCES and plain_name(name) in _REFERENCES]
        if near:
            taken = columns_text({name: near[0]})
            return f"A scorer reads {name}, which the row lacks; if {near[0]} is meant, set {taken}"
    return ""
