"""All measures of one judge's labels, as plain numbers."""

from collections.abc import Callable, Sequence
from typing import Any

from alignment.evaluate.statistics import Bootstrap
from reward.audit import against, measures
from reward.audit.calibration import calibration
from reward.audit.classes import classes
from reward.audit.items import Judged, People
from reward.audit.suggest import kappa_of_all

ALONE = {
    "coverage": measures.coverage,
    "consistency": measures.consistency,
    "position_bias": measures.position_bias,
    "same_position": measures.same_position,
    "length_bias": measures.length_bias,
    "cyclic_triads": measures.cyclic_triads,
    "self_consistency": measures.self_consistency,
    "tie_rate": measures.tie_rate,
    "mass": measures.mass,
}
OF_SUBSETS: dict[str, Callable[[Sequence[against.Match], Bootstrap], measures.Measure]] = {
    "accuracy": against.accuracy,
    "accuracy_strict": against.accuracy_strict,
    "both_orders_correct": against.both_orders_correct,
    "kappa": against.kappa,
    "macro_f1": lambda found, how: (classes(found, how) or {}).get("macro_f1"),
}


def audit(judged: Judged, people: People, how: Bootstrap | None = None) -> dict[str, Any]:
    """Measure a judge's labels alone and, if people voted on some, against people.

    Returns: plain numbers under plain names, as `--json` writes them; a measure that has nothing to count is None.
    """
    how = how or Bootstrap()
    found = against.matches(judged.items, people)
    prompts = {str(r.provenance["prompt_hash"]) for r in judged.rankings if r.provenance.get("prompt_hash")}
    return {
        "judge": judged.name,
        "prompt_hashes": sorted(prompts),
        "prompts": len({item.cluster for item in judged.items}),
        "comparisons": len(judged.items),
        "measures": {name: measure(judged.items, how) for name, measure in ALONE.items()},
        "against": _against(judged, found, people, how) if found else None,
        "calibration": calibration(found, how),
        "spent": measures.spent(judged.usage, judged.items),
    }


def _against(judged: Judged, found: Sequence[against.Match], people: People, how: Bootstrap) -> dict[str, Any]:
    several = sum(len(match.votes) > 1 for match in found)
    return {
        "comparisons": len(found),
        "decided": sum(bool(match.gold) for match in found),
        "votes": sum(len(match.votes) for match in found),
        "people": len({who for match in found for who in match.who}),
        "with_several_votes": several,
        "repeated_votes": people.repeated({match.item.key for match in found}),
        "accuracy": against.accuracy(found, how),
        "accuracy_strict": against.accuracy_strict(found, how),
        "both_orders_correct": against.both_orders_correct(found, how),
        **_by_subset(found, how),
        **(classes(found, how) or {}),
        "accuracy_one_order": against.accuracy_one_order(found, how),
        "accuracy_when_consistent": against.accuracy_when_consistent(found, how),
        "kappa": against.kappa(found, how),
        "kappa_of_all": kappa_of_all(judged.items, found, how),
        "alpha": against.alpha(found, how),
        "people_alpha": against.people_alpha(found, how),
        "human_ceiling": against.human_ceiling(found, how),
        **against.length_biases(found, how),
    }


def _by_subset(found: Sequence[against.Match], how: Bootstrap) -> dict[str, Any]:
    """Return measures by subset, and their means, each subset counting once; nothing for a single subset."""
    subsets = sorted({match.item.subset for match in found})
    if len(subsets) < 2:
        return {}
    measured: dict[str, dict[str, measures.Measure]] = {}
    for subset in subsets:
        own = [match for match in found if match.item.subset == subset]
        measured[subset] = {name: measure(own, how) for name, measure in OF_SUBSETS.items()}
    means = {}
    for name in OF_SUBSETS:
        known = [one["value"] for each in measured.values() if (one := each[name]) is not None]
        values = [value for value in known if value is not None]
        if values:
            means[name] = sum(values) / len(values)
    return {"subsets": measured, "subset_means": means}
