"""The lines around a preview's rows, on a terminal and on the page."""

from collections.abc import Iterator, Sequence
from typing import Any

from alignment.preview.rows import Row, Stage, Tokens


def summary(stage: Stage, shown: int) -> Iterator[str]:
    """Yield lines about all rows of a stage."""
    count = len(stage.sources)
    yield f"{stage.name}: {shown:,} of {count:,} {stage.unit} shown"
    layouts = stage.layouts()
    yield "layouts: " + ", ".join(f"{name} {number:,}" for name, number in layouts.items())
    found = stage.lengths().to_json()
    if found:
        limit = f", limit {stage.limit:,}" if stage.limit is not None and stage.limit < 2**31 else ""
        line = f"tokens: {found['least']:,} least, {found['median']:,} median, {found['most']:,} most{limit}"
        trained = f"; {found['trained'] / max(found['all'], 1):.0%} are trained" if found["trained"] else ""
        yield line + trained
    for side, numbers in stage.counts.items():
        if isinstance(numbers, dict) and any(numbers.values()):
            yield f"{side}: " + ", ".join(f"{key.replace('_', ' ')} {number:,}" for key, number in numbers.items())
    if stage.skipped:
        yield f"left out: {len(stage.skipped):,}, the first is {stage.skipped[0]}"


def heading(number: int, row: Row) -> str:
    """Return a row's first line."""
    chance = row.chance()
    return f"{number}  {row.source} · {row.layout or 'layout unknown'}{f' · {chance}' if chance else ''}"


def facts(tokens: Tokens, tokenizer: Any, stops: Sequence[int]) -> str:
    """Return what is counted of one sequence."""
    told = [f"{len(tokens.ids):,} tokens"]
    if any(tokens.trained):
        told.append(f"{sum(tokens.trained):,} trained")
        stop = stop_of(tokens, tokenizer, stops)
        if stops:
            told.append(f"ends with the stop token {stop}" if stop else "no stop token at its end")
    if tokens.cut:
        told.append(f"{len(tokens.cut):,} cut off")
    return ", ".join(told)


def stop_of(tokens: Tokens, tokenizer: Any, stops: Sequence[int]) -> str | None:
    """Return the stop token that a sequence's last trained answer ends with."""
    last = next((place for place in reversed(range(len(tokens.ids))) if tokens.trained[place]), None)
    if last is None or tokens.ids[last] not in stops:
        return None
    return str(tokenizer.convert_ids_to_tokens(tokens.ids[last]))


def from_where(row: Row) -> str:
    """Return the columns that a row's parts come from."""
    return ", ".join(f"{part.name}: {part.column or 'not found as it stands'}" for part in row.parts)
