"""What is suggested tightens kappa faster than chance, and misleads nobody."""

import numpy as np
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings, ranking_to_json
from alignment.data.sampled import HASHES
from alignment.data.splits import prompt_key
from alignment.evaluate.statistics import Bootstrap
from alignment.run.files import write_jsonl
from reward.audit.against import kappa, matches
from reward.audit.items import Judged, People
from reward.audit.suggest import EDGES, allocate, kappa_of_all, stratum_of, suggest
from tests.reward.audit.made import judged, pair, people, ranking


def population(size: int, seed: int) -> tuple[Judged, dict[str, float]]:
    """Labels of a judge that knows how sure it may be, and what people would say of each: 1 or -1, by prompt."""
    draw = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-draw.normal(0, 4, size)))
    truth = np.where(draw.random(size) < p, 1.0, -1.0)
    judge = judged(*(ranking(f"prompt {i}", pair(float(p[i]))) for i in range(size)))
    return judge, {prompt_key(f"prompt {i}"): float(truth[i]) for i in range(size)}


def ask_people(judge: Judged, truth: dict[str, float], prompts: set[str]) -> People:
    return people(judge, [[truth[item.cluster]] if item.cluster in prompts else [] for item in judge.items])


def test_suggested_comparisons_tighten_kappa_faster_than_random_ones():
    """Kappa from 100 of 800 comparisons against kappa with all of them: its interval, and where it lies."""
    how, widths, leaning = Bootstrap(samples=200), {"suggested": [], "random": []}, {"weighted": [], "plain": []}
    for seed in range(12):
        judge, truth = population(800, seed)
        real = 2 * np.mean([item.winner == truth[item.cluster] for item in judge.items]) - 1
        pick = np.random.default_rng(seed + 1_000).choice(sorted(truth), 100, replace=False)
        random = kappa(matches(judge.items, ask_people(judge, truth, set(map(str, pick)))), how)
        prompts = {prompt_key(row.prompt) for row in suggest(judge, People(), 100, seed)}
        found = matches(judge.items, ask_people(judge, truth, prompts))
        weighted, plain = kappa_of_all(judge.items, found, how), kappa(found, how)
        widths["suggested"].append(weighted["high"] - weighted["low"])
        widths["random"].append(random["high"] - random["low"])
        leaning["weighted"].append(weighted["value"] - real)
        leaning["plain"].append(plain["value"] - real)
    assert np.mean(widths["suggested"]) < 0.9 * np.mean(widths["random"])
    # Harder comparisons were asked about: the plain kappa of them alone would mislead, the weighted one does not.
    assert np.mean(leaning["plain"]) < -0.1
    assert abs(np.mean(leaning["weighted"])) < 0.05


def test_the_error_of_kappa_is_smaller_too():
    """4,000 draws of the estimate itself, from strata as a sure judge has them, right as often as it says."""
    draw = np.random.default_rng(0)
    shares, right = np.array([0.12, 0.15, 0.18, 0.15, 0.40]), np.array([0.55, 0.68, 0.83, 0.94, 0.99])
    given = allocate(shares, np.sqrt(right * (1 - right)), [0] * 5, [10_000] * 5, 100)
    assert sum(given) == 100
    by_stratum = 2 * (shares * draw.binomial(given, right, (4_000, 5)) / given).sum(axis=1) - 1
    at_random = 2 * draw.binomial(100, shares @ right, 4_000) / 100 - 1
    real = 2 * shares @ right - 1
    assert by_stratum.mean() == pytest.approx(real, abs=0.005)
    # (sum W s)^2 = 0.0744 against a (1 - a) = 0.1244: the standard error falls to the root of 0.598, 0.773.
    spread = np.sqrt(np.mean((by_stratum - real) ** 2) / np.mean((at_random - real) ** 2))
    assert spread == pytest.approx(0.773, abs=0.025)


def test_every_next_comparison_goes_where_it_lowers_the_variance_most():
    # W s = 0.5 * 0.1 and 0.5 * 0.3: Neyman gives 1 : 3. From 1 and 1, eight more: 2.5 : 7.5 of ten, in whole numbers.
    assert allocate([0.5, 0.5], [0.1, 0.3], [1, 1], [99, 99], 8) in ([1, 7], [2, 6])
    # By hand: a stratum without any comes first; then gains are (W s)^2 / (n (n + 1)).
    assert allocate([0.9, 0.1], [0.1, 0.5], [0, 0], [99, 99], 2) == [1, 1]
    # 0.0081 / 2 against 0.0025 / 2, then 0.0081 / 6 = 0.00135 against 0.00125: both go to the first.
    assert allocate([0.9, 0.1], [0.1, 0.5], [1, 1], [99, 99], 2) == [2, 0]
    assert allocate([0.9, 0.1], [0.1, 0.5], [1, 1], [1, 0], 5) == [1, 0]


def test_comparisons_that_people_checked_are_not_suggested_and_prompts_are_spread(tmp_path):
    responses = ("a", "b", "c")
    ends = [(0, 1), (0, 2), (1, 2)]
    record = {**dict.fromkeys(HASHES, "h"), "prompt_ids": [9], "response_ids": [[1], [2], [3]]}
    judge = judged(*(
        ranking(f"prompt {i}", *(pair(0.7, ends=both) for both in ends), responses=responses, judge="toy",
                stopped=[True, False, True], sampled_tokens=[record])
        for i in range(10)
    ))  # fmt: skip
    checked = people(judge, [[1.0] if n < 3 else [] for n in range(30)])
    rows = suggest(judge, checked, 9)
    assert sorted(row.prompt for row in rows) == [f"prompt {i}" for i in range(1, 10)]  # one of each that is left
    assert len(suggest(judge, checked, 100)) == 27
    row = rows[0]
    assert row.provenance["judge"] == "toy"
    assert row.provenance["suggested"] == {"stratum": "60-75 %", "of": 30, "asked": 9}
    ids = {"a": [1], "b": [2], "c": [3]}
    for row in rows:
        assert row.provenance["sampled_tokens"][0]["response_ids"] == [ids[text] for text in row.responses]
        assert row.provenance["stopped"] == [text != "b" for text in row.responses]
    write_jsonl(tmp_path / "suggested.jsonl", [ranking_to_json(row) for row in rows])
    read = load_rankings([DatasetEntry(path=str(tmp_path / "suggested.jsonl"))], on_bad_row="stop", seed=0).rows
    assert [row.responses for row in read] == [row.responses for row in rows]


@pytest.mark.parametrize(("p", "place"), [(0.5, 0), (0.55, 1), (0.45, 1), (0.6, 2), (0.9, 4), (0.03, 5), (1.0, 5)])
def test_strata_are_by_confidence(p, place):
    assert stratum_of(judged(ranking("p", pair(p))).items[0]) == place
    assert len(EDGES) == 5


def test_kappa_of_all_weights_strata_by_their_share():
    # Two strata: 8 labels at 0.95, 2 at 0.55. People checked 2 of the first (both right), 2 of the second (one right).
    judge = judged(*(ranking(f"p{i}", pair(0.95 if i < 8 else 0.55)) for i in range(10)))
    checked = people(judge, [[1.0], [1.0], *[[]] * 6, [1.0], [-1.0]])
    found = kappa_of_all(judge.items, matches(judge.items, checked), Bootstrap(samples=50))
    # Agreement is 0.8 * 1 + 0.2 * 0.5 = 0.9, and kappa 2 * 0.9 - 1 = 0.8; the plain one is 2 * 0.75 - 1 = 0.5.
    assert found["value"] == pytest.approx(0.8, abs=1e-12)
    assert kappa(matches(judge.items, checked), Bootstrap(samples=50))["value"] == pytest.approx(0.5, abs=1e-12)
    partly = people(judge, [[1.0], [1.0], *[[]] * 8])
    assert kappa_of_all(judge.items, matches(judge.items, partly), Bootstrap(samples=50)) is None
