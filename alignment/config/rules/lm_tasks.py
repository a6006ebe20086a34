"""Rules for tasks of lm-eval."""

from collections.abc import Iterator

from alignment.config.rules.keys import Fault, Keys


def task_names(keys: Keys) -> Iterator[Fault]:
    """Each entry of `tasks` has a name of its own in tables."""
    if not keys.exists("tasks"):
        return
    known: dict[str, int] = {}
    for place, entry in enumerate(keys["tasks"] or []):
        values = entry if isinstance(entry, dict) else {"task": entry}
        label = str(values.get("name") or values.get("task"))
        if known.setdefault(label, place) != place:
            yield ("tasks", place), f"has the name {label} of tasks.{known[label]}; give it another name"


def compared_by(keys: Keys) -> Iterator[Fault]:
    """An evaluation compares policies by judges, tasks or both."""
    if keys.exists("judges") and not keys["judges"] and not keys["tasks"]:
        yield ("judges",), "is empty, and so is tasks: nothing compares the policies; name a judge, or tasks of lm-eval"
