"""Rows of every layout, spoiled: each is read as an independent rule says, or refused in one line with its place."""

import contextlib
import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings
from alignment.errors import AlignmentError, DataError
from tests.hostile.reading import EXAMPLES, LOADERS, in_time, load_all, refused, sound, write
from tests.hostile.rows import GOOD, spoiled, spoiled_copy, text_of

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@pytest.mark.parametrize("name", GOOD)
def test_the_good_rows_are_read(folder, name):
    assert load_all(write(folder, "a.jsonl", text_of(GOOD[name]) + "\n"))


@settings(max_examples=EXAMPLES * 4)
@given(spoiled(), st.booleans(), st.booleans())
def test_spoiled_rows_of_every_layout(folder, made, first, escaped):
    """A spoiled row stands before or after a good one; after it, the good one decides the layout."""
    name, row = made
    good, bad = text_of(GOOD[name]), text_of(row, escaped)
    file = write(folder, "a.jsonl", "\n".join([bad, good] if first else [good, bad]) + "\n")
    found = load_all(file)
    array = load_all(write(folder, "b.json", f"[{bad},\n{good}]" if first else f"[{good},\n{bad}]"))
    assert {key: repr(loaded.rows) for key, loaded in array.items()}.keys() <= found.keys() | array.keys()
    for loader in LOADERS:  # what stops is what skip leaves out
        if (loader, "stop") in found and (loader, "skip") in found:
            assert not found[loader, "skip"].skipped


@settings(max_examples=EXAMPLES)
@given(
    spoiled(),
    st.sampled_from(["ranking", "preference", "argilla", "label_studio", "oasst", "hh", "messages", "llmbar"]),
)
def test_rows_under_the_name_of_a_layout_that_is_not_theirs(folder, made, layout):
    file = write(folder, "c.jsonl", text_of(made[1]) + "\n")
    for loader in LOADERS:
        for on_bad_row in ("stop", "skip"):
            try:
                loaded = loader([DatasetEntry(path=str(file), format=layout)], on_bad_row=on_bad_row, seed=0)
            except DataError as error:
                refused(error, file)
            else:
                for row in loaded.rows:
                    sound(row)


NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(), st.booleans(), st.none(), st.just("1"), st.just([1]),
    st.sampled_from([2**53, 2**53 + 1, 10**17 + 1, 10**400, 1e38, 1.1e38, -1e308, 1e308]),
)  # fmt: skip


def is_number(value):
    """The rule, written anew: a real number that a double holds exactly and that stays clear of float32's end."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return abs(Fraction(value)) <= Fraction(1e38) and (isinstance(value, float) or Fraction(int(float(value))) == value)


@settings(max_examples=EXAMPLES * 2)
@given(st.sampled_from(["ranks", "scores"]), st.lists(NUMBERS, min_size=2, max_size=4))
def test_the_order_of_ranks_and_scores_is_that_of_exact_numbers(folder, key, values):
    responses = [f"answer {index}" for index in range(len(values))]
    file = write(folder, "d.jsonl", json.dumps({"prompt": "p", "responses": responses, key: values}) + "\n")
    expected = all(map(is_number, values))
    try:
        (row,) = load_rankings([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0).rows
    except DataError as error:
        refused(error, file)
        assert not expected
        return
    assert expected
    for pair in row.pairs:
        lead = Fraction(values[pair.first]) - Fraction(values[pair.second])
        lead = -lead if key == "ranks" else lead
        assert (pair.probability, pair.status) == ((0.5, "tie") if lead == 0 else (float(lead > 0), "ok"))


@settings(max_examples=EXAMPLES * 2)
@given(st.sampled_from(["probability", "margin", "scores"]), NUMBERS, NUMBERS)
def test_the_numbers_of_a_choice(folder, key, one, other):
    more = {"score_chosen": one, "score_rejected": other} if key == "scores" else {key: one}
    file = write(folder, "e.jsonl", json.dumps({"prompt": "p", "chosen": "a", "rejected": "b", **more}) + "\n")
    if key == "probability":
        expected = one is None or (is_number(one) and 0 <= one <= 1)
    elif key == "margin":
        expected = one is None or (is_number(one) and one >= 0)
    else:
        expected = one is None or other is None or (is_number(one) and is_number(other) and one >= other)
    # The boundary refuses an integer of more digits wherever it stands.
    expected = expected and not any(isinstance(v, int) and abs(v) >= 10**100 for v in more.values())
    expected = expected and not any(isinstance(v, float) and not math.isfinite(v) for v in more.values())
    try:
        (row,) = load_rankings([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0).rows
    except DataError as error:
        refused(error, file)
        assert not expected
        return
    assert expected
    assert row.pairs[0].probability == (one if key == "probability" and one is not None else 1.0)


@settings(max_examples=EXAMPLES)
@given(NUMBERS | st.sampled_from(["1", "2", 1, 2, 1.0, True]))
def test_llmbar_s_label_is_1_or_2(folder, label):
    file = write(folder, "f.jsonl", json.dumps({"input": "p", "output_1": "a", "output_2": "b", "label": label}) + "\n")
    try:
        (row,) = load_rankings([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0).rows
    except DataError as error:
        refused(error, file)
        assert isinstance(label, bool) or label not in (1, 2)
    else:
        assert not isinstance(label, bool)
        assert row.pairs[0].probability == {1: 1.0, 2: 0.0}[label]


def readers(file):
    """Everything else that reads rows of people, judges and answers."""
    from alignment.config.schema.judges import judge_entry
    from reward.audit.items import read_gold, read_labels
    from reward.bench.reading import read_bench
    from reward.judges.backends.replay import ReplayJudge
    from reward.labels.recordings import is_recording, read_recording
    from reward.models.score_file import score_file
    from reward.people.items import load_items, place_of
    from reward.people.mix import mix

    path = Path(file)
    return {
        "score": lambda: score_file("no/such/model", path),
        "bench": lambda: read_bench([str(path)]),
        "bench skip": lambda: read_bench([str(path)], on_bad_row="skip", column="subset"),
        "audit": lambda: read_labels([path]),
        "gold": lambda: read_gold(str(path)),
        "mix": lambda: mix([str(path)], path.with_name("mixed.jsonl"), bootstrap=5, tell=lambda line: None),
        "annotate": lambda: load_items(place_of(path, None), ask="pairs"),
        "recording": lambda: read_recording(path) if is_recording(path) else None,
        "replay": lambda: ReplayJudge.from_entry(judge_entry(kind="replay", path=str(path)), None),
    }


def refusal_of(command):
    """Run a command; return its refusal, "" where it takes the rows."""
    try:
        command()
    except AlignmentError as error:
        return str(error)
    return ""


@settings(max_examples=EXAMPLES)
@given(spoiled(), st.booleans())
def test_spoiled_rows_in_every_command_that_reads_rows(folder, made, array):
    good, bad = text_of(GOOD[made[0]]), text_of(made[1])
    text = f"[{good},\n{bad}]" if array else f"{good}\n{bad}\n"
    file = write(folder, "k.json" if array else "k.jsonl", text)
    for command in readers(file).values():
        with in_time(), contextlib.suppress(AlignmentError):
            command()


RECORDED = {
    "input": "p",
    "output_1": "a",
    "output_2": "b",
    "label": 1,
    "results": [
        {"swap = False": {"winner": "1", "completion": ["x"]}, "swap = True": {"winner": "2", "completion": "y"}}
    ],
}
SCORED = [
    {"prompt": "p", "answer": "a"},
    {"prompt": "p", "responses": ["a", "b"]},
    {"messages": GOOD["messages"]["messages"]},
]


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_spoiled_recordings_and_rows_to_score(folder, data):
    for name, good in (("recorded", RECORDED), ("scored", data.draw(st.sampled_from(SCORED)))):
        bad = data.draw(spoiled_copy(good))
        text = f"[{text_of(good)}, {text_of(bad)}]" if name == "recorded" else f"{text_of(good)}\n{text_of(bad)}\n"
        file = write(folder, "result.json" if name == "recorded" else "l.jsonl", text)
        for command in readers(file).values():
            with in_time():
                said = refusal_of(command)
                assert "\n" not in said or "Known layouts" in said or "gives no usable row" in said


@settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate])  # a page takes a while: no shrinking
@given(st.data())
def test_spoiled_logs_in_the_report(folder, data):
    from alignment.report import build

    run = folder / "run"
    run.mkdir(exist_ok=True)
    metrics = {"step": 1, "score": 0.5, "kl": 1.0, "loss": 2.0, "watch_x": 1.0, "watch_x_spread": 1.0, "score_std": 1.0}
    sample = {"step": 1, "prompt": "p", "answer": "a", "score": 0.5}
    manifest = {
        "stage": "ppo",
        "status": "finished",
        "recipe": {"seed": 0},
        "started": "2026-01-01T00:00:00",
        "results": {},
    }
    files = {"metrics.jsonl": metrics, "samples.jsonl": sample, "manifest.json": manifest}
    for name, good in files.items():
        bad = data.draw(spoiled_copy(good))
        text = text_of(bad) if name == "manifest.json" else f"{text_of(good)}\n{text_of(bad)}\n" * 4
        write(run, name, text)
    with in_time():
        build([run], folder / "report.html")
