"""Rules for judges: required keys, keys of another kind or mode, and impossible combinations."""

import re
from collections.abc import Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.rules.keys import Fault, Keys
from alignment.config.rules.shared import one_number_of_bits
from alignment.config.schema.calls import CallLimits
from alignment.config.schema.judges import AnyJudge, ChatEntry, RemoteEntry

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MODES = {"pairwise": "compares two answers", "listwise": "orders several answers", "pointwise": "rates one answer"}


def judge_class(entry: dict[str, Any]) -> type[AnyJudge]:
    """Return the class of a judge's kind."""
    found = AnyJudge.of_kind(entry["kind"])
    assert found is not None
    return found


def is_chat(entry: dict[str, Any]) -> bool:
    """Whether a judge is a chat model."""
    return issubclass(judge_class(entry), ChatEntry)


def judges(keys: Keys) -> Iterator[Fault]:
    """A judge has the keys of its kind and no others."""
    entries: list[tuple[Location, Any]] = [(("judge",), keys["judge"])] if keys.given("judge") else []
    entries += [(("judges", i), entry) for i, entry in enumerate(keys["judges"] or [])]
    names: dict[str, Location] = {}
    for at, entry in entries:
        yield from judge_faults(at, entry)
        name = judge_class(entry).label_of(entry)
        if name in names:
            yield at, f"is called {name}, as another judge is; give it a name of its own"
        names.setdefault(name, at)
        if at[0] == "judges":
            yield from _once_and_pairwise(at, entry)
    for at, judge in _of_scorers(keys):
        if is_chat(judge):
            yield from judge_faults(at, judge)


def _of_scorers(keys: Keys) -> list[tuple[Location, dict[str, Any]]]:
    """Return the judges among the scorers."""
    entries: list[tuple[Location, dict[str, Any]]] = [
        ((key, i), entry) for key in ("scorers", "watch_scorers") for i, entry in enumerate(keys[key] or [])
    ]
    steps = enumerate(keys["steps"] or []) if keys.exists("steps") else ()
    entries += [(("steps", i, "scorer"), step["scorer"]) for i, step in steps if step.get("scorer")]
    return [((*at, "judge"), entry["judge"]) for at, entry in entries if entry.get("judge")]


def call_limits(keys: Keys) -> Iterator[Fault]:
    """Limits need a judge whose calls they limit, and a limit of the cost needs prices."""
    one = next((key for key in ("judge", "writer") if keys.given(key)), None)
    entries = [keys[one]] if one else keys["judges"] or [judge for _, judge in _of_scorers(keys)]
    if not entries and (keys.exists("scorers") or keys.exists("steps")):
        for key in CallLimits.model_fields:
            if keys.given(key):
                yield (key,), "limits the calls of judges, and no scorer is of kind judge"
    elif keys["max_cost"] is not None and not any(
        each.get("prices") for entry in entries for each in [entry, *(entry.get("members") or [])]
    ):
        jury = "; for a jury, those of its members" if one != "writer" else ""
        yield ("max_cost",), f"needs {one or 'judge'}.prices to compute the cost{jury}"


def judge_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Faults of one judge, a jury's members included."""
    if "function" in judge_class(entry).model_fields and not FUNCTION.fullmatch(entry["function"]):
        yield (*at, "function"), f"must be module:function, found {entry['function']!r}"
    yield from one_number_of_bits(at, entry)
    yield from _modes(at, entry)
    if is_chat(entry):
        yield from _probabilities(at, entry)
    if entry["kind"] == "jury":
        yield from _members(at, entry)


def _modes(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Keys of a single mode."""
    asks = entry.get("asks") or "pairwise"
    if asks == "listwise" and entry["kind"] == "reward_model":
        yield (*at, "asks"), "a reward model scores answers one by one; give pairwise or pointwise"
    if entry.get("constitution") and asks != "pairwise":
        yield (*at, "constitution"), f"has no effect with asks: {asks}, only where two answers are compared"
    if _changed(entry, "num_principles") and not entry.get("constitution"):
        yield (*at, "num_principles"), "has no effect without constitution"
    if entry.get("rubric") and asks != "pointwise":
        yield (*at, "rubric"), "needs asks: pointwise; a rubric rates single answers"
    clamp = entry.get("clamp")
    if clamp and asks != "pairwise":
        yield (*at, "clamp"), f"has no effect with asks: {asks}, which gives no probability"
    if clamp and len(clamp) == 2 and not 0.0 <= clamp[0] < clamp[1] <= 1.0:
        yield (*at, "clamp"), f"must be two probabilities, the lower one first, such as [0.4, 0.6]; found {clamp}"
    if entry.get("endpoint") == "systemone":
        for key, value in (("asks", "listwise"), ("reasoning", True), ("response_format", "json_schema")):
            if entry.get(key) == value:
                yield (*at, key), "excludes endpoint: systemone, which chooses one of several texts and writes none"


def _probabilities(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Keys of the source of probabilities."""
    logprobs = entry.get("logprobs", True)
    cls = judge_class(entry)
    if issubclass(cls, RemoteEntry):
        if cls.NO_LOGPROBS and logprobs:
            yield (*at, "logprobs"), cls.NO_LOGPROBS
        if cls.HOTTEST is not None and (entry.get("temperature") or 0) > cls.HOTTEST:
            yield (*at, "temperature"), f"is above {cls.HOTTEST:g}, the most that {cls.VENDOR}'s API takes"
    samples = entry.get("samples") or 1
    if samples > 1 and not entry.get("temperature") and not entry.get("constitution"):
        yield (*at, "samples"), f"needs temperature above 0; at 0 all {samples} samples are the same"
    if _changed(entry, "min_mass") and (not logprobs or entry.get("endpoint") == "systemone"):
        yield (*at, "min_mass"), "has no effect without log-probabilities over the whole vocabulary"
    if entry.get("endpoint") == "systemone" and not logprobs:
        yield (*at, "logprobs"), "endpoint: systemone always gives probabilities; take this out"


def _members(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    members = entry.get("members") or []
    if len(members) == 1:
        yield (*at, "members"), "has one judge; a jury has two or more"
    names: dict[str, int] = {}
    for index, member in enumerate(members):
        here: Location = (*at, "members", index)
        yield from judge_faults(here, member)
        if member["kind"] == "jury":
            yield (*here, "kind"), "is a jury itself; give its members their weights here"
        if member["kind"] == "reward_model" and entry.get("asks") == "pointwise":
            yield (
                (*here, "kind"),
                "is a reward model; its scores are on another scale than ratings: use pairwise",
            )
        name = judge_class(member).label_of(member)
        if name in names:
            yield here, f"is called {name}, as members[{names[name]}] is; give it a name of its own"
        names.setdefault(name, index)
        asks, asked = entry.get("asks") or "pairwise", member.get("asks") or "pairwise"
        if asked != asks:
            yield (*here, "asks"), f"is {asked}, and the jury's asks is {asks}; a jury answers one kind of question"
        if (member.get("samples") or 1) > 1:
            yield (*here, "samples"), "is not read in a jury's member; give it to the jury, whose members all repeat"


def _once_and_pairwise(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Evaluation compares two answers, once in each order."""
    asks = entry.get("asks") or "pairwise"
    if asks != "pairwise":
        yield (*at, "asks"), f"is {asks}, which {MODES[asks]}; evaluation compares two answers: give pairwise"
    if (entry.get("samples") or 1) > 1:
        yield (*at, "samples"), "is not read in stage evaluate, which compares once in each order; remove it"


def _changed(entry: dict[str, Any], key: str) -> bool:
    info = judge_class(entry).model_fields.get(key)
    default = info.get_default(call_default_factory=True) if info else None
    return entry.get(key) not in (None, default)
