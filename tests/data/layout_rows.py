"""One row of each layout, as files hold it, and what it means, written by hand: messages, compared answers, prompts."""

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """Something to imitate: a conversation whose answers are learned but those of weight 0, or a text."""

    messages: list[Message] | None = None
    text: tuple[str, str] | None = None  # prompt and completion
    tools: Any = None


@dataclass(frozen=True)
class Compared:
    """Answers to one prompt, and which beats which, with what probability."""

    prompt: str | list[Message]
    answers: list[Any]  # text after a text, else messages
    pairs: list[tuple[int, int, float]]
    best: int = 0
    tools: Any = None


@dataclass(frozen=True)
class SingleVerdict:
    """A prompt without an answer to learn."""

    prompt: str | list[Message]
    tools: Any = None


@dataclass(frozen=True)
class Case:
    """A row and its meanings, one for each training row or ranking that it holds."""

    row: dict[str, Any]
    means: list[Shown | Compared | SingleVerdict]
    needs: frozenset[str] = field(default_factory=frozenset)  # of a chat template: system, tool, thought


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def shown(row: dict[str, Any], *messages: Message, tools: Any = None, needs: str = "") -> Case:
    return Case(row, [Shown(list(messages), tools=tools)], frozenset(needs.split()))


def text(row: dict[str, Any], prompt: str, completion: str) -> Case:
    return Case(row, [Shown(text=(prompt, completion))])


def compared(row: dict[str, Any], prompt: Any, good: Any, bad: Any, *, p: float = 1.0, tools: Any = None,
             needs: str = "") -> Case:  # fmt: skip
    answers = [good, bad] if isinstance(good, dict) or isinstance(prompt, str) else [assistant(good), assistant(bad)]
    return Case(row, [Compared(prompt, answers, [(0, 1, p)], tools=tools)], frozenset(needs.split()))


def asked(row: dict[str, Any], prompt: Any, *, tools: Any = None, needs: str = "") -> Case:
    return Case(row, [SingleVerdict(prompt, tools)], frozenset(needs.split()))


S = {"role": "system", "content": "Be kind."}
U, A = user("Two plus two?"), assistant("Four.")
U2, A2 = user("And three?"), assistant("Three, I say.")
BAD = assistant("Five, says one.")
SUM = "<think>\nsmall sum\n</think>\n\nFour."
HM = "<think>\nhm\n</think>\n\nFive."
THOUGHT, THOUGHT2 = assistant(SUM), assistant("<think>\nanother\n</think>\n\nThree.")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
CALLING = assistant("", tool_calls=[CALL])
RESULT = {"role": "tool", "content": "sunny"}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}]
AS_TEXT = {**CALLING, "tool_calls": [{**CALL, "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}]}
PERSON = "11111111-1111-1111-1111-111111111111"


def tree(role: str, words: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "text": words, "replies": list(replies), **more}


def sharegpt(*turns: tuple[str, str]) -> list[Message]:
    return [{"from": who, "value": words} for who, words in turns]


H, G = ("human", "Two plus two?"), ("gpt", "Four.")
FIVE = [user("Two plus two?"), BAD]
DEMONSTRATIONS = {
    "messages": shown({"messages": [U, A]}, U, A),
    "messages, several turns": shown({"id": 7, "messages": [U, A, U2, A2, U, A]}, U, A, U2, A2, U, A),
    "messages, system": shown({"messages": [S, U, A, U2, A2]}, S, U, A, U2, A2, needs="system"),
    "messages, developer": shown({"messages": [{**S, "role": "developer"}, U, A]}, S, U, A, needs="system"),
    "messages, system beside": shown({"system": "Be kind.", "messages": [U, A]}, S, U, A, needs="system"),
    "messages, parts": shown(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Two plus two?"}]}, A]}, U, A
    ),
    "messages, JSON text": shown({"messages": '[{"role": "user", "content": "Two plus two?"}, '
                                 '{"role": "assistant", "content": "Four."}]'}, U, A),
    "messages, weight": shown(
        {"messages": [U, {**A, "weight": 0}, U2, {**A2, "weight": 1}]}, U, assistant("Four.", weight=0), U2, A2
    ),
    "messages, train": shown(
        {"messages": [U, {**A, "train": True}, U2, {**A2, "train": False}]}, U, A
    ),
    "messages, loss": shown(
        {"messages": [U, {**A, "loss": False}, U2, A2, U, A]}, U, assistant("Four.", weight=0), U2, A2, U, A
    ),
    "messages, reasoning": shown({"messages": [U, THOUGHT]}, U, THOUGHT, needs="thought"),
    "messages, reasoning twice": shown({"messages": [U, THOUGHT, U2, THOUGHT2]}, U, THOUGHT, U2, THOUGHT2,
                                       needs="thought"),
    "messages, reasoning last": shown({"messages": [U, A, U2, THOUGHT2]}, U, A, U2, THOUGHT2, needs="thought half"),
    "messages, reasoning_content": shown(
        {"messages": [U, assistant("Four.", reasoning_content="small sum")]}, U, THOUGHT, needs="thought field"
    ),
    "messages, thinking": shown(
        {"messages": [U, assistant("Four.", thinking="small sum")]}, U, THOUGHT, needs="thought field"
    ),
    "messages, tools": shown(
        {"messages": [U, CALLING, RESULT, A], "tools": TOOLS}, U, CALLING, RESULT, A, tools=TOOLS, needs="tool"
    ),
    "messages, tools as text": shown(
        {"messages": [U, AS_TEXT, {**RESULT, "tool_call_id": "c1"}, A], "tools": '[{"type": "function", "function": '
         '{"name": "weather", "description": "d", "parameters": {"type": "object"}}}]'},
        U, CALLING, {**RESULT, "tool_call_id": "c1"}, A, tools=TOOLS, needs="tool"
    ),
    "messages, call last": shown({"messages": [U, CALLING], "tools": TOOLS}, U, CALLING, tools=TOOLS, needs="tool"),
    "messages, call without tools": shown({"messages": [U, CALLING, RESULT, A]}, U, CALLING, RESULT, A,
                                          needs="tool alone"),
    "messages, system and tools": shown(
        {"messages": [S, U, CALLING, RESULT, A], "tools": TOOLS}, S, U, CALLING, RESULT, A, tools=TOOLS,
        needs="tool system"
    ),
    "sharegpt": shown({"conversations": sharegpt(H, G)}, U, A),
    "sharegpt, system": shown({"system": "Be kind.", "conversations": sharegpt(H, G)}, S, U, A, needs="system"),
    "sharegpt, roles": shown({"conversations": [U, A, U2, A2]}, U, A, U2, A2),
    "sharegpt, calls": shown(
        {"conversations": sharegpt(H, ("function_call", '{"name": "weather", "arguments": {"town": "Ulm"}}'),
                                   ("observation", "sunny"), G), "tools": TOOLS},
        U, {**CALLING, "tool_calls": [{k: v for k, v in CALL.items() if k != "id"}]}, RESULT, A, tools=TOOLS,
        needs="tool"
    ),
    "alpaca": shown({"instruction": "Two plus", "input": "two?", "output": "Four."}, user("Two plus\ntwo?"), A),
    "alpaca, no input": shown({"instruction": "Two plus two?", "input": "", "output": "Four."}, U, A),
    "alpaca, system": shown({"instruction": "Two plus two?", "output": "Four.", "system": "Be kind."}, S, U, A,
                            needs="system"),
    "alpaca, history": shown(
        {"instruction": "And three?", "output": "Three, I say.", "history": [["Two plus two?", "Four."]]}, U, A, U2, A2
    ),
    "self-instruct": Case(
        {"instruction": "Add", "instances": [{"input": "1 1", "output": "Two."}, {"input": "", "output": "So?"}]},
        [Shown([user("Add\n1 1"), assistant("Two.")]), Shown([user("Add"), assistant("So?")])],
    ),
    "prompt and completion": text({"prompt": "Two plus two:", "completion": " Four."}, "Two plus two:", " Four."),
    "prompt and completion, system": shown(
        {"prompt": "Two plus two?", "completion": "Four.", "system": "Be kind."}, S, U, A, needs="system"
    ),
    "prompt and completion, messages": shown({"prompt": [U], "completion": [A]}, U, A),
    "prompt and completion, turns": shown({"prompt": [U], "completion": [A, U2, A2]}, U, A, U2, A2),
    "prompt and completion, tools": shown({"prompt": [U], "completion": [CALLING], "tools": TOOLS}, U, CALLING,
                                          tools=TOOLS, needs="tool"),
    "text": text({"text": "Once upon a time."}, "", "Once upon a time."),
    "full_text": text({"full_text": "Once upon a time."}, "", "Once upon a time."),
    "kto, messages": shown({"messages": [U, A], "label": True}, U, A),
    "kto, conversations": shown({"conversations": sharegpt(H, G), "label": True}, U, A),
    "kto, text": text({"prompt": "Two plus two:", "completion": " Four.", "label": True}, "Two plus two:", " Four."),
}  # fmt: skip
PAIR = {"chosen": "Four.", "rejected": BAD["content"]}
COMPARISONS = {
    "preference, text": compared({"prompt": "Two plus two:", "chosen": " Four.", "rejected": " Five."},
                                 "Two plus two:", " Four.", " Five."),
    "preference, probability": compared(
        {"prompt": "Two plus two:", "chosen": " Four.", "rejected": " Five.", "probability": 0.75, "margin": 1},
        "Two plus two:", " Four.", " Five.", p=0.75),
    "preference, messages": compared({"prompt": [U], "chosen": [A], "rejected": [BAD]}, [U], A, BAD),
    "preference, prompt and answers": compared({"prompt": [U, A, U2], **PAIR}, [U, A, U2], A, BAD),
    "preference, conversations": compared(
        {"prompt": "Two plus two?", "chosen": [U, A], "rejected": FIVE, "score_chosen": 2.0, "score_rejected": 1.0},
        [U], A, BAD),
    "preference, system": compared({"system": "Be kind.", "prompt": "Two plus two?", **PAIR}, [S, U], A, BAD,
                                   needs="system"),
    "preference, tools": compared({"prompt": [U], "chosen": [CALLING], "rejected": [BAD], "tools": TOOLS}, [U], CALLING,
                                  BAD, tools=TOOLS, needs="tool"),
    "preference, reasoning": compared({"prompt": [U], "chosen": SUM, "rejected": HM}, [U], SUM, HM, needs="thought"),
    "preference, lists": Case(
        {"prompt": [U], "chosen": ["Four."], "rejected": ["Five, says one.", "Six."]},
        [Compared([U], [A, BAD, assistant("Six.")], [(0, 1, 1.0), (0, 2, 1.0)])],
    ),
    "alpaca_preference": compared(
        {"instruction": "Two plus", "input": "two?", "system": "Be kind.", "chosen": "Four.",
         "rejected": "Five, says one."}, [S, {"role": "user", "content": "Two plus\ntwo?"}], A, BAD, needs="system"),
    "implicit, text": compared({"chosen": "Two plus two: Four.", "rejected": "Two plus two: Five."}, "Two plus two:",
                               " Four.", " Five."),
    "implicit, messages": compared({"chosen": [S, U, A, U2, A2], "rejected": [S, U, A, U2, BAD]}, [S, U, A, U2], A2,
                                   BAD, needs="system"),
    "hh": compared({"chosen": "\n\nHuman: Two plus two?\n\nAssistant: Four.",
                    "rejected": "\n\nHuman: Two plus two?\n\nAssistant: Five, says one."}, [U], A, BAD),
    "sharegpt_dpo": compared(
        {"conversations": sharegpt(H), "chosen": {"from": "gpt", "value": "Four."},
         "rejected": {"from": "gpt", "value": BAD["content"]}}, [U], A, BAD),
    "sharegpt_dpo, system": compared(
        {"conversations": sharegpt(H, G, ("human", "And three?")), "chosen": {"from": "gpt", "value": "Three, I say."},
         "rejected": {"from": "gpt", "value": BAD["content"]}, "system": "Be kind."}, [S, U, A, U2], A2, BAD,
        needs="system"),
    "ranking, pairs": Case(
        {"prompt": [U], "responses": ["Five, says one.", "Four."],
         "pairs": [{"first": 0, "second": 1, "probability": 0.25, "status": "ok"}]},
        [Compared([U], [BAD, A], [(1, 0, 0.75)], best=1)],
    ),
    "ranking, ranks": Case(
        {"prompt": [U], "responses": ["Six.", "Four."], "ranks": [2, 1]},
        [Compared([U], [assistant("Six."), A], [(1, 0, 1.0)], best=1)],
    ),
    "ranking, scores": Case(
        {"prompt": "Two plus two:", "responses": [" Six.", " Four."], "scores": [0.5, 2]},
        [Compared("Two plus two:", [" Six.", " Four."], [(1, 0, 1.0)], best=1)],
    ),
    "oasst": Case(
        {"message_tree_id": "m", "tree_state": "ready_for_export", "prompt": tree(
            "prompter", "Two plus two?",
            tree("assistant", "Four.", tree("prompter", "And three?", tree("assistant", "Three, I say.", rank=0),
                                            tree("assistant", "Six.", rank=1)), rank=0),
            tree("assistant", "Five, says one.", rank=1))},
        [Compared([U], [A, BAD], [(0, 1, 1.0)]), Compared([U, A, U2], [A2, assistant("Six.")], [(0, 1, 1.0)])],
    ),
    "numbered": compared(
        {"prompt": [U], "response_0": BAD["content"], "response_1": A["content"], "better": 1}, [U], A, BAD
    ),
    "graded": Case(
        {"prompt": "Two plus two:", "response_1": " Six.", "response_2": " Four.", "preference_strength": 2},
        [Compared("Two plus two:", [" Six.", " Four."], [(1, 0, 1.0)], best=1)],
    ),
    "arena": Case(
        {"conversation_a": [U, BAD], "conversation_b": [U, A], "winner": "model_b"},
        [Compared([U], [BAD, A], [(1, 0, 1.0)], best=1)],
    ),
    "openai_preference": compared(
        {"input": {"messages": [S, U], "parallel_tool_calls": True}, "preferred_output": [A],
         "non_preferred_output": [BAD]}, [S, U], A, BAD, needs="system"),
    "messages, alternating texts": shown({"messages": [U["content"], A["content"]]}, U, A),
    "messages, inputs and outputs": shown({"messages": [{"input": U["content"], "output": A["content"]}]}, U, A),
    "llmbar": compared({"input": "Two plus two?", "output_1": BAD["content"], "output_2": "Four.", "label": 2}, [U], A,
                       BAD),
    "argilla": compared(
        {"id": "r", "status": "completed", "fields": {"prompt": "Two plus two?", "response1": "Four.",
         "response2": BAD["content"]},
         "responses": {"best": [{"value": ["response1", "response2"], "user_id": PERSON, "status": "submitted"}]}},
        [U], A, BAD),
    "argilla, flat": compared(
        {"id": "r", "status": "completed", "instruction": "Two plus two?", "system": "Be kind.", "a": "Four.",
         "b": BAD["content"], "best.responses": ["a"], "best.responses.users": [PERSON],
         "best.responses.status": ["submitted"]}, [S, U], A, BAD, needs="system"),
    "label studio": compared(
        {"id": 1, "data": {"prompt": "Two plus two?", "answer1": BAD["content"], "answer2": "Four."}, "annotations": [
            {"id": 1, "completed_by": 3, "was_cancelled": False, "result": [
                {"id": "x", "type": "pairwise", "value": {"selected": "right"}, "to_name": "answer1,answer2",
                 "from_name": "comparison"}]}]}, [U], A, BAD),
}  # fmt: skip
PROMPTS = {
    "prompt": asked({"prompt": "Two plus two:"}, "Two plus two:"),
    "prompt, messages": asked({"prompt": [U, A, U2]}, [U, A, U2]),
    "prompt, system": asked({"prompt": "Two plus two?", "system": "Be kind."}, [S, U], needs="system"),
    "prompt, tools": asked({"prompt": [U], "tools": TOOLS}, [U], tools=TOOLS, needs="tool"),
    "messages that end with the user": asked({"messages": [U, A, U2]}, [U, A, U2]),
    "messages that end with a tool": asked({"messages": [U, CALLING, RESULT], "tools": TOOLS}, [U, CALLING, RESULT],
                                           tools=TOOLS, needs="tool"),
    "kto, a thumb down": asked({"messages": [U, BAD], "label": False}, [U]),
    "answers": asked({"prompt": [U], "responses": ["Four.", "Five."]}, [U]),
}  # fmt: skip
CASES = {**DEMONSTRATIONS, **COMPARISONS, **PROMPTS}
