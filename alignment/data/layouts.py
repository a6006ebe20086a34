"""How a row of each layout of demonstrations and prompts is read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from alignment.data.calls import tools_of
from alignment.data.conversations import (
    carried_tools,
    carrying_tools,
    marked_messages_of,
    messages_of,
    with_system,
)
from alignment.data.demonstrations import demonstration_of, sampled_answer
from alignment.data.fields import BadRow, optional_text, text_of, whole_text
from alignment.data.keys import UnreadKey, unread
from alignment.data.rankings import prompt_of, provenance_of
from alignment.data.rows import Demonstration, Message, Prompt, Ranking
from alignment.data.thumbs import label_of

Row = dict[str, Any]
INPUT = "\n\n### Input:\n"  # between instruction and input, in Stanford Alpaca's prompt
DEMONSTRATION = ("instruction", "input", "output", "system", "history")


@dataclass(frozen=True, slots=True)
class Only:
    """A row that holds a prompt and no answer."""

    prompt: Prompt


Parsed = Demonstration | Ranking | Only


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


def instruction_of(row: Row, between: str = "\n") -> list[Message]:
    """Return the messages before an answer; `between` joins instruction and input."""
    extra = optional_text(row, "input")
    instruction = text_of(row, "instruction", empty=bool(extra.strip()))
    question = between.join(part for part in (instruction, extra) if part.strip())
    return _user(optional_text(row, "system"), row.get("history"), question)


def alpaca(row: Row) -> list[Parsed]:
    """A demonstration."""
    prompt = instruction_of(row)
    return [Demonstration(prompt, text_of(row, "output"))]


def stanford_alpaca(row: Row) -> list[Parsed]:
    """A demonstration whose input stands under a heading (https://github.com/tatsu-lab/stanford_alpaca, train.py)."""
    return [Demonstration(instruction_of(row, INPUT), text_of(row, "output"))]


def self_instruct(row: Row) -> list[Parsed]:
    """A demonstration for each instance."""
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise BadRow("'instances' is not a list of input and output")
    for index, one in enumerate(instances):
        if keys := unread(one, DEMONSTRATION):
            raise UnreadKey(f"'instances[{index}]' has {', '.join(keys)}, which is not read; expected input and output")
    return [parsed for one in instances for parsed in alpaca({**one, "instruction": row.get("instruction")})]


def conversation(key: str) -> Callable[[Row], list[Parsed]]:
    """Return the reader of a conversation under `key`."""

    def read(row: Row) -> list[Parsed]:
        messages = with_system(marked_messages_of(row, key), optional_text(row, "system"))
        messages, tools = carried_tools(carrying_tools(messages, tools_of(row)))
        if messages[-1]["role"] in ("user", "tool"):
            messages = with_system(messages_of(row, key), optional_text(row, "system"))
            return [Only(carrying_tools(messages, tools))]
        return [demonstration_of(messages, f"'{key}'", tools)]

    return read


def prompt_completion(row: Row) -> list[Parsed]:
    """A demonstration of text or messages."""
    completion, prompt = row.get("completion"), prompt_of(row, marked=True)
    tools = None
    if isinstance(prompt, list):
        prompt, tools = carried_tools(prompt)
    if isinstance(prompt, str) and not isinstance(completion, list):
        return [Demonstration(prompt, text_of(row, "completion"), tools)]
    before: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if isinstance(completion, list):
        turns = marked_messages_of(row, "completion")
    else:
        turns = [{"role": "assistant", "content": text_of(row, "completion")}]
    return [demonstration_of([*before, *turns], "'completion'", tools)]


def kto(row: Row) -> list[Parsed]:
    """A demonstration with the label of its answer."""
    label = label_of(row)
    key = next((key for key in ("messages", "conversations") if key in row), None)
    read = conversation(key) if key else alpaca if "instruction" in row else prompt_completion
    (parsed,) = read(row)
    if not isinstance(parsed, Demonstration):
        return [parsed]
    return [replace(parsed, desirable=label, sampled=sampled_answer(parsed, provenance_of(row, 1)))]


def text_alone(row: Row) -> list[Parsed]:
    """A demonstration without a prompt."""
    return [Demonstration("", text_of(row, "text" if "text" in row else "full_text"))]


def prompt_alone(row: Row) -> list[Parsed]:
    """A prompt."""
    prompt = prompt_of(row)
    if isinstance(prompt, str) and not prompt.strip():
        raise BadRow("'prompt' is empty")
    return [Only(prompt)]
