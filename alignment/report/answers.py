"""Answers side by side, from an evaluation's examples or, without one, from a run's samples over its steps."""

from dataclasses import dataclass
from typing import Any

from alignment.report.charts import number
from alignment.report.reading import Run
from alignment.report.wording import label, percent

LONGEST = 4_000  # characters of one answer or prompt on the page
SAMPLED_PROMPTS = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """One column: a policy's name, its answer, and the judges' scores."""

    who: str
    tone: str  # the policy's colour
    text: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its answers."""

    prompt: list[tuple[str, str]]  # role ("" for plain text) and text
    answers: list[Answer]


def from_evaluation(run: Run, tones: dict[str, str]) -> list[Example]:
    """Lay out examples.jsonl; rows of another shape are left out."""
    examples = []
    for row in run.examples:
        texts = row.get("answers")
        if not isinstance(texts, dict) or not texts:
            continue
        answers = [
            Answer(label(str(who)), tones.get(str(who), "other"), _cut(text), _notes(row, str(who)))
            for who, text in texts.items()
        ]
        examples.append(Example(_prompt(row.get("prompt")), answers))
    return examples


def from_samples(run: Run) -> list[Example]:
    """Set each prompt's first sample beside its last; rows of another shape are left out."""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in run.samples:
        answer = _answer(row)
        if answer is not None:
            by_prompt.setdefault(repr(row.get("prompt")), []).append({**row, "answer": answer})
    examples = []
    for rows in list(by_prompt.values())[:SAMPLED_PROMPTS]:
        first, last = rows[0], rows[-1]
        shown = [first] if first is last else [first, last]
        tones = ["baseline", run.name]
        answers = [
            Answer(f"step {row.get('step', '?')}", tone, _cut(row["answer"]), _score(row))
            for row, tone in zip(shown, tones, strict=False)
        ]
        examples.append(Example(_prompt(first.get("prompt")), answers))
    return examples


def _answer(row: dict[str, Any]) -> str | None:
    found = next((row[key] for key in ("answer", "completion", "response") if key in row), None)
    return found if isinstance(found, str) else None


def _score(row: dict[str, Any]) -> list[str]:
    score = row.get("score")
    return [f"reward {number(score)}"] if isinstance(score, int | float) else []


def _notes(row: dict[str, Any], who: str) -> list[str]:
    notes = []
    tokens, score = _of(row, "tokens", who), _of(row, "scores", who)
    if isinstance(tokens, int | float):
        notes.append(f"{tokens} tokens")
    if isinstance(score, int | float):
        notes.append(f"reward {number(score)}")
    verdicts = row.get("verdicts")
    for judge, by_candidate in verdicts.items() if isinstance(verdicts, dict) else []:
        if isinstance(by_candidate, dict) and who in by_candidate:
            notes.append(f"{judge}: {_preference(by_candidate[who])}")
    return notes


def _preference(probability: object) -> str:
    if not isinstance(probability, int | float):
        return "no verdict"
    if probability == 0.5:
        return "tie"
    return f"{'better' if probability > 0.5 else 'worse'} ({percent(probability)})"


def _of(row: dict[str, Any], key: str, who: str) -> object:
    found = row.get(key)
    return found.get(who) if isinstance(found, dict) else None


def _prompt(prompt: object) -> list[tuple[str, str]]:
    if isinstance(prompt, list):
        return [(str(m.get("role", "")), _cut(m.get("content", ""))) for m in prompt if isinstance(m, dict)]
    return [("", _cut(prompt if prompt is not None else ""))]


def _cut(text: object) -> str:
    words = str(text)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} … ({len(words) - LONGEST} more characters)"
