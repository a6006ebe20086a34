"""Converts the keys of one file by a peer's table, and records the fate of each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from alignment.config.faults import did_you_mean, shown
from alignment.config.loading import library_keys, own_keys
from alignment.config.renamed import DECIDED
from alignment.config.schema import STAGES, AdapterKeys, DataKeys, ModelKeys, Recipe
from alignment.importing.keys import ABSENT, OFF_HERE, Drop, Key, Notice, Ours, Refuse

# Keys whose values are multiplied or divided.
COUNTS = frozenset(
    ("per_device_train_batch_size", "micro_batch_size", "gradient_accumulation_steps", "num_train_epochs", "num_epochs",
     "num_generations", "num_mini_batches", "num_iterations", "ppo_buffer_size", "steps_per_generation",
     "generation_batch_size", "rloo_k")
)  # fmt: skip
Fate = Literal["translated", "dropped", "refused", "default", "set by you"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one key of the peer's file."""

    key: str
    value: Any
    fate: Fate
    ours: tuple[tuple[str, Any], ...] = ()
    reason: str = ""
    optional: bool = True  # a refused key that `--drop` gives up


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gives beside the file."""

    stage: str | None = None  # here, where the file's keys do not decide it
    processes: int | None = None  # that the peer's run has; None: the file's number, else 1
    rows: int | None = None  # of its training data
    dropped: tuple[str, ...] = ()  # refused keys that the user gives up


@dataclass(frozen=True, slots=True)
class Peer:
    """A framework whose recipes are imported."""

    name: str  # of `--from`
    title: str
    table: tuple[Key, ...]
    stage: Callable[[str, dict[str, Any]], str]  # of a file's path and keys; raises RecipeError if it does not train
    finish: Callable[["Conversion"], None]  # settles what depends on several keys
    same_names: bool = False  # a key of a stage here has its name and meaning at the peer
    trainer_keys: bool = True  # keys of transformers' TrainingArguments may stand in its files

    def keys(self) -> dict[str, Key]:
        """Return the table by key."""
        return _by_name(self.table)


@lru_cache
def _by_name(table: tuple[Key, ...]) -> dict[str, Key]:
    return {key.name: key for key in table}


@dataclass
class Conversion:
    """The state of one conversion."""

    peer: Peer
    path: str
    given: dict[str, Any]
    stage: str
    options: Options = field(default_factory=Options)
    recipe: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # our key → comment
    outcomes: list[Outcome] = field(default_factory=list)
    unsettled: dict[str, str] = field(default_factory=dict)  # our key → what the user has to complete
    most_rows: int | None = None  # of the training data, where the file bounds it
    differences: dict[str, str] = field(default_factory=dict)  # the peer's key → what its run does otherwise

    @property
    def processes(self) -> int:
        """Processes of the peer's run, by the command line, else by the file, which TRL's command starts."""
        given = self.given.get("num_processes")
        return self.options.processes or (given if type(given) is int and given > 0 else 1)

    def get(self, name: str) -> Any:
        """Return the value of a key of the peer: the file's, else the peer's default, else None."""
        key = self.peer.keys().get(name)
        default = None if key is None or key.default is ABSENT else key.default
        value = self.given.get(name)
        return default if value is None else value

    def note(self, key: str, text: str) -> None:
        """Put a comment at a key of the recipe."""
        self.notes[key] = text

    def take_out(self, ours: str, reason: str) -> None:
        """Take a key out of the recipe, and record the keys that it came from as dropped."""
        if self.recipe.pop(ours, None) is None:
            return
        for index, outcome in enumerate(self.outcomes):
            rest = tuple(pair for pair in outcome.ours if pair[0] != ours)
            if len(rest) < len(outcome.ours):
                gone = not rest
                self.outcomes[index] = replace(
                    outcome,
                    ours=rest,
                    fate="dropped" if gone else outcome.fate,
                    reason=reason if gone else outcome.reason,
                )

    def refuse(self, key: str, reason: str) -> None:
        """Record a key as refused after all."""
        self.outcomes = [outcome for outcome in self.outcomes if outcome.key != key]
        self.outcomes.append(Outcome(key, self.get(key), "refused", reason=reason, optional=False))

    def run(self) -> None:
        """Convert every key of the file, then the peer's defaults, and settle what depends on several keys."""
        self.recipe["stage"] = self.stage
        table = self.peer.keys()
        order = [*(name for name in table if name in self.given), *(name for name in self.given if name not in table)]
        for name in order:
            key, value = table.get(name) or self._other(name), self.given[name]
            if value is None and key.nullable:
                self._convert(key, value, "translated")
            elif value is None and key.default is not ABSENT and self._reads(key):
                self._convert(key, key.default, "default")
            elif value is None:
                self._record(key, value, "dropped", reason="is not set")
            else:
                self._convert(key, value, "translated")
        for key in self.peer.table:
            if key.name not in self.given and key.default is not ABSENT and self._reads(key):
                self._convert(key, key.default, "default")
        if not any(outcome.fate == "refused" for outcome in self.outcomes):
            self.peer.finish(self)
        order = _order(STAGES[self.stage])
        self.recipe = {key: self.recipe[key] for key in sorted(self.recipe, key=lambda key: _place(order, key))}
        places = {name: place for place, name in enumerate(self.given)}
        self.outcomes.sort(key=lambda outcome: places.get(outcome.key, len(places)))

    @property
    def _default_note(self) -> str:
        return f"default of {self.peer.title}"

    def _reads(self, key: Key) -> bool:
        return not key.stages or self.stage in key.stages

    def _convert(self, key: Key, value: Any, fate: Fate) -> None:
        if not self._reads(key):
            self._record(key, value, "dropped", reason=f"{self.peer.title} does not read it in this stage")
            return
        try:
            ours = self._converted(key, value)
        except Drop as drop:
            if isinstance(drop, Notice):
                self.differences[key.name] = str(drop)
            if fate != "default" or isinstance(drop, Notice):
                self._record(key, value, "dropped", reason=str(drop))
            return
        except Refuse as refuse:
            gave_up = key.name in self.options.dropped
            reason = f"--drop {key.name} gives it up: {refuse}" if gave_up else str(refuse)
            self._record(key, value, "dropped" if gave_up else "refused", reason=reason)
            return
        if fate == "default":  # another key of the file comes first
            ours = {name: found for name, found in ours.items() if isinstance(found, dict) or name not in self.recipe}
        for name, found in ours.items():
            if name in self.recipe and isinstance(found, dict) and isinstance(self.recipe[name], dict):
                known = self.recipe[name]
                self.recipe[name] = {**found, **known} if fate == "default" else {**known, **found}
            else:
                self.recipe[name] = found
                if self.notes.get(name) == self._default_note:
                    del self.notes[name]
            if fate == "default":
                self.notes.setdefault(name, self._default_note)
        if reason := next((self.unsettled[name] for name in ours if name in self.unsettled), ""):
            self._record(key, value, "set by you", ours.items(), reason)
        elif ours or fate != "default":
            self._record(key, value, fate, ours.items(), key.note)

    def _converted(self, key: Key, value: Any) -> Ours:
        """Return what a key becomes.

        Raises: Drop, Refuse; also for a value of another kind than the key has.
        """
        if key.name in COUNTS and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise Refuse(f"must be a number above 0, found {shown(value)}")
        try:
            return key.convert(self, value)
        except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError):
            raise Refuse(f"{shown(value)} is no value that {self.peer.title} gives this key") from None

    def _record(self, key: Key, value: Any, fate: Fate, ours: Iterable[tuple[str, Any]] = (), reason: str = "") -> None:
        self.outcomes.append(Outcome(key.name, value, fate, tuple(ours), reason))

    def _other(self, name: str) -> Key:
        """Return a key that the table does not have: of transformers' Trainer, or unknown."""
        cls = STAGES[self.stage]
        library = library_keys(cls)
        if self.peer.trainer_keys and name in DECIDED:
            return Key(name, _dropping(DECIDED[name]), "", DECIDED[name])
        if (self.peer.trainer_keys and name in library) or (self.peer.same_names and name in own_keys(cls)):
            return Key(name, lambda _, value: {name: value}, name, "")
        near = did_you_mean(name, [*self.peer.keys(), *(library if self.peer.trainer_keys else ())])
        return Key(name, _refusing(f"is no key of {self.peer.title} that is known here{near}"), "", "")


def _order(cls: type[Recipe]) -> list[str]:
    """Return the keys of a stage in the order of its recipes: the run, the model, what trains, the data, the rest."""
    groups = (Recipe, ModelKeys, AdapterKeys, DataKeys)
    return [*(key for group in groups for key in group.model_fields), *own_keys(cls), *library_keys(cls)]


def _place(order: list[str], key: str) -> int:
    return order.index(key) if key in order else len(order)


def _dropping(reason: str) -> Callable[[Conversion, Any], Ours]:
    def drop(_: Conversion, value: Any) -> Ours:
        raise Drop(reason)

    return drop


def _refusing(reason: str) -> Callable[[Conversion, Any], Ours]:
    def refuse(_: Conversion, value: Any) -> Ours:
        if value is None:
            raise Drop(OFF_HERE)
        raise Refuse(reason)

    return refuse
