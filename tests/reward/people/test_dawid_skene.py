"""Who is right how often: by hand, against two other implementations, and where the truth is known."""

import math

import numpy as np
import pytest

from reward.people import dawid_skene
from reward.people.dawid_skene import Estimate, Labels, bootstrap_accuracy, estimate, told_apart
from tests.reference.dawid_skene import dawid_skene as reference

FIXED = 1e12  # a prior that no label moves


def hard(rows: list[str]) -> Labels:
    """Labels of pairs, one letter a labeller: 0 first, 1 second, 2 tie, - none."""
    said = [
        (pair, who, int(letter)) for pair, row in enumerate(rows) for who, letter in enumerate(row) if letter != "-"
    ]
    pair, who, outcome = (np.array(column) for column in zip(*said, strict=True))
    return Labels(pair, who, np.eye(3)[outcome], len(rows), len(rows[0]))


def test_a_posterior_by_hand():
    # Three labellers with right 0.7, wrong 0.2, tie 0.1, and 0.5 tie where neither is better; 0.1 of pairs are ties.
    # first: 0.45·0.7·0.7·0.2 = 0.0441; second: 0.45·0.2·0.2·0.7 = 0.0126; tie: 0.1·0.25³ = 0.0015625
    # The other pair, said to be a tie by one: 0.45·0.1 = 0.045, the same, 0.1·0.5 = 0.05; sum 0.14
    found = estimate(hard(["001", "2--"]), smoothing=FIXED)
    total = 0.0441 + 0.0126 + 0.0015625
    assert found.truth[0] == pytest.approx([0.0441 / total, 0.0126 / total, 0.0015625 / total], abs=1e-9)
    assert found.truth[1] == pytest.approx([0.045 / 0.14, 0.045 / 0.14, 0.05 / 0.14], abs=1e-9)


def test_a_soft_label_by_hand():
    # 0.9 for the first; nobody says tie, so no pair is one.
    # first: 0.9·0.7 + 0.1·0.2 = 0.65; second: 0.9·0.2 + 0.1·0.7 = 0.25
    labels = Labels(np.array([0]), np.array([0]), np.array([[0.9, 0.1, 0.0]]), 1, 1)
    assert estimate(labels, smoothing=FIXED).truth[0] == pytest.approx([0.65 / 0.9, 0.25 / 0.9, 0.0], abs=1e-9)
    # A labeller that is always right hands its probability on.
    sure = Estimate(np.empty((0, 3)), np.array([[1.0, 0.0, 0.0]]), np.array([0.5]), 0.0, 0.0, 0, False)
    truth, _, _ = dawid_skene._expect(labels, sure, np.ones(1), 0.0)
    assert truth[0] == pytest.approx([0.9, 0.1, 0.0])


def test_three_labellers_have_a_closed_form():
    # Without ties, labellers i and j agree in (1 + e_i·e_j) / 2 of the pairs, where e = 2·accuracy - 1. Of 100 pairs 70
    # unanimous, 10 against the third, 14 against the second, 6 against the first: the agreements are 0.80 (1, 2),
    # 0.84 (1, 3) and 0.76 (2, 3), so e_1·e_2 = 0.60, e_1·e_3 = 0.68, e_2·e_3 = 0.52, and e_1 = sqrt(0.60·0.68/0.52) ...
    rows = (
        ["000"] * 35 + ["111"] * 35 + ["001"] * 5 + ["110"] * 5 + ["010"] * 7 + ["101"] * 7 + ["100"] * 3 + ["011"] * 3
    )
    found = estimate(hard(rows), smoothing=0.0)
    expected = [math.sqrt(0.60 * 0.68 / 0.52), math.sqrt(0.60 * 0.52 / 0.68), math.sqrt(0.68 * 0.52 / 0.60)]
    assert 2 * found.accuracy - 1 == pytest.approx(expected, abs=1e-3)
    assert found.ties == 0.0


# Four labellers on 60 pairs. The posteriors of crowd-kit 1.4.2's DawidSkene(n_iter=20000, tol=0) on these and their
# mirror image, every pair once more with first and second exchanged, which makes its matrices symmetric as ours are.
ROWS = (
    "202- 0010 0101 1-00 0000 00-0 2212 1011 0020 2222 -122 0010 010- 0101 0000 0000 0211 000- 0000 1112 "
    "11-- 00-0 1111 000- 0100 2202 1110 00-2 200- 212- 1111 1021 1110 1111 0200 --00 ---2 0020 11-1 11-1 "
    "0010 011- 000- 020- 0002 1202 1111 001- -212 0211 0-00 1-11 1101 1111 -220 02-- 1100 1110 0000 1112"
).split()
CROWD_KIT_FIRST = [
    0.0, 0.988253, 0.469987, 0.654707, 0.998915, 0.99642, 0.0, 0.044004, 0.99642, 0.0, 0.029521, 0.988253, 0.814443,
    0.469987, 0.998915, 0.998915, 0.345293, 0.994654, 0.998915, 0.005346, 0.017472, 0.99642, 0.001085, 0.994654,
    0.955996, 0.0, 0.025913, 0.982528, 0.0, 0.0, 0.001085, 0.132166, 0.025913, 0.001085, 0.99298, 0.942452, 0.23953,
    0.99642, 0.00358, 0.00358, 0.988253, 0.286197, 0.994654, 0.96619, 0.994654, 0.276969, 0.001085, 0.944434, 0.080613,
    0.345293, 0.99298, 0.00702, 0.011747, 0.001085, 0.831926, 0.896236, 0.225538, 0.025913, 0.998915, 0.005346,
]  # fmt: skip
CROWD_KIT_TIES = {0: 1.0, 6: 1.0, 9: 1.0, 10: 0.778269, 25: 1.0, 28: 1.0, 29: 1.0, 36: 0.52094, 48: 0.652666}


def test_crowd_kit_finds_the_same():
    found = estimate(hard(ROWS), smoothing=0.0, tolerance=1e-14)
    assert found.truth[:, 0] == pytest.approx(CROWD_KIT_FIRST, abs=2e-6)
    assert found.truth[:, 2] == pytest.approx([CROWD_KIT_TIES.get(pair, 0.0) for pair in range(60)], abs=2e-6)
    assert found.accuracy == pytest.approx([0.896236, 0.86686, 0.767908, 0.831926], abs=2e-6)
    assert found.ties == pytest.approx(0.132531, abs=2e-6)


@pytest.mark.parametrize("smoothing", [0.5, 10.0])
@pytest.mark.parametrize("with_ties", [True, False])
def test_plain_loops_find_the_same(monkeypatch, smoothing, with_ties):
    generator = np.random.default_rng(3)
    pair, who = np.divmod(generator.permutation(120)[:80], 4)
    said = generator.dirichlet([0.6, 0.6, 0.4], size=80)
    if not with_ties:
        said[:, 2] = 0.0
        said /= said.sum(axis=1, keepdims=True)
    labels = Labels(pair, who, said, 30, 4)
    monkeypatch.setattr(dawid_skene, "MOST_STEPS", 12)
    found = estimate(labels, smoothing=smoothing, tolerance=-np.inf)
    by_pair: dict = {int(number): {} for number in pair}
    for number, labeller, weights in zip(pair, who, said, strict=True):
        by_pair[int(number)][int(labeller)] = [float(weight) for weight in weights]
    truth, _, _, _ = reference(by_pair, range(4), smoothing=smoothing, steps=12)
    for number, expected in truth.items():
        assert found.truth[number] == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_every_step_gains(monkeypatch):
    monkeypatch.setattr(dawid_skene, "MOST_STEPS", 1)
    labels, weights = hard(ROWS), np.random.default_rng(0).integers(3, size=60).astype(float)
    now = estimate(labels, smoothing=3.0, weights=weights)
    gains = []
    for _ in range(60):
        after = estimate(labels, smoothing=3.0, weights=weights, start=now)
        gains.append(after.log_posterior - now.log_posterior)
        now = after
    assert min(gains[1:]) >= -1e-9
    assert gains[1] > 0


def test_which_answer_is_called_first_changes_nothing():
    labels = hard(ROWS)
    turned = np.isin(labels.pair, np.arange(0, 60, 2))
    said = np.where(turned[:, None], labels.outcomes[:, [1, 0, 2]], labels.outcomes)
    found, other = estimate(labels), estimate(Labels(labels.pair, labels.labeller, said, 60, 4))
    assert other.accuracy == pytest.approx(found.accuracy, abs=1e-9)
    assert other.truth[::2, 0] == pytest.approx(found.truth[::2, 1], abs=1e-9)
    assert other.truth[1::2] == pytest.approx(found.truth[1::2], abs=1e-9)


TRUE = [(0.85, 0.10, 0.05, 0.7), (0.70, 0.20, 0.10, 0.6), (0.55, 0.35, 0.10, 0.5)]  # right, wrong, tie; tie of ties


def simulated(pairs: int, seed: int) -> tuple[Labels, np.ndarray]:
    """Three people with known confusion, and a judge whose probability is right as often as it says."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(3, size=pairs, p=[0.45, 0.45, 0.10])
    pair, who, said = [], [], []
    for number, true in enumerate(truth):
        for person, (right, wrong, tie, neither) in enumerate(TRUE):
            row = [(1 - neither) / 2, (1 - neither) / 2, neither] if true == 2 else [right, wrong, tie]
            outcome = generator.choice(3, p=row if true != 1 else [wrong, right, tie])
            said.append(np.eye(3)[outcome])
            pair.append(number)
            who.append(person)
        confidence = generator.uniform(0.5, 1.0)
        for_truth = generator.random() < confidence
        first = confidence if (true == 0) == for_truth else 1 - confidence
        said.append(np.array([generator.choice([confidence, 1 - confidence]) if true == 2 else first] * 2 + [0.0]))
        said[-1][1] = 1 - said[-1][0]
        pair.append(number)
        who.append(3)
    return Labels(np.array(pair), np.array(who), np.array(said), pairs, 4), truth


def test_known_labellers_are_found():
    labels, truth = simulated(4000, 1)
    found = estimate(labels)
    expected = [right / (right + wrong) for right, wrong, _, _ in TRUE]
    assert found.accuracy[:3] == pytest.approx(expected, abs=0.025)
    assert found.better[:3, 2] == pytest.approx([tie for _, _, tie, _ in TRUE], abs=0.03)
    assert found.ties == pytest.approx(0.10, abs=0.05)
    assert found.accuracy[3] > 0.95  # a calibrated judge's probabilities need no discount
    best = np.argmax(found.truth, axis=1)
    majority = np.zeros((4000, 3))
    np.add.at(majority, labels.pair, labels.outcomes)
    assert np.mean(best == truth) > np.mean(np.argmax(majority, axis=1) == truth) + 0.02
    # What is said with a probability comes true that often.
    decided = truth != 2
    for low in (0.5, 0.7, 0.9):
        said = found.truth[decided].max(axis=1)
        chosen = (said >= low) & (said < low + 0.1)
        assert np.mean(best[decided][chosen] == truth[decided][chosen]) == pytest.approx(said[chosen].mean(), abs=0.06)


def test_intervals_cover():
    covered = []
    for seed in range(6):
        labels, _ = simulated(300, seed)
        found = estimate(labels)
        clusters = np.arange(300) // 3
        intervals = bootstrap_accuracy(labels, clusters, found, samples=40, seed=seed)
        assert np.all(intervals[:, 0] < intervals[:, 1])
        for person, (right, wrong, _, _) in enumerate(TRUE):
            covered.append(intervals[person, 0] <= right / (right + wrong) <= intervals[person, 1])
    assert np.mean(covered) >= 0.85


def test_the_bootstrap_is_reproducible_and_resamples_clusters():
    labels, found = hard(ROWS), estimate(hard(ROWS))
    one = bootstrap_accuracy(labels, np.arange(60), found, samples=20, seed=4)
    assert np.array_equal(one, bootstrap_accuracy(labels, np.arange(60), found, samples=20, seed=4))
    together = bootstrap_accuracy(labels, np.zeros(60, dtype=int), found, samples=20, seed=4)
    assert together[:, 0] == pytest.approx(together[:, 1])  # of one prompt every resample is the same


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["0--", "-0-", "--0"], [False] * 3),  # nobody meets
        (["00-", "11-", "--0"], [False] * 3),  # two meet
        (["00-", "-00", "1--"], [False] * 3),  # a chain
        (["00-", "-00", "0-0"], [True] * 3),
        (["000-", "1110", "--00"], [True] * 4),
        (["000-", "111-", "2--0"], [True, True, True, False]),
    ],
)
def test_three_labellers_of_the_same_pairs_are_needed(rows, expected):
    assert told_apart(hard(rows)).tolist() == expected


def test_nothing_known_is_the_prior():
    found = estimate(hard(["0-", "-1"]))
    assert found.accuracy == pytest.approx([0.7 / 0.9] * 2, abs=1e-3)
