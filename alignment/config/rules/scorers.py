"""Which keys a source of PPO's scores needs, and which belong to another kind."""

import re
from collections.abc import Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.rules.judges import CHATS
from alignment.config.rules.keys import Fault, Keys
from alignment.config.schema import ScorerEntry

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NEEDS = {
    "reward_model": ("model_name_or_path", "the folder of a reward model"),
    "ensemble": ("reward_models", "a list of two or more folders, or model_name_or_path, a run with num_members"),
    "function": ("function", '"module:function"'),
    "http": ("url", "the address that scores are asked of"),
    "judge": ("judge", "a mapping with kind openai and the model's name at the endpoint"),
}
OWN = {
    "reward_model": {"model_name_or_path", "trust_remote_code"},
    "ensemble": {"model_name_or_path", "reward_models", "aggregate", "uncertainty_penalty", "trust_remote_code"},
    "function": {"function"},
    "http": {"url", "api_key_env", "timeout_seconds", "max_retries"},
    "judge": {"judge", "max_concurrency"},
}
COMMON = {"kind", "name", "weight"}
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
            yield at, f"{source} is in the reward too; only what trains nothing can tell that the score is gamed"


def _sources(entry: dict[str, Any]) -> list[str]:
    """Models, functions and addresses that an entry asks."""
    found = [entry.get(key) for key in ("model_name_or_path", "function", "url")] + (entry.get("reward_models") or [])
    return [source for source in found if source]


def _entry_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    kind = entry["kind"]
    needed, form = NEEDS[kind]
    if kind == "ensemble" and entry.get("reward_models") and entry.get("model_name_or_path"):
        yield (*at, "model_name_or_path"), "excludes reward_models; give one"
    if not entry.get(needed) and not (kind == "ensemble" and entry.get("model_name_or_path")):
        yield at, f"a scorer of kind {kind} needs {needed}, {form}"
    foreign = set(ScorerEntry.model_fields) - OWN[kind] - COMMON
    for key in sorted(foreign & entry.keys()):
        default = ScorerEntry.model_fields[key].get_default(call_default_factory=True)
        if entry[key] not in (None, default):
            yield (*at, key), f"does not belong to a scorer of kind {kind}"
    if kind == "function" and entry.get("function") and not FUNCTION.fullmatch(entry["function"]):
        yield (*at, "function"), f"must be module:function, found {entry['function']!r}"
    if kind == "http" and entry.get("url") and not re.match(r"https?://[^/]", entry["url"]):
        yield (*at, "url"), f"must be an address such as http://localhost:8000/score, found {entry['url']!r}"
    judge = (entry.get("judge") or {}).get("kind")
    if kind == "judge" and judge == "rules":
        yield (*at, "judge", "kind"), "a judge of kind rules compares two answers; write a scorer of kind function"
    elif kind == "judge" and judge not in (None, *CHATS):
        yield (*at, "judge", "kind"), f"a scorer's judge is of kind {' or '.join(CHATS)}, found {judge}"
    if kind == "ensemble" and entry.get("reward_models"):
        yield from _ensemble_faults(at, entry)


def _ensemble_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    members = entry["reward_models"]
    if len(members) == 1:
        yield (*at, "reward_models"), "has one member; an ensemble has two or more, kind reward_model is for one"
    doubles = [member for place, member in enumerate(members) if member in members[:place]]
    if doubles:
        yield (*at, "reward_models"), f"names {doubles[0]} twice; the same model twice knows nothing of uncertainty"
    if entry.get("uncertainty_penalty", 1.0) != 1.0 and entry.get("aggregate") != "lcb":
        yield (*at, "uncertainty_penalty"), "has no effect without aggregate: lcb"
    if entry.get("weight", 1.0) < 0 and entry.get("aggregate") in ("min", "lcb"):
        yield (
            (*at, "aggregate"),
            f"{entry['aggregate']} is pessimistic; with a negative weight it would pay for what members disagree on. "
            "Use mean",
        )
