"""Agreement of people with each other, without a judge."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import printable
from alignment.evaluate.statistics import Bootstrap, sums_interval
from reward.audit.against import alphas, kappa_of_tables, tables
from reward.audit.findings import estimate
from reward.audit.items import People

CELLS = 9  # of a table of two people's votes
Array = NDArray[np.float64]


def people_agreement(people: People, how: Bootstrap) -> dict[str, Any] | None:
    """Measure how far people agree on the comparisons that several of them judged; None if there is none.

    `pairs` has Cohen's kappa of every two people over the comparisons that both judged, both namings counted as in
    `against.kappa`. `kappa` is their mean, Light's kappa (https://doi.org/10.1037/h0031643), with an interval that
    resamples prompts for all pairs together. `alpha` is Krippendorff's over all people. The votes of one person on one
    comparison are averaged; kappa takes their sign.
    """
    names = sorted({who for votes in people.votes.values() for who in votes})
    shared = {key: _means(votes) for key, votes in people.votes.items() if len(votes) > 1}
    if not shared:
        return None
    pairs = {both: _pair(shared, both, how) for both in itertools.combinations(names, 2)}
    known = {both: found for both, found in pairs.items() if found is not None}
    units = [np.asarray(list(votes.values())) for votes in shared.values()]
    return {
        "people": [_person(people, shared, known, name) for name in names],
        "comparisons": len(people.votes),
        "shared": len(shared),
        "kappa": _light(shared, list(known), how),
        "alpha": alphas(units, [key[0] for key in shared], how),
        "pairs": [{"first": a, "second": b, **found} for (a, b), found in known.items()],
    }


def _means(votes: dict[str, list[float]]) -> dict[str, float]:
    return {who: float(np.mean(given)) for who, given in votes.items()}


def _both(shared: dict[Any, dict[str, float]], names: tuple[str, str]) -> tuple[Array, Array, list[str]]:
    """Return the winners that two people named where both voted, and the prompts."""
    voted = [(key[0], votes) for key, votes in shared.items() if names[0] in votes and names[1] in votes]
    first, second = (np.sign([votes[name] for _, votes in voted]) for name in names)
    return first, second, [prompt for prompt, _ in voted]


def _pair(shared: dict[Any, dict[str, float]], names: tuple[str, str], how: Bootstrap) -> dict[str, Any] | None:
    first, second, prompts = _both(shared, names)
    if not prompts:
        return None
    kappa = sums_interval(tables(first, second), prompts, kappa_of_tables, how).as_json()
    return {"comparisons": len(prompts), "agree": float(np.mean(first == second)), "kappa": kappa}


def _light(shared: dict[Any, dict[str, float]], pairs: Sequence[tuple[str, str]], how: Bootstrap) -> dict[str, Any]:
    """Return the mean of the pairs' kappas; a pair without one in a resampling does not count there."""
    rows, prompts = [], []
    for key, votes in shared.items():
        added = np.zeros((len(pairs), CELLS))
        for place, (a, b) in enumerate(pairs):
            if a in votes and b in votes:
                added[place] = tables(np.sign([votes[a]]), np.sign([votes[b]]))[0]
        rows.append(added.ravel())
        prompts.append(key[0])

    def mean(sums: Array) -> Array:
        kappas = kappa_of_tables(sums.reshape(-1, CELLS)).reshape(len(sums), len(pairs))
        counted = np.isfinite(kappas).sum(axis=1)
        return np.where(counted > 0, np.nansum(kappas, axis=1) / np.maximum(counted, 1), np.nan)

    return sums_interval(np.asarray(rows), prompts, mean, how).as_json()


def _person(
    people: People, shared: dict[Any, dict[str, float]], pairs: dict[tuple[str, str], dict[str, Any]], name: str
) -> dict[str, Any]:
    kappas = [one["kappa"]["value"] for both, one in pairs.items() if name in both]
    known = [value for value in kappas if value is not None]
    votes = [np.sign(np.mean(given[name])) for given in people.votes.values() if name in given]
    return {
        "name": name,
        "comparisons": len(votes),
        "shared": sum(name in given for given in shared.values()),
        "ties": float(np.mean([vote == 0 for vote in votes])),
        "kappa": sum(known) / len(known) if known else None,
    }


def people_summary(found: dict[str, Any]) -> str:
    """Return the agreement as text."""
    lines = [
        f"{len(found['people'])} people: {found['comparisons']:,} comparisons, {found['shared']:,} by several of them"
    ]
    measures = [("Cohen's kappa, mean of pairs", found["kappa"])]
    measures += [(f"Krippendorff's alpha, {level}", value) for level, value in found["alpha"].items()]
    lines += [
        f"  {name:<31} {estimate(value, share=False)}"
        for name, value in measures
        if value and value["value"] is not None
    ]
    for pair in found["pairs"]:
        kappa = pair["kappa"]
        value = "none: the same vote on all" if kappa["value"] is None else estimate(kappa, share=False)
        who = f"{printable(pair['first'])} and {printable(pair['second'])}"
        lines.append(f"  {who:<31} kappa {value}, agree on {100 * pair['agree']:.1f}% of {pair['comparisons']}")
    return "\n".join(lines)
