"""The layouts that data sets come in: how each is recognised by its keys and read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alignment.data.argilla import argilla, is_argilla
from alignment.data.conversations import (
    BadRow,
    carrying_tools,
    checked,
    common_prompt,
    keys_of,
    message_of,
    messages_of,
    optional_text,
    parse_hh,
    split_answer,
    text_of,
    tools_of,
    whole_text,
)
from alignment.data.label_studio import is_label_studio, label_studio
from alignment.data.rankings import (
    RATINGS,
    margin_of,
    number_of,
    pairs_from_ranks,
    prompt_of,
    ranking_from_json,
    require_comparable,
)
from alignment.data.rows import Demonstration, Message, Pair, Prompt, Ranking
from alignment.errors import DataError
from alignment.strict_json import shown

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Only:
    """A row that holds a prompt and no answer."""

    prompt: Prompt


Parsed = Demonstration | Ranking | Only


@dataclass(frozen=True, slots=True)
class Format:
    """One layout."""

    name: str
    keys: str  # what a row must have, for messages
    matches: Callable[[Row], bool]
    read: Callable[[Row], list[Parsed]]  # one row may hold several; raises `BadRow`


def recognise(row: Row, where: str) -> Format:
    """Return the format whose keys `row` has.

    Raises: DataError naming the keys found and the formats known.
    """
    for candidate in FORMATS:
        if candidate.matches(row):
            return candidate
    found = keys_of(row)
    known = "\n".join(f"  {known.name}: {known.keys}" for known in FORMATS)
    raise DataError(f"{where}: no known format has these keys: {found}. Known formats and their keys:\n{known}")


def named(name: str) -> Format:
    """Return the format of that name."""
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise DataError(f"format: {name} is not known; known are {', '.join(known.name for known in FORMATS)}.")


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


def _user(system: str, history: Any, instruction: str) -> list[Message]:
    messages = [{"role": "system", "content": system}] if system.strip() else []
    if history is not None and not isinstance(history, list):
        raise BadRow("'history' is not a list of [question, answer] pairs")
    for turn in history or []:
        if not isinstance(turn, list | tuple) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            raise BadRow("'history' is not a list of [question, answer] pairs")
        turn = [whole_text(part, "'history'") for part in turn]
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return [*messages, {"role": "user", "content": instruction}]


def _alpaca(row: Row) -> list[Parsed]:
    extra = optional_text(row, "input")
    instruction = text_of(row, "instruction", empty=bool(extra.strip()))
    question = "\n".join(part for part in (instruction, extra) if part.strip())
    prompt = _user(optional_text(row, "system"), row.get("history"), question)
    return [Demonstration(prompt, text_of(row, "output"))]


def _self_instruct(row: Row) -> list[Parsed]:
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise BadRow("'instances' is not a list of input and output")
    return [parsed for one in instances for parsed in _alpaca({**one, "instruction": row.get("instruction")})]


def _conversation(key: str) -> Callable[[Row], list[Parsed]]:
    def read(row: Row) -> list[Parsed]:
        messages = messages_of(row, key)
        system = optional_text(row, "system")
        if system.strip() and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        tools = tools_of(row)
        if messages[-1]["role"] in ("user", "tool"):
            return [Only(carrying_tools(messages, tools))]
        prompt, completion = split_answer(messages, f"'{key}'")
        return [Demonstration(prompt, completion, tools)]

    return read


def _prompt_completion(row: Row) -> list[Parsed]:
    completion, prompt = row.get("completion"), prompt_of(row)
    if isinstance(completion, list):
        turns = messages_of(row, "completion")
        before: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages, answer = split_answer([*before, *turns], "'completion'")
        return [Demonstration(messages, answer, tools_of(row))]
    return [Demonstration(prompt, text_of(row, "completion"), tools_of(row))]


def _kto(row: Row) -> list[Parsed]:
    """Answers with a thumb up or down: the good ones are demonstrations, of the others only the prompt is of use."""
    label = row.get("label")
    if not isinstance(label, bool):
        raise BadRow(f"'label' is {shown(label)}, not true or false")
    key = next((key for key in ("messages", "conversations") if key in row), None)
    (parsed,) = _conversation(key)(row) if key else _prompt_completion(row)
    if label or not isinstance(parsed, Demonstration):
        return [parsed]
    return [Only(parsed.prompt)]


def _text(row: Row) -> list[Parsed]:
    return [Demonstration("", text_of(row, "text" if "text" in row else "full_text"))]


def _choice(row: Row, prompt: Prompt, chosen: str, rejected: str) -> list[Parsed]:
    if chosen == rejected:
        raise BadRow("'chosen' and 'rejected' are the same answer, so neither is preferred")
    probability = 1.0
    if row.get("probability") is not None:
        probability = number_of(row["probability"], "'probability'")
        if not 0.0 <= probability <= 1.0:
            raise BadRow(f"'probability' is {probability}, outside 0 to 1")
    margin = margin_of(row.get("margin"), "'margin'")
    for high, low in RATINGS:
        if margin is None and row.get(high) is not None and row.get(low) is not None:
            margin = number_of(row[high], f"'{high}'") - number_of(row[low], f"'{low}'")
            if margin < 0:
                raise BadRow(f"'{high}' {row[high]} is below '{low}' {row[low]}, so the choice contradicts the ratings")
    pair = Pair(0, 1, probability, "tie" if probability == 0.5 else "ok", margin)
    return [Ranking(prompt, [chosen, rejected], [pair])]


def _explicit(row: Row) -> list[Parsed]:
    if any(_several(row.get(key)) for key in ("chosen", "rejected")):
        return _several_choices(row)
    if not isinstance(row.get("chosen"), list):
        return _choice(row, prompt_of(row), text_of(row, "chosen"), text_of(row, "rejected"))
    chosen, rejected = messages_of(row, "chosen"), messages_of(row, "rejected")
    if chosen[0]["role"] == "assistant":
        prompt = prompt_of(row)
        before: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        chosen, rejected = [*before, *chosen], [*before, *rejected]
    return _choice(row, *common_prompt(chosen, rejected))


def _several(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _several_choices(row: Row) -> list[Parsed]:
    """Read lists of good and of bad answers: each good one beats each bad one, and nothing is said among equals."""
    sides = []
    for key in ("chosen", "rejected"):
        texts = [row[key]] if isinstance(row.get(key), str) else row.get(key)
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise BadRow(f"'{key}' is not a list of answers that are text and not empty")
        sides.append([whole_text(text, f"'{key}[{index}]'") for index, text in enumerate(texts)])
    good, bad = sides
    require_comparable(len(good) + len(bad))
    pairs = [Pair(i, len(good) + j, 1.0) for i in range(len(good)) for j in range(len(bad))]
    return [Ranking(prompt_of(row), [*good, *bad], pairs)]


def _implicit(row: Row) -> list[Parsed]:
    if isinstance(row.get("chosen"), list):
        return _choice(row, *common_prompt(messages_of(row, "chosen"), messages_of(row, "rejected")))
    chosen, rejected = text_of(row, "chosen"), text_of(row, "rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    word = shared
    while word and not chosen[word : word + 1].isspace():
        word -= 1
    if word or any(character.isspace() for character in chosen):
        shared = word  # back to the end of a word, in scripts that part them
    prompt, answers = chosen[:shared], (chosen[shared:], rejected[shared:])
    if not prompt.strip():
        raise BadRow("'chosen' and 'rejected' do not begin with the same prompt")
    for key, answer in zip(("chosen", "rejected"), answers, strict=True):
        if not answer.strip():
            raise BadRow(f"'{key}' is an empty answer: it says nothing beyond what the two share")
    return _choice(row, prompt, *answers)


def _hh(row: Row) -> list[Parsed]:
    chosen, rejected = (parse_hh(text_of(row, key), f"'{key}'") for key in ("chosen", "rejected"))
    return _choice(row, *common_prompt(chosen, rejected))


def _sharegpt_dpo(row: Row) -> list[Parsed]:
    messages = carrying_tools(messages_of(row, "conversations"), tools_of(row))
    if messages[-1]["role"] == "assistant":
        raise BadRow("'conversations' ends with a message of the assistant, so there is nothing to answer")
    chosen, rejected = (
        split_answer([*messages, message_of(row.get(key), f"'{key}'")], f"'{key}'")[1] for key in ("chosen", "rejected")
    )
    return _choice(row, messages, chosen, rejected)


def _llmbar(row: Row) -> list[Parsed]:
    if isinstance(row.get("label"), bool) or row.get("label") not in (1, 2):
        raise BadRow(f"'label' is {shown(row.get('label'))}, not 1 or 2, the number of the better output")
    prompt: Prompt = [{"role": "user", "content": text_of(row, "input")}]
    pair = Pair(0, 1, 1.0 if row.get("label") == 1 else 0.0)
    return [Ranking(prompt, [text_of(row, "output_1"), text_of(row, "output_2")], [pair])]


def _oasst(row: Row) -> list[Parsed]:
    """Every message of a user with two or more ranked replies is a ranking; deleted replies do not count."""
    rankings: list[Parsed] = []
    pending: list[tuple[Any, list[Message]]] = [(row.get("prompt"), [])]
    while pending:
        node, before = pending.pop()
        if not isinstance(node, dict) or not isinstance(node.get("replies", []), list):
            raise BadRow("a message of the tree is not an object with a list of 'replies'")
        thread = [*before, message_of({"role": node.get("role"), "content": node.get("text")}, "a message of the tree")]
        replies = node.get("replies", [])
        pending += [(reply, thread) for reply in reversed(replies)]
        ranked = [r for r in replies if isinstance(r, dict) and r.get("rank") is not None and not r.get("deleted")]
        if thread[-1]["role"] == "user" and len(ranked) >= 2:
            ranks = [number_of(reply["rank"], "'rank'") for reply in ranked]
            answers = [text_of(reply, "text") for reply in ranked]
            provenance = {"judge": "people", "message_id": checked(node.get("message_id"), "message_id")}
            rankings.append(Ranking(thread, answers, pairs_from_ranks(ranks), provenance))
    return rankings


def _prompt(row: Row) -> list[Parsed]:
    prompt = prompt_of(row)
    if isinstance(prompt, str) and not prompt.strip():
        raise BadRow("'prompt' is empty")
    return [Only(prompt)]


def _is_hh(row: Row) -> bool:
    return all(isinstance(row.get(key), str) and row[key].startswith("\n\nHuman:") for key in ("chosen", "rejected"))


ANSWERS = "answers"  # that nobody has compared yet
FORMATS: tuple[Format, ...] = (  # the first that matches is taken, so the narrower stand first
    Format(
        "ranking",
        "prompt, responses, and pairs or ranks or scores",
        lambda row: _has("prompt", "responses")(row) and not row.keys().isdisjoint(("pairs", "ranks", "scores")),
        lambda row: [ranking_from_json(row)],
    ),
    Format(
        ANSWERS, "prompt, responses", _has("prompt", "responses"), lambda row: [ranking_from_json({**row, "pairs": []})]
    ),
    Format(
        "oasst",
        "message_tree_id, prompt with replies",
        lambda row: isinstance(row.get("prompt"), dict) and "replies" in row["prompt"],
        _oasst,
    ),
    Format(
        "llmbar", "input, output_1, output_2, label 1 or 2", _has("input", "output_1", "output_2", "label"), _llmbar
    ),
    Format(
        "argilla",
        "fields and responses by question, or QUESTION.responses with its users",
        is_argilla,
        lambda row: [*argilla(row)],
    ),
    Format(
        "label_studio",
        "data and annotations with pairwise or ranker results",
        is_label_studio,
        lambda row: [*label_studio(row)],
    ),
    Format(
        "sharegpt_dpo", "conversations, chosen, rejected", _has("conversations", "chosen", "rejected"), _sharegpt_dpo
    ),
    Format("preference", "prompt, chosen, rejected, or lists", _has("prompt", "chosen", "rejected"), _explicit),
    Format("hh", "chosen and rejected that begin with '\\n\\nHuman:'", _is_hh, _hh),
    Format("implicit_preference", "chosen, rejected", _has("chosen", "rejected"), _implicit),
    Format(
        "kto",
        "messages or conversations or prompt and completion, and label true or false",
        lambda row: (
            "label" in row
            and ("messages" in row or "conversations" in row or ("prompt" in row and "completion" in row))
        ),
        _kto,
    ),
    Format("sharegpt", "conversations of from and value", _has("conversations"), _conversation("conversations")),
    Format("messages", "messages of role and content", _has("messages"), _conversation("messages")),
    Format("self_instruct", "instruction, instances", _has("instruction", "instances"), _self_instruct),
    Format("alpaca", "instruction, output, and perhaps input", _has("instruction", "output"), _alpaca),
    Format("prompt_completion", "prompt, completion", _has("prompt", "completion"), _prompt_completion),
    Format("text", "text or full_text", lambda row: "text" in row or "full_text" in row, _text),
    Format("prompt", "prompt", _has("prompt"), _prompt),
)
