"""The layouts of judgements that other projects write, and of our evaluations; each is recognised by its keys."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignment.config.schema.require import PERSON
from alignment.data.fields import BadRow
from alignment.data.splits import prompt_key
from alignment.standings.battles import Battle, Orders
from alignment.strict_json import shown

Row = Mapping[str, Any]
FAILED = "failed"
ALPACA_EVAL = "AlpacaEval's annotations"
JUDGEBENCH_SECTIONS = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
DECISIONS = {"A>B": 1.0, "A=B": 0.5, "B>A": 0.0}
ARENA_WINNERS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5, "both_bad": 0.5}


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout of judgements."""

    name: str  # in messages
    keys: str  # what a row must have, for messages
    matches: Callable[[Row], bool]
    read: Callable[[Row], list[Battle]]  # without a cluster where a row has no prompt; raises `BadRow`


def layout_of(row: object) -> Layout | None:
    """Return the layout whose keys a row has."""
    return next((each for each in LAYOUTS if isinstance(row, dict) and each.matches(row)), None)


def alpaca_eval(row: Row) -> list[Battle]:
    """A row of `annotations.json`; `preference` is 1 plus the probability that `output_2` is better, 0 a draw."""
    second, first = _name(row, "generator_1"), _name(row, "generator_2")
    preference, judge = row["preference"], row.get("annotator", "annotations")
    if not isinstance(judge, str):
        raise BadRow(f"'annotator' is {shown(judge)}, not a name")
    texts = [row.get(key) for key in ("output_2", "output_1")]
    lengths = (len(texts[0]), len(texts[1])) if all(isinstance(text, str) for text in texts) else None  # type: ignore[arg-type]
    instruction = _text(row, "instruction")
    battle = Battle(
        prompt_key(instruction), first, second, None, judge, FAILED, lengths, "one", subset=_subset(row, "dataset")
    )
    if preference is None:
        return [battle]
    if isinstance(preference, bool) or not isinstance(preference, int | float) or not _is_preference(preference):
        raise BadRow(
            f"'preference' is {shown(preference)}, not a number from 1 (output_1) to 2 (output_2), or 0, a draw"
        )
    return [_decided(battle, 0.5 if preference == 0 else float(preference) - 1)]


def _is_preference(value: float) -> bool:
    return math.isfinite(value) and (value == 0 or 1 <= value <= 2)


def judgebench(row: Row) -> list[Battle]:
    """A row of JudgeBench's outputs: a decision for each order, the second of the swapped question.

    As in its metrics, a decision that is missing in one order leaves the other one to count.
    """
    judgments = row["judgments"]
    if not isinstance(judgments, list) or not 1 <= len(judgments) <= 2:
        raise BadRow("'judgments' is not a list of one or two judgments, one for each order")
    found: list[float | None] = []
    for place, each in enumerate(judgments):
        decision = each.get("decision") if isinstance(each, dict) else each
        if decision is not None and not _one_of(decision, DECISIONS):
            raise BadRow(f"'judgments[{place}].decision' is {shown(decision)}, not A>B, B>A, A=B or null")
        value = None if decision is None else DECISIONS[decision]
        found.append(value if place == 0 or value is None else 1 - value)
    label = row.get("label")
    if label is not None and not _one_of(label, DECISIONS):
        raise BadRow(f"'label' is {shown(label)}, not A>B or B>A")
    source = _subset(row, "source")
    section = next((known for known in JUDGEBENCH_SECTIONS if source.startswith(known)), source)
    first, second = _text(row, "response_A"), _text(row, "response_B")
    battle = Battle(
        prompt_key(_text(row, "question")), "response_A", "response_B", None, _judgebench_judge(row), FAILED,
        (len(first), len(second)), subset=section, correct=None if label is None else DECISIONS[label],
    )  # fmt: skip
    return [_of_orders(battle, found)]


def _judgebench_judge(row: Row) -> str:
    """Return the judge and its model, or "" where no judgment names the model, because all calls failed."""
    details = [each.get("judgment") for each in row["judgments"] if isinstance(each, dict)]
    models = [each["judge_model"] for each in details if isinstance(each, dict) and each.get("judge_model")]
    return " ".join(str(name) for name in (row.get("judge_name"), models[0]) if name) if models else ""


def mt_bench(row: Row) -> list[Battle]:
    """A row of FastChat's pairwise judgments: `g1_winner` in one order, `g2_winner` in the other.

    As in its show_result.py, two orders that differ in any way are a tie, and one that failed leaves none to count.
    """
    values: list[float | None] = []
    for key in ("g1_winner", "g2_winner"):
        if key not in row:
            continue
        winner = row[key]
        if not _one_of(winner, ("model_1", "model_2", "tie", "error")):
            raise BadRow(f"{key!r} is {shown(winner)}, not model_1, model_2, tie or error")
        values.append({"model_1": 1.0, "model_2": 0.0, "tie": 0.5}.get(winner))
    asked = row.get("question_id")
    battle = Battle(
        "" if asked is None else str(asked), _name(row, "model_1"), _name(row, "model_2"), None, _judge(row), FAILED,
        subset=_turn(row),
    )  # fmt: skip
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return [battle]
    if len(known) == 1:
        return [_decided(battle, known[0], "one")]
    same = known[0] == known[1]
    return [_decided(battle, known[0] if same else 0.5, "both", same)]


def arena(row: Row) -> list[Battle]:
    """A row of Chatbot Arena's battles or of MT-bench's human judgments; a judge that is one name is a person."""
    winner = row["winner"]
    if not _one_of(winner, ARENA_WINNERS):
        raise BadRow(f"'winner' is {shown(winner)}, not {', '.join(ARENA_WINNERS)}")
    talks = [row.get(key) for key in ("conversation_a", "conversation_b")]
    asked, lengths = row.get("question_id"), None
    if all(isinstance(talk, list) and talk for talk in talks):
        words = [[str(turn.get("content", "")) for turn in talk if isinstance(turn, dict)] for talk in talks]  # type: ignore[union-attr]
        lengths = (len(words[0][-1]), len(words[1][-1])) if all(words) else None
        asked = words[0][0] if words[0] and asked is None else asked
    judge = row.get("judge")
    name = " ".join(map(str, judge)) if isinstance(judge, list) else f"{PERSON}{judge or 'voter'}"
    battle = Battle(
        "" if asked is None else prompt_key(str(asked)), _name(row, "model_a"), _name(row, "model_b"), None, name,
        FAILED, lengths, "one", subset=_turn(row) or _subset(row, "language"),
    )  # fmt: skip
    return [_decided(battle, ARENA_WINNERS[winner])]


def evaluation(row: Row) -> list[Battle]:
    """A row of our `answers.jsonl`: by judge and candidate the probability that its answer beats the baseline's."""
    answers, verdicts, prompt = row["answers"], row["verdicts"], row["prompt"]
    if not is_prompt(prompt):
        raise BadRow(f"'prompt' is {shown(prompt)}, not text or messages of role and content")
    if broken := next((judge for judge, by in verdicts.items() if not isinstance(by, dict)), None):
        raise BadRow(f"'verdicts' of {shown(broken)} are {shown(verdicts[broken])}, not probabilities by candidate")
    candidates = list(dict.fromkeys(name for by in verdicts.values() for name in by))
    others = [name for name in answers if name not in candidates]
    if not candidates:
        return []
    if len(others) != 1 or any(name not in answers for name in candidates):
        raise BadRow(
            f"'answers' are of {shown(list(answers))} and 'verdicts' on {shown(candidates)}; all but one answer, the "
            "baseline's, must have verdicts"
        )
    found = []
    for judge, by in verdicts.items():
        for name, probability in by.items():
            texts = [answers[name], answers[others[0]]]
            if not all(isinstance(text, str) for text in texts):
                raise BadRow("'answers' must be texts, by policy")
            lengths = (len(texts[0]), len(texts[1]))
            battle = Battle(
                prompt_key(prompt), name, others[0], None, judge, FAILED, lengths, "both",
                subset=_subset(row, "subset"),
            )  # fmt: skip
            found.append(battle if probability is None else _decided(battle, _probability(probability, judge)))
    return found


def _probability(value: Any, judge: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRow(f"the verdict of {shown(judge)} is {shown(value)}, not a probability from 0 to 1")
    return float(value)


def _decided(
    battle: Battle, probability: float, orders: Orders | None = None, consistent: bool | None = None
) -> Battle:
    status = "tie" if probability == 0.5 else "ok"
    return replace(
        battle, probability=probability, status=status, orders=orders or battle.orders, consistent=consistent
    )


def _of_orders(battle: Battle, values: Sequence[float | None]) -> Battle:
    """Combine the verdicts of the orders, each a probability that the first model's answer is better."""
    known = [value for value in values if value is not None]
    if not known:
        return battle
    if len(known) == 1:
        return _decided(battle, known[0], "one")
    return _decided(battle, sum(known) / 2, "both", known[0] == known[1])


def _judge(row: Row) -> str:
    judge = row.get("judge", "judge")
    return " ".join(map(str, judge)) if isinstance(judge, list) else str(judge)


def _turn(row: Row) -> str:
    return f"turn {row['turn']}" if isinstance(row.get("turn"), int) else ""


def _subset(row: Row, key: str) -> str:
    value = row.get("subset", row.get(key))
    return value if isinstance(value, str) else ""


def _text(row: Row, key: str) -> str:
    if not isinstance(row.get(key), str):
        raise BadRow(f"{key!r} is {shown(row.get(key))}, not text")
    return str(row[key])


def _name(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{key!r} is {shown(value)}, not the name of a model")
    return value


def _one_of(value: object, known: Collection[str]) -> bool:
    return isinstance(value, str) and value in known


def is_prompt(value: object) -> bool:
    """Whether a value is text or messages."""
    return isinstance(value, str) or (
        isinstance(value, list)
        and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) and "role" in turn for turn in value)
    )


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


def _is_evaluation(row: Row) -> bool:
    return "prompt" in row and isinstance(row.get("answers"), dict) and isinstance(row.get("verdicts"), dict)


LAYOUTS = (  # the first match counts
    Layout(
        ALPACA_EVAL, "instruction, generator_1, generator_2, preference",
        _has("preference", "generator_1", "generator_2"), alpaca_eval,
    ),
    Layout(
        "JudgeBench's outputs", "question, response_A, response_B, judgments",
        _has("response_A", "response_B", "judgments"), judgebench,
    ),
    Layout("our evaluation's answers", "prompt, answers, verdicts", _is_evaluation, evaluation),
    Layout(
        "FastChat's pairwise judgments", "question_id, model_1, model_2, g1_winner, g2_winner",
        _has("model_1", "model_2", "g1_winner"), mt_bench,
    ),
    Layout("arena battles", "model_a, model_b, winner", _has("model_a", "model_b", "winner"), arena),
)  # fmt: skip
