"""The rows of a recipe as tokens: lengths, labels, and whether the tokens decode to the whole text."""

import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.config.schema import PolicyGradientRecipe, PretrainRecipe
from alignment.data import Loaded, load_rows
from alignment.data.answer_labels import require_learnable
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.answers import THOUGHTS
from alignment.data.conversations import carried_tools
from alignment.data.masks import rows_of
from alignment.data.rows import Demonstration, Message, Prompt, Ranking
from alignment.data.template import IGNORE, Template
from alignment.doctor.documents import documents
from alignment.doctor.findings import Finding, fault, note, ok, warning
from alignment.errors import AlignmentError
from alignment.planner.skeleton import blueprint
from alignment.rollout.context import is_encoder_decoder, prompt_room

SAMPLE = 2_000  # rows that are checked by default
TryScorers = Callable[[PolicyGradientRecipe, Loaded[Prompt] | None], list[str]]  # returns names; raises AlignmentError
MANY = 0.05  # share above which a finding is a warning
TAGS = re.compile(r"\s|" + "|".join(re.escape(tag) for pair in THOUGHTS for tag in pair))
CALL = "<tool_call>"  # starts a tool call, which a template may write in another form


@dataclass(slots=True)
class Measured:
    """One row as tokens."""

    tokens: int  # of its longest sequence
    share: float  # of its labels with a loss
    doubled: bool  # a sequence begins with two BOS tokens
    lost: dict[str, str | None] = field(default_factory=dict)  # "text", "reasoning", "tools" → what is missing


def readable(recipe: Any) -> Generator[Finding, None, Loaded[Any] | None]:
    """Check that the stage can read its data; return them if it can."""
    try:
        loaded = load_rows(recipe)
        require_learnable(recipe.stage, loaded.rows)
    except AlignmentError as error:
        yield fault("data", str(error), "correct the data, or set on_bad_row: skip to leave such rows out")
        return None
    of_stream = "the stream's first " if getattr(recipe, "streaming", False) else ""
    yield ok("data", f"{of_stream}{len(loaded.rows)} rows, {len(loaded.skipped)} left out")
    return loaded


def rows(recipe: Any, template: Template, sample: int, try_scorers: TryScorers | None = None) -> Iterator[Finding]:
    """Check `sample` rows, evenly spaced, and try the scorers on some of them."""
    loaded = yield from readable(recipe)
    if loaded is None:
        return
    yield from scorers(recipe, loaded, try_scorers)
    count = len(loaded.rows)
    taken = sorted({place * count // sample for place in range(sample)}) if count > sample else range(count)
    of_what = f"all {count} rows" if count <= sample else f"{len(taken)} of {count} rows, evenly spaced"
    limit = limit_of(recipe)
    if limit is not None and limit < 1:
        yield _no_room(recipe, limit)
        return
    if isinstance(recipe, PretrainRecipe):
        pairs = [(loaded.sources[place], loaded.rows[place]) for place in taken]
        yield from documents(recipe, template, pairs, limit, of_what)
        return
    known = AnswerTokens(template)
    found: list[tuple[str, Measured]] = []
    broken = []
    for place in taken:
        row, source = loaded.rows[place], loaded.sources[place]
        try:
            found.append((source, measured(row, known, limit, splits=recipe.STAGE.splits)))
        except AlignmentError as error:
            broken.append(f"{source}: {error}")
    known.tell()
    if broken:
        remedy = "correct these rows, or set on_bad_row: skip" if len(broken) < len(taken) else ""
        yield fault("rows", f"{len(broken)} of {len(taken)} cannot be tokenised, first {broken[0]}", remedy)
    if not found:
        return
    yield from _long(recipe, [one.tokens for _, one in found], limit, of_what)
    if recipe.STAGE.rows == "demonstrations":
        yield _masked([one.share for _, one in found])
    yield from _round_trips(found, of_what)


def scorers(recipe: Any, loaded: Loaded[Any] | None, try_scorers: TryScorers | None) -> Iterator[Finding]:
    """Try the functions that score answers.

    Args:
        loaded: the data; None: an earlier stage writes them, so the functions are only imported.
    """
    if try_scorers is None or not isinstance(recipe, PolicyGradientRecipe):
        return
    try:
        names = try_scorers(recipe, loaded)
    except AlignmentError as error:
        yield fault("scorers", str(error), "correct the function, its keys, or the rows")
        return
    if names:
        yield ok("scorers", f"{', '.join(names)} {'can be imported' if loaded is None else 'scored two answers'}")


def limit_of(recipe: Any) -> int | None:
    """Return the maximum tokens of a sequence, or of a prompt."""
    plan = blueprint(recipe.model_name_or_path, {})
    answer, encoded = int(getattr(recipe, "max_new_tokens", 0)), is_encoder_decoder(plan.config)
    room = prompt_room(plan.context(recipe), answer, encoded=encoded)
    said = getattr(recipe, "max_length", getattr(recipe, "max_prompt_length", None))
    return min((limit for limit in (said, room) if limit is not None), default=None)


def _no_room(recipe: Any, limit: int) -> Finding:
    answer = int(getattr(recipe, "max_new_tokens", 0))
    found = f"max_new_tokens {answer} leaves no room for a prompt: the model reads {limit + answer} tokens"
    return fault("lengths", found, "lower max_new_tokens, or num_virtual_tokens of a soft prompt")


def measured(row: Any, tokens: AnswerTokens, limit: int | None, *, splits: bool = False) -> Measured:
    """Tokenise a row and compare the decoded tokens with its text.

    Args:
        splits: whether the stage splits longer rows, and learns text without a prompt.

    Raises: DataError if the row cannot be tokenised.
    """
    template = tokens.template
    if isinstance(row, Demonstration):
        answers = tokens.answers(row)
        chat = isinstance(row.prompt, list)
        said = row.conversation() if chat else [_plain(row.prompt), _plain(row.completion)]
        if template.sides:
            if not splits:
                template.sides.require_read(row, answers, limit)
            labels = [label for one in answers for label in one.labels[:limit]]
            sequences = [ids for one in answers for ids in (one.context, one.ids)]
        else:
            trained = rows_of(answers)
            labels = [label for one in trained for label in one.labels[:limit]]
            sequences = [one.input_ids for one in trained]
        share = sum(label != IGNORE for label in labels) / max(1, len(labels))
        return _compared(sequences, share, said, row.tools if chat else None, template)
    prompt: Prompt = row.prompt if isinstance(row, Ranking) else row
    head = tokens.prompt_ids(row) if isinstance(row, Ranking) else template.prompt_ids(prompt)
    said = list(prompt) if isinstance(prompt, list) else [_plain(prompt)]
    said, tools = carried_tools(said)
    sequences = [head]
    if isinstance(row, Ranking):
        sequences = [head + tokens.answer_ids(row, index) for index in range(len(row.responses))] or [head]
        said += [_plain(text) for text in row.responses]
    return _compared(sequences, 1.0, said, tools, template)


def _plain(text: Any) -> Message:
    return {"role": "", "content": str(text)}


def _compared(
    sequences: Sequence[list[int]], share: float, said: Sequence[Message], tools: str | None, template: Template
) -> Measured:
    bos = template.tokenizer.bos_token_id
    doubled = bos is not None and any(ids[:2] == [bos, bos] for ids in sequences)
    found = Measured(max(map(len, sequences)), share, doubled)
    written = _squeezed(" ".join(str(template.tokenizer.decode(ids)) for ids in sequences))
    texts = [str(message["content"]).partition(CALL)[0] for message in said]
    found.lost["text"] = next((text for text in texts if _squeezed(text) not in written), None)
    thoughts = [str(message["reasoning"]) for message in said if message.get("reasoning")]
    thoughts += [text for text in texts if any(tags[1] in text for tags in THOUGHTS)]
    if thoughts:
        found.lost["reasoning"] = next((text for text in thoughts if _squeezed(text) not in written), None)
    names = list(_tool_names(tools))
    if names:
        found.lost["tools"] = next((name for name in names if _squeezed(name) not in written), None)
    return found


def _squeezed(text: str) -> str:
    """Return a text without spaces and without tags of reasoning, which templates may place freely."""
    return TAGS.sub("", text)


def _tool_names(tools: str | None) -> Iterator[str]:
    for tool in json.loads(tools) if tools else []:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(function, dict) and function.get("name"):
            yield str(function["name"])


def _long(recipe: Any, lengths: list[int], limit: int | None, of_what: str) -> Iterator[Finding]:
    ordered = sorted(lengths)
    middle, longest = ordered[len(ordered) // 2], ordered[-1]
    found = f"median {middle} tokens, maximum {longest}, of {of_what}"
    over = sum(length > limit for length in lengths) if limit is not None else 0
    if not over:
        yield ok("lengths", found)
        return
    share = over / len(lengths)
    key = "max_length" if hasattr(recipe, "max_length") else "max_prompt_length"
    is_cut = recipe.STAGE.rows == "demonstrations"
    cut = "are cut" if is_cut else "do not fit"
    said = f"{share:.0%} {cut} at {limit} tokens; {found}"
    if is_cut or recipe.on_bad_row == "skip":
        yield (warning if share > MANY else note)("lengths", said, f"raise {key}, or shorten the rows")
    else:
        yield fault("lengths", said, f"raise {key}, shorten the rows, or set on_bad_row: skip")


def _masked(learned: list[float]) -> Finding:
    nothing = sum(share == 0 for share in learned) / len(learned)
    mean = sum(learned) / len(learned)
    found = f"{1 - mean:.0%} of labels are masked"
    if nothing == 1:
        return fault("labels", "no row has a label with a loss", "check the columns of the data and the chat template")
    if nothing > MANY:
        return warning(
            "labels",
            f"{found}; {nothing:.0%} of rows have no label with a loss",
            "raise max_length, or remove these rows",
        )
    return ok("labels", found)


def _round_trips(found: Sequence[tuple[str, Measured]], of_what: str) -> Iterator[Finding]:
    doubled = [source for source, one in found if one.doubled]
    if doubled:
        remedy = "remove the BOS token from the text, or from the chat template"
        yield warning("BOS", f"{len(doubled)} of {of_what} begin with two BOS tokens, first {doubled[0]}", remedy)
    else:
        yield ok("BOS", f"no row begins with two, in {of_what}")
    yield from _kept(found, "text", "check the row with `alignment preview`; set another chat_template")
    remedy = "set a chat_template that writes reasoning; `alignment preview` shows the row"
    yield from _kept(found, "reasoning", remedy)
    yield from _kept(found, "tools", "set a chat_template that writes tools")


def _kept(found: Sequence[tuple[str, Measured]], what: str, remedy: str) -> Iterator[Finding]:
    having = [(source, one.lost[what]) for source, one in found if what in one.lost]
    lost = [(source, text) for source, text in having if text is not None]
    if lost:
        source, text = lost[0]
        shown = text.strip() if len(text.strip()) <= 60 else f"{text.strip()[:57]}..."
        said = f"{len(lost)} of {len(having)} rows: tokens do not decode to all of it, first {source}: {shown!r}"
        yield warning(what, said, remedy)
    elif having:
        yield ok(what, f"the tokens decode to all of it, in {len(having)} rows")
