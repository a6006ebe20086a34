"""Rules for the keys of the steps that prepare data: one function per kind."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from alignment.config.faults import did_you_mean
from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.schema.prepare import READ_NOTES
from alignment.config.schema.steps import step_entry
from alignment.config.schema.steps.quality import FOR_ANSWERS, SHARES
from alignment.strict_json import shown

StepRule = Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]  # of a step's keys: a key, and its fault


def prepared(keys: Keys) -> Iterator[Fault]:
    """The keys of each step fit together, and data sets are mixed by a step."""
    if not keys.exists("steps"):
        return
    for number, entry in enumerate(keys["datasets"]):
        if entry.get("fraction") is not None:
            told = "is not read in stage prepare; add a step of kind mix with weights by dataset"
            yield ("datasets", number, "fraction"), told
    yield from _unrecorded(keys)
    if keys.given("layout") and any(step["kind"] == "template" for step in keys["steps"]):
        yield ("layout",), "has no effect with a step of kind template, which makes the layout; take it out"
    yield from _unseen(keys)
    yield from _unnoted(keys)
    for number, step in enumerate(keys["steps"]):
        rule = STEP_RULES.get(step["kind"])
        for key, told in rule(step) if rule is not None else ():
            yield ("steps", number, key), told


def _unrecorded(keys: Keys) -> Iterator[Fault]:
    """No record of a step before one of kind pii holds the personal data that it removes."""
    kinds = [step["kind"] for step in keys["steps"]]
    if "pii" in kinds[1:] and keys["record_texts"]:
        first = kinds.index("pii")
        if first:
            yield (
                ("steps", first, "kind"),
                f"pii follows {kinds[0]}, and dropped.jsonl would hold personal data of rows that earlier steps drop "
                "or change; put pii first, or set record_texts: false",
            )


def _unseen(keys: Keys) -> Iterator[Fault]:
    """No example of a prompt is from a split that is held out."""
    kinds = [step["kind"] for step in keys["steps"]]
    for number, step in enumerate(keys["steps"]):
        if step.get("few_shot") and "split" in kinds[number:]:
            told = "would take examples from rows that a later split holds out; put split before template"
            yield ("steps", number, "few_shot"), told


def _unnoted(keys: Keys) -> Iterator[Fault]:
    """A step notes each of the columns to add."""
    noted = [*READ_NOTES, *(note for step in keys["steps"] for note in step_entry(**step).notes)]
    for number, name in enumerate(keys["columns_added"]):
        if name not in noted:
            told = f"{name}, which no step of the recipe notes{did_you_mean(name, noted)}; noted are {', '.join(noted)}"
            yield ("columns_added", number), told


def patterns_in(step: Mapping[str, Any], *names: str) -> Iterator[tuple[str, str]]:
    """Yield the keys whose regular expressions cannot be compiled."""
    for name in names:
        for pattern in step.get(name) or []:
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                yield name, f"{shown(pattern)} is not a pattern: {error}"


def limits_in(step: Mapping[str, Any], *, least: str = "minimum", most: str = "maximum") -> Iterator[tuple[str, str]]:
    """Yield a range without a limit, or whose ends are exchanged."""
    low, high = step.get(least), step.get(most)
    if low is None and high is None:
        yield least, f"neither {least} nor {most} is given, so no row is dropped; give one or both"
    elif low is not None and high is not None and low > high:
        yield least, f"{low} is above {most} {high}"


def clean(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Boilerplate is given by patterns."""
    yield from patterns_in(step, "boilerplate")


def length(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Lengths have limits; tokens are those of a tokenizer."""
    yield from limits_in(step)
    by_tokens = step.get("unit") == "tokens"
    if by_tokens and not step.get("tokenizer"):
        yield "unit", "tokens needs tokenizer, a folder or Hub id"
    if step.get("tokenizer") and not by_tokens:
        yield "tokenizer", "has no effect without unit: tokens; take it out"


def sample(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A sample has one size."""
    if (step.get("rows") is None) == (step.get("share") is None):
        yield "kind", "sample needs rows or share, one of them"


def quality(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Thresholds are those of rules that apply, and shares are at most 1."""
    for name, value in (step.get("thresholds") or {}).items():
        if name not in (step.get("rules") or FOR_ANSWERS):
            yield "thresholds", f"{name} is not among the rules that apply; add it to rules"
        if value < 0 or (name in SHARES and value > 1):
            yield (
                "thresholds",
                f"{name} {value:g} is not a {'share from 0 to 1' if name in SHARES else 'number from 0'}",
            )


def refusals(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """There is a pattern to look for."""
    yield from patterns_in(step, "patterns")
    if step.get("builtin") is False and not step.get("patterns"):
        yield "builtin", "false leaves no pattern to look for; give patterns"


def mix(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Only a given number of rows may need rows twice."""
    if step.get("repeat") and step.get("rows") is None:
        yield (
            "repeat",
            "has no effect without rows, as the mixture is then as large as it can be without repeating a row",
        )


def overlap(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Something is compared."""
    without_ngrams = "ngram_size" in step and step["ngram_size"] is None
    if without_ngrams and "threshold" in step and step["threshold"] is None:
        yield "ngram_size", "null and threshold: null leave nothing to compare; give one or both"
    if step.get("max_rows") is not None and without_ngrams:
        yield "max_rows", "has no effect with ngram_size: null; take it out"


def template(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """There are templates."""
    if not step.get("templates") and not step.get("promptsource"):
        yield "kind", "template needs templates, or files of promptsource"


def score(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows have one score, and one rule by which they are kept."""
    if bool(step.get("scorer")) == bool(step.get("classifier")):
        yield "kind", "score needs scorer or classifier, one of them"
    low, high = step.get("minimum"), step.get("maximum")
    if low is not None and high is not None and low > high:
        yield "minimum", f"{low:g} is above maximum {high:g}"
    rules = [name for name in ("quantile", "top_k") if step.get(name) is not None]
    rules += ["minimum or maximum"] if low is not None or high is not None else []
    if len(rules) > 1:
        yield rules[0], f"and {rules[1]} both choose rows; use one step for each, so that their order is known"
    if step.get("per") and step.get("top_k") is None:
        yield "per", "has no effect without top_k; take it out"


STEP_RULES: dict[str, StepRule] = {
    "clean": clean,
    "length": length,
    "sample": sample,
    "quality": quality,
    "refusals": refusals,
    "mix": mix,
    "overlap": overlap,
    "template": template,
    "score": score,
}
PREPARE_RULES: list[Rule] = [prepared]
