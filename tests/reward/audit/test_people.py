"""Agreement of people without a judge, and precision, recall and F1 by class, against scikit-learn and krippendorff."""

import json
import re

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_recall_fscore_support

from alignment.errors import AlignmentError, GateError
from alignment.evaluate.statistics import Bootstrap
from alignment.run.files import write_jsonl
from reward.audit.against import matches
from reward.audit.classes import classes
from reward.audit.command import Outputs, run
from reward.audit.gate import check
from reward.audit.items import People, items_of
from reward.audit.people import people_agreement
from tests.reward.audit.made import judged, pair, people, ranking

HOW = Bootstrap(samples=200)
PEOPLE = ("Ann", "Bob", "Cid")


def votes(size: int = 80) -> np.ndarray:
    """Votes of three people, -1, 0 or 1; NaN where one did not vote."""
    draw = np.random.default_rng(4)
    truth = draw.choice([-1.0, 1.0], size)
    found = np.array([[t if draw.random() < 0.8 else draw.choice([-1.0, 0.0, 1.0]) for t in truth] for _ in PEOPLE])
    found[2, : size // 4] = np.nan
    return found


def rows_of(cast: np.ndarray) -> list[dict]:
    ranks = {1.0: [1, 2], 0.0: [1, 1], -1.0: [2, 1]}
    return [
        {"prompt": f"p{i}", "responses": ["first", "second"], "ranks": ranks[float(vote)],
         "provenance": {"source": "person", "annotator": who}}
        for who, each in zip(PEOPLE, cast, strict=True)
        for i, vote in enumerate(each)
        if np.isfinite(vote)
    ]  # fmt: skip


def test_people_alone_by_the_libraries(tmp_path):
    cast, said = votes(), []
    write_jsonl(tmp_path / "people.jsonl", rows_of(cast))
    outputs = Outputs(page=tmp_path / "audit.html", json=tmp_path / "audit.json")
    assert run([tmp_path / "people.jsonl"], None, outputs=outputs, how=HOW, say=said.append) == []
    found = json.loads((tmp_path / "audit.json").read_text())["people"]
    kappas = {}
    for one in found["pairs"]:
        first, second = (cast[PEOPLE.index(one[key])] for key in ("first", "second"))
        both = np.isfinite(first) & np.isfinite(second)
        x, y = first[both], second[both]
        expected = cohen_kappa_score(np.concatenate([x, -x]), np.concatenate([y, -y]), labels=[-1, 0, 1])
        assert one["kappa"]["value"] == pytest.approx(expected, abs=1e-12)
        assert one["kappa"]["low"] < expected < one["kappa"]["high"]
        assert (one["comparisons"], one["agree"]) == (both.sum(), pytest.approx(np.mean(x == y)))
        kappas[one["first"], one["second"]] = expected
    assert len(kappas) == 3
    assert found["kappa"]["value"] == pytest.approx(np.mean(list(kappas.values())), abs=1e-12)
    for level in ("nominal", "ordinal", "interval"):
        doubled = np.concatenate([cast, -cast], axis=1)
        assert found["alpha"][level]["value"] == pytest.approx(
            krippendorff.alpha(doubled, level_of_measurement=level, value_domain=[-1.0, 0.0, 1.0]), abs=1e-9
        )
    cid = found["people"][2]
    assert (cid["comparisons"], cid["shared"]) == (60, 60)
    assert cid["kappa"] == pytest.approx((kappas["Ann", "Cid"] + kappas["Bob", "Cid"]) / 2)
    words, page = "\n".join(said), (tmp_path / "audit.html").read_text()
    assert f"Ann and Bob{' ' * 21}kappa 0." in words
    assert "Cohen's kappa, mean of pairs" in words
    assert "People among themselves" in page
    assert "Ann and Cid" in page


def test_what_needs_a_judge_is_refused(tmp_path):
    write_jsonl(tmp_path / "people.jsonl", rows_of(votes(8)))
    with pytest.raises(AlignmentError, match="--suggest is for a judge's labels"):
        run([tmp_path / "people.jsonl"], None, outputs=Outputs(), suggestions=5, say=lambda _: None)
    with pytest.raises(GateError, match="limits a judge's labels"):
        check(None, [], voices=True)


def test_people_without_a_shared_comparison_have_no_agreement():
    voices = People()
    for item in items_of([ranking("p", pair(0.9)), ranking("q", pair(0.9))]):
        voices.add(item, item.prompt)
    assert people_agreement(voices, HOW) is None


def test_classes_are_those_of_scikit_learn():
    draw = np.random.default_rng(2)
    ps = draw.choice([0.1, 0.5, 0.9], 90, p=[0.3, 0.2, 0.5])
    gold = np.where(draw.random(90) < 0.6, np.sign(ps - 0.5), draw.choice([-1.0, 0.0, 1.0], 90))
    judge = judged(*(ranking(f"p{i}", pair(p)) for i, p in enumerate(ps)), ranking("failed", pair(None)))
    found = classes(matches(judge.items, people(judge, [*([g] for g in gold), [1.0]])), HOW)
    order, said = [1.0, -1.0, 0.0], np.sign(ps - 0.5)
    precision, recall, f1, support = precision_recall_fscore_support(gold, said, labels=order)
    assert list(found["classes"]) == ["first", "second", "tie"]
    for place, one in enumerate(found["classes"].values()):
        assert one["precision"]["value"] == pytest.approx(precision[place])
        assert one["recall"]["value"] == pytest.approx(recall[place])
        assert one["f1"]["value"] == pytest.approx(f1[place])
        assert one["f1"]["low"] < one["f1"]["value"] < one["f1"]["high"]
        assert (one["people"], one["judge"]) == (support[place], np.sum(said == order[place]))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(gold, said, average="macro"))


def test_a_class_that_one_side_never_names():
    judge = judged(*(ranking(f"p{i}", pair(p)) for i, p in enumerate([0.9, 0.9, 0.1])))
    found = classes(matches(judge.items, people(judge, [[1], [1], [1]])), HOW)["classes"]
    assert list(found) == ["first", "second"]
    assert found["first"]["precision"]["value"] == 1.0
    assert found["first"]["recall"]["value"] == pytest.approx(2 / 3)
    assert found["second"]["recall"]["value"] is None
    assert found["second"]["precision"]["value"] == 0.0


def test_subsets_have_every_measure_and_their_mean(tmp_path):
    write_jsonl(
        tmp_path / "labels.jsonl",
        [
            {"prompt": f"p{i}", "responses": ["first", "second"],
             "provenance": {"judge": "toy", "subset": "ab"[i % 3 > 0]},
             "pairs": [{"first": 0, "second": 1, "probability": p, "status": "ok"}]}
            for i, p in enumerate(np.random.default_rng(0).choice([0.1, 0.9], 60))
        ],
    )  # fmt: skip
    write_jsonl(tmp_path / "gold.jsonl", rows_of(votes(60)[:1].repeat(3, axis=0))[:60])
    said: list[str] = []
    (found,) = run([tmp_path / "labels.jsonl"], tmp_path / "gold.jsonl", outputs=Outputs(), how=HOW, say=said.append)
    against = found["against"]
    for name in ("accuracy", "accuracy_strict", "kappa", "macro_f1"):
        mean = np.mean([against["subsets"][subset][name]["value"] for subset in "ab"])
        assert against["subset_means"][name] == pytest.approx(mean)
    assert "macro F1, mean of subsets" in "\n".join(said)
    assert not re.search(r"of subsets\d", "\n".join(said))  # the longest name does not run into its number
    assert "people prefer the first" in "\n".join(said)
