"""The documents of pretraining as tokens: lengths, what is predicted, and whether tokens stand for the text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.config.schema import PretrainRecipe
from alignment.data.masks import IGNORE
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.doctor.findings import Finding, fault, note, ok, warning
from alignment.errors import AlignmentError, DataError
from alignment.train.pretraining.documents import Document, Documents, ends_of
from alignment.train.pretraining.objective import DRAW, Objective, Row
from alignment.train.pretraining.objectives import objective_of

MANY = 0.01  # share of unknown tokens above which a finding is a warning
COLLATED = 200  # sequences by which the share of predicted tokens is found


@dataclass(frozen=True, slots=True)
class _Read:
    """Documents, and the sequences that they fill."""

    documents: list[Document]
    sources: list[str]  # of each document
    rows: list[Row]
    broken: list[str]


def begins_and_ends(template: Template) -> Finding:
    """Return what stands around each document."""
    opening, closing = (list(map(template.tokenizer.convert_ids_to_tokens, ids)) for ids in ends_of(template))
    begin = f"begins with {' '.join(map(repr, opening))} and " if opening else ""
    return ok("documents", f"each {begin}ends with {' '.join(map(repr, closing))}")


def documents(
    recipe: PretrainRecipe,
    template: Template,
    rows: Sequence[tuple[str, Demonstration]],
    limit: int | None,
    of_what: str,
) -> Iterator[Finding]:
    """Check documents as training makes sequences of them.

    Args:
        rows: with their sources. limit: tokens of a sequence. of_what: which rows these are, for messages.
    """
    try:
        objective = objective_of(recipe, template, limit or 2**31)
        read = _read(objective, template, rows)
    except AlignmentError as error:
        yield fault("objective", str(error), "change the recipe as the message says")
        return
    if read.broken:
        remedy = "correct these rows, or set on_bad_row: skip"
        yield fault("rows", f"{len(read.broken)} of {len(rows)} cannot be used, first {read.broken[0]}", remedy)
    if not read.rows:
        return
    yield from _lengths(read, limit, of_what)
    yield _predicted(objective, read)
    yield from _tokens(template, read, of_what)


def _read(objective: Objective, template: Template, rows: Sequence[tuple[str, Demonstration]]) -> _Read:
    reader = Documents(template, pairs=objective.pairs, words=objective.words)
    read = _Read([], [], [], [])
    for source, row in rows:
        try:
            found = reader.read(row)
            made = [each for document in found for each in objective.add(document)]
        except DataError as error:
            read.broken.append(f"{source}: {error}")
            continue
        read.documents.extend(found)
        read.sources.extend([source] * len(found))
        read.rows.extend(made)
    read.rows.extend(objective.rest())
    return read


def _lengths(read: _Read, limit: int | None, of_what: str) -> Iterator[Finding]:
    lengths = sorted(max(len(each.ids), len(each.answer or ())) for each in read.documents)
    split = sum(length > limit for length in lengths) / len(lengths) if limit is not None else 0
    said = f"{split:.0%} are longer than a sequence of {limit} tokens; " if split else ""
    middle, longest = lengths[len(lengths) // 2], lengths[-1]
    yield ok("lengths", f"{said}median {middle} tokens, maximum {longest}, of {of_what}")
    yield ok("sequences", f"{len(read.documents)} documents fill {len(read.rows)}")


def _predicted(objective: Objective, read: _Read) -> Finding:
    rows = read.rows[:COLLATED]
    batch = objective.collate([{**row, DRAW: [0, place]} for place, row in enumerate(rows)])
    predicted = int((batch["labels"] != IGNORE).sum())
    inputs = sum(len(row["input_ids"]) for row in rows)
    if "attention_mask" in batch:
        inputs = int(batch["attention_mask"].sum())
    found = f"{predicted} in sequences of {inputs}, {predicted / inputs:.0%}"
    if objective.pairs:  # of an encoder and a decoder
        found = f"{predicted} in targets, for inputs of {inputs}"
    if not predicted:
        return fault("predicted tokens", found, "give longer documents")
    return ok("predicted tokens", found)


def _tokens(template: Template, read: _Read, of_what: str) -> Iterator[Finding]:
    tokenizer: Any = template.tokenizer
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    opening = ends_of(template)[0]
    sequences = [[*opening, *each.ids, *(each.answer or ())] for each in read.documents]
    doubled = [place for place, ids in enumerate(sequences) if bos is not None and ids[:2] == [bos, bos]]
    if doubled:
        said = (
            f"{len(doubled)} of {len(sequences)} documents begin with two BOS tokens, first {read.sources[doubled[0]]}"
        )
        yield warning("BOS", said, "remove the BOS token from the text, or from the chat template")
    else:
        yield ok("BOS", f"no document begins with two, in {of_what}")
    counts = [ids.count(unknown) for ids in sequences] if unknown is not None else [0]
    share = sum(counts) / max(1, sum(map(len, sequences)))
    if not share:
        yield ok("unknown tokens", "none")
        return
    most = read.sources[counts.index(max(counts))]
    said = f"{share:.1%} of the tokens are {tokenizer.unk_token!r}, most in {most}"
    if share > MANY:
        yield warning("unknown tokens", said, "use a tokenizer that knows the text's letters")
    else:
        yield note("unknown tokens", said)
