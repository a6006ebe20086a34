"""Groups people's and judges' labels by prompt and pair, and writes the mixed data set."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.rankings import ranking_to_json
from alignment.data.rows import POLICIES, REASONING_FIELD, USABLE, Pair, Prompt, Ranking, SingleVerdict, Status
from alignment.data.sampled import KEY
from reward.people.dawid_skene import FIRST, SECOND, TIE, Floats, Integers, Labels

OF_ANSWERS = ("stopped", REASONING_FIELD, POLICIES, KEY)  # keys of provenance that describe each answer
Ends = tuple[int, int]  # indices of two answers, the lower first


@dataclass
class Gathered:
    """The answers and labels of one prompt."""

    prompt: Prompt
    responses: list[str] = field(default_factory=list)  # each text once
    stopped: list[bool] = field(default_factory=list)
    labels: list[tuple[str, Ranking]] = field(default_factory=list)  # by labeller, pairs numbered as `responses`
    reasoning_fields: list[bool] = field(default_factory=list)  # see `Ranking.reasoning_field`
    policies: list[str | None] = field(default_factory=list)  # of each response, where a ranking names it
    tokens: list[tuple[dict[str, Any], int, list[int], bool]] = field(default_factory=list)  # see `keep_tokens`

    def index(self, ranking: Ranking, place: int) -> int:
        """Return the index of a ranking's response; a new text is added."""
        response = ranking.responses[place]
        if response not in self.responses:
            self.responses.append(response)
            self.stopped.append(True)
            self.reasoning_fields.append(False)
            self.policies.append(None)
        where = self.responses.index(response)
        self.stopped[where] &= ranking.stopped(place)
        self.reasoning_fields[where] |= ranking.reasoning_field(place)
        self.policies[where] = self.policies[where] or (ranking.provenance.get(POLICIES) or {place: None})[place]
        return where

    def keep_tokens(self, ranking: Ranking, places: list[int]) -> None:
        """Keep the tokens of a ranking's sampled answers: their record, place, ids, and whether the answer ended."""
        for record in ranking.provenance.get(KEY) or ():
            for index, ids in enumerate(record["response_ids"]):
                if ids:
                    self.tokens.append((record, places[index], ids, ranking.stopped(index)))

    def of_answers(self) -> dict[str, Any]:
        """Return the entries of provenance about the answers; of several samples of one text, the first counts."""
        records: dict[str, dict[str, Any]] = {}
        for record, place, ids, stopped in self.tokens:
            if stopped != self.stopped[place]:
                continue
            head = {key: value for key, value in record.items() if key != "response_ids"}
            nothing = {**head, "response_ids": [[] for _ in self.responses]}
            kept = records.setdefault(json.dumps(head, sort_keys=True), nothing)["response_ids"]
            kept[place] = kept[place] or ids
        found: dict[str, Any] = {"stopped": self.stopped}
        if any(self.reasoning_fields):
            found[REASONING_FIELD] = self.reasoning_fields
        if all(self.policies):
            found[POLICIES] = self.policies
        return {**found, **({KEY: list(records.values())} if records else {})}


def labeller_of(ranking: Ranking) -> str:
    """Return the labeller of a ranking: a person, a judge with its prompt, or the file if provenance names neither."""
    provenance = ranking.provenance
    if provenance.get("source") == "person" and provenance.get("annotator"):
        return f"person:{provenance['annotator']}"
    judge, prompt_hash = provenance.get("judge"), provenance.get("prompt_hash")
    if judge:
        return f"{judge}@{str(prompt_hash)[:8]}" if prompt_hash else str(judge)
    return Path(ranking.source.rpartition(":")[0]).name or "unknown"


def gather(rankings: Iterable[Ranking]) -> list[Gathered]:
    """Group the labels of the same prompt; prompts and answers match exactly, because the mixed rows contain them."""
    found: dict[str, Gathered] = {}
    for ranking in rankings:
        group = found.setdefault(json.dumps(ranking.prompt, sort_keys=True), Gathered(ranking.prompt))
        places = [group.index(ranking, index) for index in range(len(ranking.responses))]
        group.keep_tokens(ranking, places)
        pairs = [turned for pair in ranking.pairs if (turned := _renumbered(pair, places)) is not None]
        group.labels.append((labeller_of(ranking), Ranking(ranking.prompt, [], pairs, ranking.provenance)))
    return list(found.values())


def _renumbered(pair: Pair, places: list[int]) -> Pair | None:
    """The pair by the answers' new places, the lower first; None if both are one text."""
    first, second = places[pair.first], places[pair.second]
    if first < second:
        return Pair(first, second, pair.probability, pair.status, pair.margin, pair.verdicts)
    if first == second:
        return None
    turned = tuple(
        SingleVerdict(
            "first" if one.shown == "swapped" else "swapped", one.repeat, one.probability, one.status, one.mass
        )
        for one in pair.verdicts
    )
    probability = None if pair.probability is None else 1 - pair.probability
    return Pair(second, first, probability, pair.status, pair.margin, turned)


@dataclass(frozen=True, slots=True)
class Table:
    """Labels with numbered labellers and pairs."""

    labels: Labels
    labellers: list[str]
    pairs: list[tuple[int, Ends]]  # number of the prompt, and the two answers

    @property
    def prompts(self) -> Integers:
        """(pairs,): the number of each pair's prompt, from 0 without gaps."""
        return np.unique([prompt for prompt, _ in self.pairs], return_inverse=True)[1].astype(np.int64)


def tabulate(gathered: list[Gathered]) -> Table:
    """Number labellers and labelled pairs; several labels of one labeller on a pair are averaged."""
    names = sorted({name for group in gathered for name, ranking in group.labels if _outcomes(ranking)})
    numbers = {name: number for number, name in enumerate(names)}
    outcomes_of: dict[tuple[int, Ends, int], list[Floats]] = {}
    for prompt, group in enumerate(gathered):
        for name, ranking in group.labels:
            for ends, outcome in _outcomes(ranking):
                outcomes_of.setdefault((prompt, ends, numbers[name]), []).append(outcome)
    pairs = sorted({(prompt, ends) for prompt, ends, _ in outcomes_of})
    places = {pair: place for place, pair in enumerate(pairs)}
    labels = Labels(
        np.array([places[prompt, ends] for prompt, ends, _ in outcomes_of], dtype=np.int64),
        np.array([labeller for _, _, labeller in outcomes_of], dtype=np.int64),
        np.array([np.mean(outcomes, axis=0) for outcomes in outcomes_of.values()]).reshape(-1, 3),
        len(pairs),
        len(names),
    )
    return Table(labels, names, pairs)


def _outcomes(ranking: Ranking) -> list[tuple[Ends, Floats]]:
    """Return the usable pairs of a ranking, each as a distribution over first, second and tie."""
    found = []
    for pair in ranking.pairs:
        if pair.status in USABLE and pair.probability is not None:
            outcome = np.zeros(3)
            if pair.status == "tie":
                outcome[TIE] = 1.0
            else:
                outcome[FIRST], outcome[SECOND] = pair.probability, 1 - pair.probability
            found.append(((pair.first, pair.second), outcome))
    return found


def mixed_rows(gathered: list[Gathered], table: Table, truth: Floats) -> list[Ranking]:
    """Return one ranking a prompt: each pair with its posterior, and every label that went into it.

    The probability that the first is better is P(first) + P(tie) / 2; a pair is a tie where that is one half.
    """
    posterior = {pair: truth[place] for place, pair in enumerate(table.pairs)}
    rows = []
    for prompt, group in enumerate(gathered):
        statuses: dict[Ends, Status] = {}
        for _, ranking in group.labels:
            for pair in ranking.pairs:
                kept = statuses.get((pair.first, pair.second))
                if kept is None or pair.status == "abstain":
                    statuses[pair.first, pair.second] = pair.status
        pairs = []
        for ends in sorted(statuses):
            found = posterior.get((prompt, ends))
            if found is None:
                pairs.append(Pair(*ends, None, statuses[ends]))
            else:
                probability = float(np.clip(found[FIRST] + found[TIE] / 2, 0.0, 1.0))
                pairs.append(Pair(*ends, probability, "tie" if probability == 0.5 else "ok"))
        rows.append(Ranking(group.prompt, group.responses, pairs, _provenance(group)))
    return [row for row in rows if row.pairs]


def _provenance(group: Gathered) -> dict[str, Any]:
    labels = []
    for name, ranking in group.labels:
        own = {key: value for key, value in ranking.provenance.items() if key not in OF_ANSWERS}
        labels.append({"labeller": name, "provenance": own, "pairs": ranking_to_json(ranking)["pairs"]})
    kept: dict[str, Any] = {"source": "mixed", "judge": "dawid-skene"}
    policies = [label["provenance"].get("policy") for label in labels]
    if policies[0] is not None and all(policy == policies[0] for policy in policies):
        kept["policy"] = policies[0]
    return {**kept, **group.of_answers(), "labels": labels}
