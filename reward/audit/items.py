"""The audited comparisons, each with the label of one judge or person."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.schema import DatasetEntry
from alignment.data.folders import MOST_FILES
from alignment.data.load import load
from alignment.data.load import ranking as comparable
from alignment.data.rows import USABLE, Pair, Prompt, Ranking, SingleVerdict, Status
from alignment.data.source_rows import OnBadRow
from alignment.data.splits import prompt_key
from alignment.errors import DataError
from alignment.manifest import read_manifest
from reward.labels.files import GOLD_LABELS, LABELS, REJECTED
from reward.labels.recordings import FILE, gold, is_recording, judged, read_recording

BY_PEOPLE = ("people.jsonl", "suggested.people.jsonl")  # written by `alignment annotate` beside labels
Key = tuple[str, str, str]  # of a comparison, the same for both orders of its answers


@dataclass(frozen=True, slots=True)
class Item:
    """One comparison of two answers, with the label of one judge or person."""

    prompt: Prompt
    first: str
    second: str
    cluster: str  # identifies the prompt; answers to one prompt are not independent
    probability: float | None  # that `first` is better; None unless usable
    status: Status
    verdicts: tuple[SingleVerdict, ...]
    row: int  # index of its ranking
    ends: tuple[int, int]  # the answers' places in that ranking
    subset: str = ""  # the labels' `provenance.subset`, else the path that they were read from

    @property
    def usable(self) -> bool:
        """Whether the label is used for training."""
        return self.status in USABLE and self.probability is not None

    @property
    def identical(self) -> bool:
        """Whether both answers are the same text, which is a tie without a judgement."""
        return self.first == self.second

    @property
    def winner(self) -> float:
        """1 where the first is preferred, -1 the second, 0 a tie; only of usable items."""
        return float(np.sign((self.probability or 0.0) - 0.5)) if self.probability is not None else 0.0

    @property
    def key(self) -> Key:
        """The key of the comparison: prompt and answers, in a fixed order."""
        low, high = sorted((self.first.strip(), self.second.strip()))
        return self.cluster, low, high

    @property
    def turned(self) -> bool:
        """Whether `first` is the second of the key's two answers."""
        return self.first.strip() > self.second.strip()


@dataclass(frozen=True, slots=True)
class Reading:
    """How files of rankings are read."""

    entry: Mapping[str, Any] = field(default_factory=dict)  # keys of a recipe's data set entry, for people's votes
    on_bad_row: OnBadRow = "stop"


@dataclass
class Judged:
    """All labels of one judge."""

    name: str
    items: list[Item] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)  # of the run: the manifest's results.usage


@dataclass
class People:
    """People's votes by comparison: each person's preference for the key's first answer."""

    votes: dict[Key, dict[str, list[float]]] = field(default_factory=dict)  # 1, 0 (a tie) or -1; one for each answer
    unsure: int = 0  # comparisons without a vote, because the person could not decide

    def add(self, item: Item, who: str) -> None:
        """Count one person's vote."""
        if not item.usable:
            self.unsure += 1
        elif not item.identical:
            vote = -item.winner if item.turned else item.winner
            self.votes.setdefault(item.key, {}).setdefault(who, []).append(vote)

    def on(self, item: Item) -> dict[str, float]:
        """Return each person's vote on this comparison: 1 for its `first`, -1 for its `second`, 0 for a tie.

        The votes of one person who answered several times are averaged.
        """
        turn = -1.0 if item.turned else 1.0
        return {who: turn * float(np.mean(votes)) for who, votes in self.votes.get(item.key, {}).items()}

    def repeated(self, among: Collection[Key]) -> int:
        """Return the number of second and further votes of one person on one of these comparisons."""
        return sum(len(votes) - 1 for key in among for votes in self.votes[key].values())

    def merge(self, other: "People") -> None:
        """Add the votes of `other`."""
        self.unsure += other.unsure
        for key, people in other.votes.items():
            for who, votes in people.items():
                self.votes.setdefault(key, {}).setdefault(who, []).extend(votes)


def items_of(rankings: Sequence[Ranking]) -> Iterator[Item]:
    """Yield every pair of every ranking."""
    for row, ranking in enumerate(rankings):
        cluster = prompt_key(ranking.prompt)
        for pair in ranking.pairs:
            yield item_of(ranking, pair, row, cluster)


def item_of(ranking: Ranking, pair: Pair, row: int, cluster: str, subset: str = "") -> Item:
    """Return one pair of a ranking as an item."""
    first, second = ranking.responses[pair.first], ranking.responses[pair.second]
    return Item(
        ranking.prompt, first, second, cluster, pair.probability, pair.status, pair.verdicts, row,
        (pair.first, pair.second), str(ranking.provenance.get("subset") or subset),
    )  # fmt: skip


def read_labels(
    paths: Sequence[Path], how: Reading | None = None, *, given: Path | None = None
) -> tuple[list[Judged], People]:
    """Read labels, label runs' folders and recorded verdicts, and group them by judge.

    Rows whose provenance names a person are people's votes.

    Args:
        given: a file of votes that is read elsewhere and replaces the gold labels within recorded verdicts.

    Raises: DataError if a path has no labels of a judge, and people's are not of several people.
    """
    how = Reading() if how is None else how
    judges: dict[str, Judged] = {}
    people = People()
    for path in paths:
        if not path.exists():  # else the path would be looked up on the Hub
            raise DataError(f"{path} does not exist. Give the folder of a label run, its labels, or recorded verdicts.")
        if recordings := _recordings(path):
            for file in recordings:
                recording = read_recording(file, how.on_bad_row)
                where = file.parent if file.name == FILE else file
                _sort(judged(recording), judges, people, recording.name, str(where))
                if given is None:
                    add_gold(people, gold(recording))
            continue
        for name in BY_PEOPLE:
            if path.is_dir() and (path / name).is_file() and not _same(path / name, given):
                people.merge(read_gold(str(path / name), Reading(on_bad_row=how.on_bad_row)))
        usage = _usage(path)
        rankings = _read(_labels_in(path), Reading(on_bad_row=how.on_bad_row))
        names = _sort(rankings, judges, people, path.stem if path.is_file() else path.name, str(path))
        if len(names) == 1:  # the cost of several judges cannot be divided
            _add_usage(judges[names[0]].usage, usage)
    if not judges and not any(len(votes) > 1 for votes in people.votes.values()):
        raise DataError(
            f"{', '.join(map(str, paths))}: there is no label of a judge, and no comparison that two people judged, so "
            "there is nothing to compare."
        )
    return list(judges.values()), people


def _same(file: Path, given: Path | None) -> bool:
    return given is not None and given.exists() and file.samefile(given)


def read_gold(path: str, how: Reading | None = None) -> People:
    """Read any preference file of the data layer as people's votes.

    Rows without an annotator in their provenance are votes of one person, "gold".
    """
    people = People()
    add_gold(people, gold_rankings(path, how))
    return people


def gold_rankings(path: str, how: Reading | None = None) -> list[Ranking]:
    """Read any preference file of the data layer, or recorded verdicts with their gold labels."""
    how = Reading() if how is None else how
    if recordings := _recordings(Path(path)):
        return [ranking for file in recordings for ranking in gold(read_recording(file, how.on_bad_row))]
    return _read(path, how)


def add_gold(people: People, rankings: Sequence[Ranking]) -> None:
    """Count rankings as people's votes."""
    for item in items_of(rankings):
        people.add(item, str(rankings[item.row].provenance.get("annotator") or "gold"))


def _sort(
    rankings: Sequence[Ranking], judges: dict[str, Judged], people: People, default: str, subset: str
) -> list[str]:
    """Add rows to their judge or to people's votes; return the judges' names."""
    names: dict[str, None] = {}
    by_people = [ranking for ranking in rankings if ranking.provenance.get("source") == "person"]
    add_gold(people, by_people)
    for ranking in rankings:
        if ranking.provenance.get("source") == "person":
            continue
        name = str(ranking.provenance.get("judge") or default)
        names[name] = None
        found = judges.setdefault(name, Judged(name))
        found.rankings.append(ranking)
        row, cluster = len(found.rankings) - 1, prompt_key(ranking.prompt)
        found.items += [item_of(ranking, pair, row, cluster, subset) for pair in ranking.pairs]
    return list(names)


def _recordings(path: Path) -> list[Path]:
    """Return the recorded result files at or below a path."""
    if path.is_dir() and not any((path / name).exists() for name in (LABELS, REJECTED, GOLD_LABELS)):
        return [file for file in _named(path, FILE) if is_recording(file)]
    return [path] if is_recording(path) else []


def _named(root: Path, name: str) -> list[Path]:
    """Return the files of that name at any depth.

    Raises: DataError if the folder has too many files to be one of labels.
    """
    found, seen = [], 0
    for folder, folders, files in os.walk(root):
        seen += len(folders) + len(files)
        if seen > MOST_FILES:
            raise DataError(f"{root} has more than {MOST_FILES:,} files; name the folder of labels in it.")
        found += [Path(folder, name)] if name in files else []
    return sorted(found)


def _labels_in(path: Path) -> str:
    """Return the file of labels; a run that missed its gate has them under another name."""
    if path.is_dir() and not (path / LABELS).exists():
        return str(next((path / name for name in (REJECTED, GOLD_LABELS) if (path / name).exists()), path))
    return str(path)


def _read(path: str, how: Reading) -> list[Ranking]:
    entry = DatasetEntry(path=path, **how.entry)
    return load([entry], comparable, on_bad_row=how.on_bad_row, seed=0, max_samples=None, agreeing=True).rows


def _usage(path: Path) -> dict[str, Any]:
    folder = path if path.is_dir() else path.parent
    results = read_manifest(folder).get("results")
    usage = results.get("usage") if isinstance(results, dict) else None
    return usage if isinstance(usage, dict) else {}


def _add_usage(total: dict[str, Any], more: dict[str, Any]) -> None:
    """Sum the usage of several runs; the sum of costs is None if one is unknown or in another currency."""
    known_before = bool(total)
    for key in ("calls", "failed_calls", "prompt_tokens", "completion_tokens", "seconds"):
        if isinstance(more.get(key), int | float):
            total[key] = total.get(key, 0) + more[key]
    if not more:
        return
    same = not known_before or total.get("currency") == more.get("currency")
    costs = [total.get("cost") if known_before else 0, more.get("cost")]
    total["currency"] = more.get("currency")
    total["cost"] = sum(costs) if same and all(isinstance(cost, int | float) for cost in costs) else None
