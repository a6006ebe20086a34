"""Rules for the keys of labelling."""

from collections.abc import Iterator

from alignment.config.rules.judges import is_chat
from alignment.config.rules.keys import Fault, Keys, Rule

OF_PEOPLE = {"min_kappa", "min_accuracy", "min_accuracy_when_consistent", "max_length_bias", "max_ece"}
HIGHEST_RATING = 10  # of a chat model that rates single answers
SAMPLED = [
    "model_name_or_path",
    "num_generations",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "load_in_4bit",
    "load_in_8bit",
]
SAMPLED += ["max_prompt_length", "chat_template", "eos_token", "test_split_size"]


def label_answers(keys: Keys) -> Iterator[Fault]:
    """Answers are sampled from a policy, or given in the data."""
    if not keys.exists("responses"):
        return
    if keys["responses"] == "sampled" and not keys["model_name_or_path"]:
        yield ("model_name_or_path",), "the required key is missing: name the policy, or set responses: given"
    for key in SAMPLED if keys["responses"] == "given" else []:
        if keys.changed(key):
            yield (key,), "has no effect with responses: given, where nothing is sampled; take it out"
    if keys["dry_run"] and keys["reparse"]:
        yield ("dry_run",), "excludes reparse, which makes no call either"


def label_pairs(keys: Keys) -> Iterator[Fault]:
    """K answers have K(K-1)/2 pairs."""
    if keys.exists("pairs_per_prompt") and keys.given("pairs_per_prompt") and keys["responses"] == "sampled":
        answers, pairs = keys["num_generations"], keys["pairs_per_prompt"]
        if pairs > answers * (answers - 1) // 2:
            most = answers * (answers - 1) // 2
            yield ("pairs_per_prompt",), f"{pairs} is more than the {most} pairs of num_generations {answers}"


def revisions(keys: Keys) -> Iterator[Fault]:
    """Revisions need principles and a judge that generates text."""
    if not keys.exists("revisions") or keys["revisions"] is None:
        return
    judge = keys["judge"]
    if not is_chat(judge) or judge.get("endpoint") == "systemone":
        yield ("revisions",), "needs a judge that generates text: kind openai, anthropic or local, with endpoint chat"
    elif not judge.get("constitution"):
        yield ("revisions",), "needs judge.constitution, a YAML file of the principles to revise by"


def acceptable(keys: Keys) -> Iterator[Fault]:
    """Single answers are rated by a judge of single answers, and some ratings are good and others bad."""
    if not keys.exists("acceptable_rating") or not keys.given("acceptable_rating"):
        return
    judge, rating = keys["judge"], keys["acceptable_rating"]
    if not isinstance(judge, dict) or judge.get("asks") != "pointwise":
        yield ("acceptable_rating",), "needs judge.asks: pointwise, whose judge rates single answers; take it out"
        return
    lowest = 1 if judge.get("rubric") else 0
    if is_chat(judge) and not lowest < rating <= HIGHEST_RATING:
        alike = "good" if rating <= lowest else "bad"
        yield (
            ("acceptable_rating",),
            f"{rating:g} makes every answer {alike}, as the judge rates from {lowest} to {HIGHEST_RATING}; give a "
            f"number above {lowest} and at most {HIGHEST_RATING}",
        )


def gates(keys: Keys) -> Iterator[Fault]:
    """A gate has a limit, and limits on the agreement with people need their preferences."""
    gate = keys["gate"] if keys.exists("gate") else None
    if not gate:
        return
    limits = [key for key in gate if key.startswith(("min_", "max_")) and key != "min_comparisons"]
    limits = [key for key in limits if gate[key] is not None]
    if not limits:
        yield ("gate",), "has no limit, so every judge would pass; give one, min_kappa for example"
    for key in limits:
        if key in OF_PEOPLE and not gate.get("gold"):
            yield ("gate", key), "compares the judge with people; give gate.gold, a file of their preferences"


LABEL_RULES: list[Rule] = [label_answers, label_pairs, revisions, acceptable, gates]
