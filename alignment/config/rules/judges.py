"""Which keys a judge needs, which belong to another kind or way of asking, and which cannot go together."""

import os
import re
from collections.abc import Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.rules.keys import Fault, Keys
from alignment.config.schema.judges import JudgeEntry

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NEEDS = {
    "rules": ("function", '"module:function"'),
    "openai": ("model", "its name at the endpoint"),
    "anthropic": ("model", "its name at the endpoint"),
    "local": ("model_name_or_path", "a causal language model's folder or Hub id"),
    "reward_model": ("model_name_or_path", "a reward model's folder or Hub id"),
    "replay": ("path", "a file of recorded verdicts"),
    "jury": ("members", "a list of two or more judges"),
}
COMMON = {"kind", "name", "weight"}
PROMPTED = {"asks", "prompt", "reasoning", "constitution", "num_principles", "rubric", "repair", "temperature", "seed",
            "samples", "max_tokens", "logprobs", "min_mass", "clamp"}  # fmt: skip
REMOTE = {"model", "base_url", "api_key_env", "extra_body", "timeout_seconds", "max_retries", "prices"}
OWN = {
    "rules": {"function"},
    "openai": PROMPTED | REMOTE | {"endpoint", "response_format"},
    "anthropic": PROMPTED | REMOTE,
    "local": PROMPTED
    | {"model_name_or_path", "dtype", "load_in_4bit", "chat_template", "trust_remote_code"}
    | {"per_device_eval_batch_size"},
    "reward_model": {"model_name_or_path", "per_device_eval_batch_size", "asks", "trust_remote_code"},
    "replay": {"path"},
    "jury": {"members", "on_member_failure", "asks", "samples", "clamp"},
}
WAYS = {"pairwise": "compares two answers", "listwise": "orders several answers", "pointwise": "rates one answer"}
CHATS = ("openai", "anthropic", "local")


def judges(keys: Keys) -> Iterator[Fault]:
    """A judge has the keys of its kind and no others."""
    entries: list[tuple[Location, Any]] = [(("judge",), keys["judge"])] if keys.given("judge") else []
    entries += [(("judges", i), entry) for i, entry in enumerate(keys["judges"] or [])]
    names: dict[str, Location] = {}
    for at, entry in entries:
        yield from judge_faults(at, entry)
        yield from _overwritten(at, entry, keys["output_dir"])
        name = _name(entry)
        if name in names:
            yield at, f"is called {name}, as another judge is; give it a name of its own"
        names.setdefault(name, at)
        if at[0] == "judges":
            yield from _once_and_pairwise(at, entry)
    scorers = [((key, i), entry) for key in ("scorers", "watch_scorers") for i, entry in enumerate(keys[key] or [])]
    for at, entry in scorers:
        if entry.get("judge") and entry["judge"]["kind"] in CHATS:
            yield from judge_faults((*at, "judge"), entry["judge"])


def judge_faults(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Faults of one judge, a jury's members included."""
    kind = entry["kind"]
    needed, form = NEEDS[kind]
    if not entry.get(needed):
        yield at, f"a judge of kind {kind} needs {needed}, {form}"
    elif needed == "function" and not FUNCTION.fullmatch(entry["function"]):
        yield (*at, "function"), f"must be module:function, found {entry['function']!r}"
    foreign = set(JudgeEntry.model_fields) - OWN[kind] - COMMON
    for key in sorted(foreign & entry.keys()):
        if _changed(entry, key):
            yield (*at, key), f"does not belong to a judge of kind {kind}"
    yield from _ways(at, entry)
    if kind in CHATS:
        yield from _probabilities(at, entry)
    if kind == "jury":
        yield from _members(at, entry)


def _ways(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Keys of one way of asking."""
    asks = entry.get("asks") or "pairwise"
    if asks == "listwise" and entry["kind"] == "reward_model":
        yield (*at, "asks"), "a reward model scores answers one by one; give pairwise or pointwise"
    if entry.get("constitution") and asks != "pairwise":
        yield (*at, "constitution"), f"has no effect with asks: {asks}, only where two answers are compared"
    if _changed(entry, "num_principles") and not entry.get("constitution"):
        yield (*at, "num_principles"), "has no effect without constitution"
    if entry.get("rubric") and asks != "pointwise":
        yield (*at, "rubric"), "needs asks: pointwise; it says how one answer is rated"
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
    """Where probabilities come from."""
    logprobs = entry.get("logprobs", True)
    if entry["kind"] == "anthropic" and logprobs:
        yield (
            (*at, "logprobs"),
            "Anthropic's API gives no log-probabilities; give logprobs: false for verdicts of 1 or 0, and samples with "
            "a temperature above 0 for probabilities from several of them",
        )
    if entry["kind"] == "anthropic" and (entry.get("temperature") or 0) > 1:
        yield (*at, "temperature"), "is above 1, the most that Anthropic's API takes"
    samples = entry.get("samples") or 1
    if samples > 1 and not entry.get("temperature") and not entry.get("constitution"):
        yield (*at, "samples"), f"needs temperature above 0; without it all {samples} askings give the same answer"
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
            yield (*here, "kind"), "is a reward model, whose scores have no scale in common with ratings; ask pairwise"
        name = _name(member)
        if name in names:
            yield here, f"is called {name}, as members[{names[name]}] is; give it a name of its own"
        names.setdefault(name, index)
        asks, asked = entry.get("asks") or "pairwise", member.get("asks") or "pairwise"
        if asked != asks:
            yield (*here, "asks"), f"is {asked}, and the jury's asks is {asks}; a jury answers one kind of question"
        if (member.get("samples") or 1) > 1:
            yield (*here, "samples"), "is not read in a jury's member; give it to the jury, whose members all repeat"


def _once_and_pairwise(at: Location, entry: dict[str, Any]) -> Iterator[Fault]:
    """Evaluation asks which of two answers is better, once in each order."""
    asks = entry.get("asks") or "pairwise"
    if asks != "pairwise":
        yield (*at, "asks"), f"is {asks}, which {WAYS[asks]}; evaluation compares two answers: give pairwise"
    if (entry.get("samples") or 1) > 1:
        yield (*at, "samples"), "is not read in stage evaluate, which asks once in each order; take it out"


def _overwritten(at: Location, entry: dict[str, Any], output_dir: str) -> Iterator[Fault]:
    output = os.path.abspath(output_dir)
    for key in ("path", "model_name_or_path"):
        path = entry.get(key)
        if path and os.path.exists(path) and os.path.commonpath([output, os.path.abspath(path)]) == output:
            yield (
                (*at, key),
                f"{path} lies in output_dir {output_dir}, which the run writes; give output_dir another folder",
            )


def _changed(entry: dict[str, Any], key: str) -> bool:
    default = JudgeEntry.model_fields[key].get_default(call_default_factory=True)
    return entry.get(key) not in (None, default)


def _name(entry: dict[str, Any]) -> str:
    keys = ("name", "function", "model", "model_name_or_path", "path")
    return next((str(entry[key]) for key in keys if entry.get(key)), entry["kind"])
