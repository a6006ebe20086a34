"""Readers of the layouts of compared answers."""

import re
from typing import Any

from alignment.data.answers import is_empty, require_readable, text_of_answer
from alignment.data.calls import tools_of
from alignment.data.conversations import (
    carrying_tools,
    common_prompt,
    message_of,
    messages_of,
    parse_hh,
    split_answer,
    with_system,
)
from alignment.data.fields import BadRow, checked, optional_text, text_of, whole_text
from alignment.data.keys import UnreadKey, plain_name, refuse_unread_of
from alignment.data.layouts import Parsed, Row, instruction_of
from alignment.data.rankings import (
    RATINGS,
    margin_of,
    number_of,
    pairs_from_ranks,
    probability_of,
    prompt_of,
    require_comparable,
)
from alignment.data.rows import REASONING_FIELD, Message, Pair, Prompt, Ranking
from alignment.strict_json import shown

_MEASURES = ("reward", "rewards", "score", "scores", "rating", "quality", "votes", "upvotes", "win_rate", "rank")
_NODE = ("role", "text", "replies", "rank", "deleted", "message_id")
_NODE_NOTES = ("labels", "review_result", "synthetic", "events")


_HEADER = re.compile(r"^[ \t]*(#+[ \t]*)?(Human|User|Assistant|System)[ \t]*[:：]", re.MULTILINE)


def choice(
    row: Row,
    prompt: Prompt,
    better: str | Message,
    worse: str | Message,
    names: tuple[str, str] = ("chosen", "rejected"),
) -> list[Parsed]:
    """Return the ranking of two answers, with the `probability`, margin and ratings that `row` has.

    Args:
        names: the keys that hold the answers, for messages.
    """
    chosen, rejected = (one if isinstance(one, str) else text_of_answer(one) for one in (better, worse))
    if chosen == rejected and row.get("probability") != 0.5:
        raise BadRow(f"'{names[0]}' and '{names[1]}' are the same answer, so neither is preferred")
    for key, text in zip(names, (chosen, rejected), strict=True):
        if is_empty(text):
            raise BadRow(
                f"'{key}' is an empty answer after its reasoning; write the answer behind it, or take the row out"
            )
    probability = 1.0
    if row.get("probability") is not None:
        probability = probability_of(row["probability"], "'probability'")
    margin = margin_of(row.get("margin"), "'margin'")
    for high, low in RATINGS:
        if margin is None and row.get(high) is not None and row.get(low) is not None:
            margin = number_of(row[high], f"'{high}'") - number_of(row[low], f"'{low}'")
            if margin < 0:
                raise BadRow(f"'{high}' {row[high]} is below '{low}' {row[low]}, so the choice contradicts the ratings")
    _refuse_contradicted(row)
    pair = Pair(0, 1, probability, "tie" if probability == 0.5 else "ok", margin)
    reasoned = [not isinstance(one, str) and "reasoning" in one for one in (better, worse)]
    for key, text, has_reasoning in zip(names, (chosen, rejected), reasoned, strict=True):
        if has_reasoning:
            require_readable(text, f"'{key}'")
    return [Ranking(prompt, [chosen, rejected], [pair], {REASONING_FIELD: reasoned} if any(reasoned) else {})]


def _refuse_contradicted(row: Row) -> None:
    """Refuse numbers that were recorded of both answers and prefer the rejected one; only `RATINGS` become margins."""
    found = {plain_name(key): key for key in row if "chosen" in key or "rejected" in key}
    for measure in _MEASURES:
        for better, worse in (
            (f"chosen_{measure}", f"rejected_{measure}"),
            (f"{measure}_chosen", f"{measure}_rejected"),
        ):
            values = [row[found[name]] for name in (better, worse) if name in found]
            numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
            if len(numbers) == 2 and (numbers[0] > numbers[1] if measure == "rank" else numbers[0] < numbers[1]):
                raise BadRow(
                    f"'{found[better]}' {numbers[0]} and '{found[worse]}' {numbers[1]} prefer the rejected answer, so "
                    "the choice contradicts them"
                )


def preference(row: Row) -> list[Parsed]:
    """A choice of two beside their prompt, or of several."""
    if any(_several(row.get(key)) for key in ("chosen", "rejected")):
        return _several_choices(row)
    if not isinstance(row.get("chosen"), list):
        return choice(row, prompt_of(row), text_of(row, "chosen"), text_of(row, "rejected"))
    chosen, rejected = messages_of(row, "chosen"), messages_of(row, "rejected")
    if chosen[0]["role"] == "assistant":
        prompt = prompt_of(row)
        before: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        chosen, rejected = [*before, *chosen], [*before, *rejected]
    elif row.get("prompt") is not None:
        _require_same_prompt(prompt_of({"prompt": row["prompt"]}), chosen)
    return parting(row, chosen, rejected)


def _require_same_prompt(prompt: Prompt, chosen: list[Message]) -> None:
    """Refuse a prompt that the conversation in `chosen` does not hold, for only the conversation is read."""
    if isinstance(prompt, str):
        same = any(message["content"].strip() == prompt.strip() for message in chosen)
    else:
        same = chosen[: len(prompt)] == prompt
    if not same:
        raise BadRow("'prompt' differs from what 'chosen' begins with; give the answers alone, or one prompt")


def parting(row: Row, chosen: list[Message], rejected: list[Message]) -> list[Parsed]:
    """Read two conversations that begin alike, with the row's `system` and `tools`."""
    prompt, good, bad = common_prompt(chosen, rejected)
    prompt = with_system(prompt, optional_text(row, "system"))
    return choice(row, carrying_tools(prompt, tools_of(row)), good, bad)


def _several(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _several_choices(row: Row) -> list[Parsed]:
    """Read lists of good and of bad answers: each good one beats each bad one; equals are not compared."""
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


def implicit_preference(row: Row) -> list[Parsed]:
    """A choice of two that begin with their prompt."""
    if isinstance(row.get("chosen"), list):
        return parting(row, messages_of(row, "chosen"), messages_of(row, "rejected"))
    for key in ("system", "tools"):
        if row.get(key):
            raise UnreadKey(f"'{key}' goes before messages, and 'chosen' and 'rejected' are text; give a prompt too")
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
            raise BadRow(f"'{key}' is an empty answer: it has no text after the shared part")
    for key, answer in zip(("chosen", "rejected"), answers, strict=True):
        _refuse_turns(prompt, answer, key)
    return choice(row, prompt, *answers)


def _refuse_turns(prompt: str, answer: str, key: str) -> None:
    """Refuse an answer in which the transcript of its prompt goes on: turns of the other speaker would be trained."""
    found = _HEADER.search(answer)
    if found and _HEADER.search(prompt):
        raise BadRow(
            f"'{key}' goes on with {shown(found[0].strip())} behind the place where the answers part, and a comparison "
            "is of one answer; write messages, or cut both texts after that answer"
        )


def hh(row: Row) -> list[Parsed]:
    """A choice of two transcripts of Anthropic HH."""
    chosen, rejected = (parse_hh(text_of(row, key), f"'{key}'") for key in ("chosen", "rejected"))
    return parting(row, chosen, rejected)


def is_alpaca_preference(row: Row) -> bool:
    """Whether a row has an instruction with two answers, and no other prompt."""
    others = ("prompt", "messages", "conversations")
    return {"instruction", "chosen", "rejected"} <= row.keys() and row.keys().isdisjoint(others)


def alpaca_preference(row: Row) -> list[Parsed]:
    """A choice of two answers to an instruction, as chat; a line break joins instruction and input."""
    return choice(row, instruction_of(row), text_of(row, "chosen"), text_of(row, "rejected"))


def answers_a_conversation(row: Row) -> bool:
    """Whether a row has a conversation apart from two answers to it, or an answered one and a rejected answer."""
    if "chosen" in row and "rejected" in row and "conversations" in row:
        return True
    if "messages" not in row or "rejected" not in row or "prompt" in row:
        return False
    return all(_is_answer(row[key]) for key in ("chosen", "rejected") if key in row)


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) == 1 and isinstance(value[0], dict)
    return isinstance(value, dict) or (
        isinstance(value, str) and not value.lstrip().startswith(("Human:", "Assistant:"))
    )


def sharegpt_dpo(row: Row) -> list[Parsed]:
    """A choice of two messages that answer a conversation; without `chosen`, its last message is the better one."""
    key = "conversations" if row.get("conversations") is not None else "messages"
    messages = with_system(messages_of(row, key), optional_text(row, "system"))
    messages = carrying_tools(messages, tools_of(row))
    better = _answer(row, "chosen") if "chosen" in row else messages.pop()
    if not messages or (messages[-1]["role"] == "assistant" and "chosen" in row):
        raise BadRow(f"'{key}' ends with a message of the assistant, so there is nothing to answer")
    chosen, rejected = (
        split_answer([*messages, answer], f"'{side}'")[1]
        for side, answer in (("chosen", better), ("rejected", _answer(row, "rejected")))
    )
    return choice(row, messages, chosen, rejected)


def _answer(row: Row, key: str) -> Message:
    """Return a row's answer as a message: it is one, a list of one, or text."""
    if isinstance(row.get(key), list):
        return messages_of(row, key)[-1]
    if isinstance(row.get(key), str):
        return {"role": "assistant", "content": text_of(row, key)}
    return message_of(row.get(key), f"'{key}'")


def llmbar(row: Row) -> list[Parsed]:
    """A choice of two outputs by the number of the better one."""
    if isinstance(row.get("label"), bool) or row.get("label") not in (1, 2):
        raise BadRow(f"'label' is {shown(row.get('label'))}, not 1 or 2, the number of the better output")
    prompt: Prompt = [{"role": "user", "content": text_of(row, "input")}]
    pair = Pair(0, 1, 1.0 if row.get("label") == 1 else 0.0)
    return [Ranking(prompt, [text_of(row, "output_1"), text_of(row, "output_2")], [pair])]


def numbered(row: Row) -> list[Parsed]:
    """A choice of two responses by the number of the better one, 0 or 1."""
    better = row.get("better")
    if isinstance(better, bool) or better not in (0, 1, "0", "1"):
        raise BadRow(f"'better' is {shown(better)}, not 0 or 1, the number of the better response")
    answers = [text_of(row, "response_0"), text_of(row, "response_1")]
    if answers[0] == answers[1]:
        raise BadRow("'response_0' and 'response_1' are the same answer, so neither is preferred")
    return [Ranking(prompt_of(row), answers, [Pair(0, 1, 1.0 - int(better))])]


def oasst(row: Row) -> list[Parsed]:
    """Every message of a user with two or more ranked replies is a ranking; deleted replies do not count."""
    rankings: list[Parsed] = []
    pending: list[tuple[Any, list[Message]]] = [(row.get("prompt"), [])]
    while pending:
        node, before = pending.pop()
        if not isinstance(node, dict) or not isinstance(node.get("replies", []), list):
            raise BadRow("a message of the tree is not an object with a list of 'replies'")
        refuse_unread_of(node, "a message of the tree", _NODE, _NODE_NOTES)
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
