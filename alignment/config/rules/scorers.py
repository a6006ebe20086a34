"""Which keys a source of PPO's scores needs, and which belong to another kind."""

import re
from collections.abc import Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.rules.judges import FUNCTION, is_chat
from alignment.config.rules.keys import Fault, Keys
from alignment.config.schema.judges import AnyJudge, ChatEntry, RulesEntry
from alignment.config.schema.scorers import AnyScorer, EnsembleEntry, FormatEntry, LengthEntry

ADDRESS = re.compile(r"https?://[^/]")
TAKEN = ("std",)  # score_std is the spread of the whole score over answers


def score_sources(keys: Keys) -> Iterator[Fault]:
    """Scores come from `reward_model_path` or from `scorers`, and each scorer has the keys of its kind."""
    reward_model_path, entries = keys["reward_model_path"], keys["scorers"]
    if reward_model_path is not None and entries:
        yield ("reward_model_path",), "excludes scorers; name it there as an entry of kind reward_model"
    elif reward_model_path is None and not entries:
        yield ("reward_model_path",), "the required key is missing: name a reward model, or give scorers"
    names: dict[str, int] = {}
    for index, entry in enumerate(entries):
        at: Location = ("scorers", index)
        yield from _entry_faults(at, entry)
        name = entry.get("name") or entry["kind"]
        if name in TAKEN or name.endswith("_std"):
            yield (*at, "name"), f"{name} would be logged as score_{name}, which means a spread; choose another name"
        elif name in names:
            yield at, f"is called {name}, as scorers[{names[name]}] is; give it a name of its own"
        names.setdefault(name, index)
    if entries and all(entry.get("weight", 1.0) == 0 for entry in entries):
        yield ("scorers",), "all have weight 0, so every score would be 0"


def watchers(keys: Keys) -> Iterator[Fault]:
    """What watches has the keys of a scorer, a name of its own, and no part in what it watches."""
    entries = keys["watch_scorers"]
    if not entries and keys.changed("watch_interval"):
        yield ("watch_interval",), "has no effect without watch_scorers"
    trains = {source for entry in keys["scorers"] for source in _sources(entry)}
    trains |= {keys["reward_model_path"]} if keys["reward_model_path"] else set()
    names: dict[str, int] = {}
    for index, entry in enumerate(entries):
        at: Location = ("watch_scorers", index)
        yield from _entry_faults(at, entry)
        if entry.get("weight", 1.0) != 1.0:
            yield (*at, "weight"), "has no effect: what watches is never in the reward"
        name = entry.get("name") or entry["kind"]
        if name in names:
            yield at, f"is called {name}, as watch_scorers[{names[name]}] is; give it a name of its own"
        if name.endswith("_spread"):
            yield (*at, "name"), f"{name} would be logged as watch_{name}, which means a spread; choose another name"
        names.setdefault(name, index)
        for source in sorted(trains & set(_sources(entry))):
            yield (
                at,
                f"{source} is in the reward too; only a scorer that is not trained on can detect reward hacking",
            )


def questions(keys: Keys) -> Iterator[Fault]:
    """What scores answers of other domains has the keys of its kind, and computes in this process."""
    if not keys.exists("outside_questions"):
        return
    names: dict[str, int] = {}
    for index, asked in enumerate(keys["outside_questions"]):
        at: Location = ("outside_questions", index)
        if asked["name"] in names:
            yield (*at, "name"), f"{asked['name']} is also the name of outside_questions[{names[asked['name']]}]"
        names.setdefault(asked["name"], index)
        for place, entry in enumerate(asked["scorers"]):
            yield from _entry_faults((*at, "scorers", place), entry)
            if not _class(entry).IN_PROCESS:
                kinds = [name for cls in AnyScorer.kinds() if cls.IN_PROCESS for name in cls.kind_names()]
                yield (*at, "scorers", place, "kind"), f"must be one of {', '.join(kinds)}, found {entry['kind']}"
        if all(entry.get("weight", 1.0) == 0 for entry in asked["scorers"]):
            yield (*at, "scorers"), "all have weight 0, so every score would be 0"


def _class(entry: dict[str, Any]) -> type[AnyScorer]:
    found = AnyScorer.of_kind(entry["kind"])
    assert found is not None
    return found


def _sources(entry: dict[str, Any]) -> list[str]:
    """Return the models, functions and addresses of an entry."""
    needs = _class(entry).NEEDS
    found = [
        entry.get(needs[0]) if needs else None,
        entry.get("model_name_or_path"),
        *(entry.get("reward_models") or []),
    ]
    return list(dict.fromkeys(source for source in found if isinstance(source, str)))


def _entry_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    cls = _class(entry)
    if "function" in cls.model_fields and not FUNCTION.fullmatch(entry["function"]):
        yield (*at, "function"), f"must be module:function, found {entry['function']!r}"
    if "url" in cls.model_fields and not ADDRESS.match(entry["url"]):
        yield (*at, "url"), f"must be an address such as http://localhost:8000/score, found {entry['url']!r}"
    if "judge" in cls.model_fields and not is_chat(entry["judge"]):
        yield from _no_chat((*at, "judge", "kind"), entry["judge"]["kind"])
    if issubclass(cls, EnsembleEntry):
        yield from _ensemble_faults(at, entry)
    if issubclass(cls, FormatEntry):
        yield from _format_faults(at, entry)
    if issubclass(cls, LengthEntry):
        yield from _length_faults(at, entry)


def _format_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    pattern, schema = entry.get("pattern"), entry.get("json_schema")
    if (pattern is None) == (schema is None):
        yield at, "a scorer of kind format needs pattern or json_schema, and has " + ("both" if schema else "neither")
    if pattern is None and entry.get("full_match"):
        yield (*at, "full_match"), "has no effect without pattern"
    if pattern == "" and not entry.get("full_match"):
        yield (*at, "pattern"), "is empty and matches every answer; give a pattern that some answers do not match"
    elif pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as fault:
            yield (*at, "pattern"), f"is no regular expression: {fault}"


def _length_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    minimum, maximum = entry.get("minimum"), entry.get("maximum")
    if minimum is None and maximum is None:
        yield at, "a scorer of kind length needs minimum, maximum or both"
    elif minimum == 0 and maximum is None:
        yield (*at, "minimum"), "0 without maximum accepts every answer; give a larger minimum or a maximum"
    elif minimum is not None and maximum is not None and minimum > maximum:
        yield (*at, "minimum"), f"{minimum} is greater than maximum: {maximum}"


def _no_chat(at: Location, kind: str) -> Iterator[Fault]:
    if issubclass(AnyJudge.of_kind(kind) or AnyJudge, RulesEntry):
        yield at, f"a judge of kind {kind} compares two answers; write a scorer of kind function"
    else:
        chats = [name for each in ChatEntry.kinds() for name in each.kind_names()]
        yield at, f"a scorer's judge is of kind {' or '.join(chats)}, found {kind}"


def _ensemble_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    members = entry.get("reward_models") or []
    if members and entry.get("model_name_or_path"):
        yield (*at, "model_name_or_path"), "excludes reward_models; give one"
    if not members and not entry.get("model_name_or_path"):
        yield (
            at,
            "a scorer of kind ensemble needs reward_models, a list of two or more folders, or model_name_or_path, a "
            "run with num_members",
        )
    if not members:
        return
    if len(members) == 1:
        yield (*at, "reward_models"), "has one member; an ensemble has two or more, kind reward_model is for one"
    doubles = [member for place, member in enumerate(members) if member in members[:place]]
    if doubles:
        yield (*at, "reward_models"), f"names {doubles[0]} twice; two copies of one model do not estimate uncertainty"
    if entry.get("uncertainty_penalty", 1.0) != 1.0 and entry.get("aggregate") != "lcb":
        yield (*at, "uncertainty_penalty"), "has no effect without aggregate: lcb"
    if entry.get("weight", 1.0) < 0 and entry.get("aggregate") in ("min", "lcb"):
        yield (
            (*at, "aggregate"),
            f"{entry['aggregate']} is pessimistic; with a negative weight it would pay for what members disagree on. "
            "Use mean",
        )
