"""Labels of people and judges in one data set: matched by text, weighed by trust, with all that they came from."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data.load import load_rankings
from alignment.data.rows import Pair, Ranking, SingleVerdict
from alignment.data.sampled import HASHES
from alignment.errors import AlignmentError, DataError
from reward.people.mix import mix
from reward.people.mixing import gather, labeller_of, tabulate

ROOT = Path(__file__).parents[3]


def row(prompt, responses, pairs, **provenance):
    found = [dict(zip(("first", "second", "probability", "status"), pair, strict=True)) for pair in pairs]
    return {"prompt": prompt, "responses": responses, "pairs": found, "provenance": provenance}


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def person(name):
    return {"source": "person", "annotator": name, "judge": f"person:{name}", "prompt_hash": "guide"}


def run(sources, output, **options):
    told = []
    mix(sources, output, **{"bootstrap": 0, "tell": told.append, **options})
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return rows, json.loads(output.with_name(f"{output.stem}.labellers.json").read_text()), told


def test_sampled_tokens_stay_with_their_texts(tmp_path):
    def record(hashes, *ids):
        return {**dict.fromkeys(HASHES, hashes), "prompt_ids": [9], "response_ids": list(ids)}

    one = write(tmp_path / "one.jsonl", [
        row("Q", ["a", "b"], [(0, 1, 0.9, "ok")], judge="j", stopped=[True, False],
            sampled_tokens=[record("x", [1, 0], [2])]),
        row("Q", ["b", "c"], [(0, 1, 0.9, "ok")], judge="j", stopped=[True, True],
            sampled_tokens=[record("x", [2, 0], [3, 0])]),
    ])  # fmt: skip
    other = write(tmp_path / "other.jsonl", [
        row("Q", ["a", "d"], [(0, 1, 0.9, "ok")], judge="k", stopped=[True, True],
            sampled_tokens=[record("y", [7, 0], [8, 0])]),
        row("Q", ["d", "human"], [(0, 1, 0.9, "ok")], **person("Ben")),
    ])  # fmt: skip
    (mixed,), _, _ = run([one, other], tmp_path / "mixed.jsonl")
    assert mixed["responses"] == ["a", "b", "c", "d", "human"]
    assert mixed["provenance"]["stopped"] == [True, False, True, True, True]  # "b" was cut off once
    assert mixed["provenance"]["sampled_tokens"] == [
        record("x", [1, 0], [2], [3, 0], [], []),
        record("y", [7, 0], [], [], [8, 0], []),
    ]
    assert all("sampled_tokens" not in label["provenance"] for label in mixed["provenance"]["labels"])


def test_labels_meet_by_text_whatever_their_order(tmp_path):
    judge = write(tmp_path / "judge.jsonl", [
        row("Q", ["a", "b", "c"], [(0, 1, 0.875, "ok"), (0, 2, 0.75, "ok"), (1, 2, None, "api_error")],
            judge="gpt", prompt_hash="0123456789", stopped=[True, False, True]),
    ])  # fmt: skip
    people = write(tmp_path / "people.jsonl", [
        row("Q", ["c", "a"], [(0, 1, 0.0, "ok")], stopped=[True, True], **person("Anna")),
        row("Q", ["b", "a"], [(0, 1, 0.5, "tie")], **person("Ben")),
        row("Q", ["b", "c"], [(0, 1, None, "abstain")], **person("Ben")),
        row("Q", ["d", "d"], [(0, 1, 0.5, "tie")], **person("Ben")),
    ])  # fmt: skip
    (mixed,), record, _ = run([judge, people], tmp_path / "mixed.jsonl", smoothing=1e12)
    assert mixed["responses"] == ["a", "b", "c", "d"]
    pairs = {(pair["first"], pair["second"]): pair for pair in mixed["pairs"]}
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    # The prior's matrices: right 0.7, wrong 0.2, tie 0.1 and 0.5 tie where neither is better, which holds for 0.1.
    # a-b: the judge's 0.875 and Ben's tie. first 0.45·(0.875·0.7 + 0.125·0.2)·0.1 = 0.0286875;
    # second 0.45·(0.875·0.2 + 0.125·0.7)·0.1 = 0.0118125; neither 0.1·0.25·0.5 = 0.0125; sum 0.053
    assert pairs[0, 1]["probability"] == pytest.approx((0.0286875 + 0.00625) / 0.053, abs=1e-6)
    assert pairs[0, 1]["status"] == "ok"
    # a-c: the judge's 0.75 and Anna's a over c, told as c against a at 0.
    # first 0.45·(0.75·0.7 + 0.25·0.2)·0.7 = 0.181125; second 0.45·(0.75·0.2 + 0.25·0.7)·0.2 = 0.02925;
    # neither 0.1·0.25·0.25 = 0.00625; sum 0.216625
    assert pairs[0, 2]["probability"] == pytest.approx((0.181125 + 0.003125) / 0.216625, abs=1e-6)
    assert (pairs[1, 2]["probability"], pairs[1, 2]["status"]) == (None, "abstain")
    assert mixed["provenance"]["stopped"] == [True, False, True, True]
    assert record["pairs"] == 2
    assert record["statuses"] == {"abstain": 1, "ok": 2}
    assert {one["labeller"]: one["labels"] for one in record["labellers"]} == {
        "gpt@01234567": 2,
        "person:Anna": 1,
        "person:Ben": 1,
    }


def test_every_row_keeps_all_that_it_came_from(tmp_path):
    verdict = {"shown": "first", "repeat": 0, "probability": 0.0, "status": "ok", "mass": None}
    mine = row("Q", ["c", "a"], [(0, 1, 0.0, "ok")], **person("Anna"))
    mine["pairs"][0]["verdicts"] = [verdict]
    sources = [
        write(tmp_path / "j.jsonl", [row("Q", ["a", "c"], [(0, 1, 0.75, "ok")], judge="gpt", policy={"path": "sft"})]),
        write(tmp_path / "p.jsonl", [mine]),
    ]
    (mixed,), _, _ = run(sources, tmp_path / "mixed.jsonl")
    assert {key: value for key, value in mixed["provenance"].items() if key != "labels"} == {
        "source": "mixed",
        "judge": "dawid-skene",
        "stopped": [True, True],
    }
    judge, anna = mixed["provenance"]["labels"]
    assert judge["provenance"] == {"judge": "gpt", "policy": {"path": "sft"}}
    assert anna["labeller"] == "person:Anna"
    assert anna["provenance"] == person("Anna")
    assert anna["pairs"] == [  # turned to the row's own order: a first
        {"first": 0, "second": 1, "probability": 1.0, "status": "ok", "verdicts": [{**verdict, "shown": "swapped"}]}
    ]


def test_all_say_tie_is_a_tie(tmp_path):
    tie = [(0, 1, 0.5, "tie")]
    sources = [write(tmp_path / f"{name}.jsonl", [row("Q", ["a", "b"], tie, **person(name))]) for name in "xyz"]
    (mixed,), _, _ = run(sources, tmp_path / "mixed.jsonl")
    assert mixed["pairs"] == [{"first": 0, "second": 1, "probability": 0.5, "status": "tie"}]


def test_the_same_labeller_twice_counts_once():
    twice = [Ranking("Q", ["a", "b"], [Pair(0, 1, p)], {"judge": "j"}) for p in (1.0, 0.5)]
    table = tabulate(gather(twice))
    assert table.labels.outcomes.tolist() == [[0.75, 0.25, 0.0]]
    assert table.labellers == ["j"]


def test_the_labeller_is_named_by_provenance_else_by_file():
    def name(provenance, where=""):
        return labeller_of(Ranking("Q", ["a", "b"], [], provenance, where))

    assert name({"source": "person", "annotator": "Anna", "judge": "x"}) == "person:Anna"
    assert name({"judge": "gpt", "prompt_hash": "0123456789"}) == "gpt@01234567"
    assert name({"judge": "gpt"}) == "gpt"
    assert name({}, "data/pairs.jsonl:7") == "pairs.jsonl"


def test_turning_a_pair_turns_what_was_shown():
    (about,) = gather(
        [
            Ranking("Q", ["a", "b"], []),
            Ranking("Q", ["b", "a"], [Pair(0, 1, 0.25, verdicts=(SingleVerdict("first", 0, 0.125, "ok", 0.5),))]),
        ]
    )
    assert about.labels[1][1].pairs == [Pair(0, 1, 0.75, verdicts=(SingleVerdict("swapped", 0, 0.125, "ok", 0.5),))]


@pytest.fixture
def crowd(tmp_path):
    """Two careful people, a careless one and a judge with probabilities, on 200 pairs whose truth is known."""
    draw = random.Random(0)
    files = {}
    right = {"Anna": 0.92, "Ben": 0.88, "Cem": 0.55}
    for name, accuracy in right.items():
        rows = []
        for number in range(200):
            good, bad = f"good {number}", f"bad {number}"
            says_good = draw.random() < accuracy
            shown = [good, bad] if draw.random() < 0.5 else [bad, good]
            first = float((shown[0] == good) == says_good)
            rows.append(row(f"Q{number // 2}", shown, [(0, 1, first, "ok")], **person(name)))
        files[name] = write(tmp_path / f"{name}.jsonl", rows)
    rows = []
    for number in range(200):
        sure = draw.uniform(0.5, 1.0)
        for_good = sure if draw.random() < sure else 1 - sure
        rows.append(row(f"Q{number // 2}", [f"good {number}", f"bad {number}"], [(0, 1, for_good, "ok")], judge="gpt"))
    files["judge"] = write(tmp_path / "judge.jsonl", rows)
    return files


def test_trust_is_earned_and_the_mixture_trains(tmp_path, crowd):
    rows, record, told = run(list(crowd.values()), tmp_path / "mixed.jsonl", bootstrap=50)
    accuracy = {one["labeller"]: one["accuracy"] for one in record["labellers"]}
    for name, true in (("person:Anna", 0.92), ("person:Ben", 0.88), ("person:Cem", 0.55)):
        assert accuracy[name] == pytest.approx(true, abs=0.07)
        low, high = next(one["interval"] for one in record["labellers"] if one["labeller"] == name)
        assert low < accuracy[name] < high
        assert high - low < 0.25
    assert all(one["told_apart"] for one in record["labellers"])
    hits = []
    for mixed in rows:
        for pair in mixed["pairs"]:
            better = pair["first"] if pair["probability"] > 0.5 else pair["second"]
            hits.append(mixed["responses"][better].startswith("good"))
    assert len(hits) == 200
    assert sum(hits) / 200 > 0.94  # the best of the four alone: 0.92
    loaded = load_rankings([DatasetEntry(path=str(tmp_path / "mixed.jsonl"))], on_bad_row="stop", seed=0)
    assert len(loaded.rows) == 100
    assert told[0].split() == ["labeller", "labels", "shared", "accuracy", "95", "%", "interval", "ties"]
    assert not any("*" in line for line in told)


def test_two_labellers_cannot_be_estimated(tmp_path, crowd):
    _, record, told = run([crowd["Anna"], crowd["Cem"]], tmp_path / "mixed.jsonl")
    assert not any(one["told_apart"] for one in record["labellers"])
    assert sum("*" in line for line in told) == 3
    assert "Have three label some of them" in told[3]


def test_the_command_and_its_faults(tmp_path, crowd):
    command = [sys.executable, "-m", "alignment.cli", "mix"]

    def alignment(*words):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([*command, *words], capture_output=True, text=True, cwd=tmp_path, env=environment)

    done = alignment(crowd["Anna"], crowd["Ben"], crowd["judge"], "--output", "out/mixed.jsonl", "--bootstrap", "20")
    assert done.returncode == 0
    described = [f"{crowd[who]}: layout ranking; first row: prompt text 'Q0'" for who in ("Anna", "Ben", "judge")]
    assert [line.partition(",")[0] for line in done.stderr.splitlines()] == described
    assert "person:Anna" in done.stdout
    assert (tmp_path / "out" / "mixed.labellers.json").is_file()
    assert alignment("none.jsonl", "--output", "m.jsonl").stderr.startswith("none.jsonl does not exist")
    assert not (tmp_path / "m.jsonl").exists()


def test_labels_that_cannot_be_mixed_are_reported_and_nothing_is_written(tmp_path):
    source = write(tmp_path / "a.jsonl", [row("Q", ["a", "b"], [(0, 1, None, "abstain")], judge="j")])
    with pytest.raises(DataError, match="no pair has a usable label"):
        run([source], tmp_path / "m.jsonl")
    with pytest.raises(AlignmentError, match="is one of the files to read"):
        run([source], tmp_path / "a.jsonl")
    with pytest.raises(AlignmentError, match=r"ends in \.jsonl"):
        run([source], tmp_path / "m.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_four_recorded_judges_are_judged_as_gold_judges_them(tmp_path, shared):
    evaluators = shared / "data" / "llmbar-natural" / "evaluators"
    names = ["GPT-4/Vanilla", "GPT-4/Vanilla_NoRules", "ChatGPT/Vanilla", "ChatGPT/Vanilla_NoRules"]
    rows, record, _ = run([str(evaluators / name) for name in names], tmp_path / "mixed.jsonl", bootstrap=100)
    recordings = {name: json.loads((evaluators / name / "result.json").read_text()) for name in names}
    found = {one["labeller"].partition("@")[0]: one for one in record["labellers"]}
    gold, true = {}, {}
    for name, comparisons in recordings.items():
        decided = []
        for one in comparisons:
            gold[one["input"], one["output_1"], one["output_2"]] = one["label"]
            winners = {str(one["results"][-1][f"swap = {swapped}"]["winner"]) for swapped in (False, True)}
            if len(winners) == 1:
                decided.append(winners == {str(one["label"])})
        true[name] = sum(decided) / len(decided)
    assert [round(100 * accuracy, 1) for accuracy in true.values()] == [97.9, 94.8, 94.4, 92.6]
    for name, accuracy in true.items():
        assert found[name]["accuracy"] == pytest.approx(accuracy, abs=0.015)
        low, high = found[name]["interval"]
        assert low - 0.005 <= accuracy <= high + 0.005
    hits = 0
    for mixed in rows:
        (pair,) = mixed["pairs"]
        first, second = (mixed["responses"][pair[end]] for end in ("first", "second"))
        label = gold[mixed["prompt"][0]["content"], first, second]
        hits += (pair["probability"] > 0.5) == (label == 1)
    assert hits == 96


def test_a_mistyped_path_is_refused_and_not_looked_up_on_the_hub(tmp_path):
    with pytest.raises(DataError, match="runs/lable does not exist"):
        mix(["runs/lable"], tmp_path / "mixed.jsonl", tell=print)


def test_a_bad_row_may_be_left_out_and_is_recorded(tmp_path):
    rows = [{"prompt": f"p{n}", "responses": ["a", "b"], "ranks": [1, 2]} for n in range(3)]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "ranks": [1]}]))
    with pytest.raises(DataError, match="set on_bad_row: skip"):
        mix([str(labels)], tmp_path / "mixed.jsonl", bootstrap=0, tell=print)
    mix([str(labels)], tmp_path / "mixed.jsonl", bootstrap=0, on_bad_row="skip", tell=print)
    assert len(json.loads((tmp_path / "mixed.labellers.json").read_text())["skipped"]) == 1


def test_mixed_labels_can_be_read_again(tmp_path):
    """A pair of which a tie is likeliest keeps its probability."""
    files = []
    for place, ranks in enumerate([[1, 1], [1, 1], [1, 2], [1, 1], [1, 1]]):
        files.append(tmp_path / f"{place}.jsonl")
        files[-1].write_text(
            "".join(
                json.dumps({"prompt": f"p{n}", "responses": ["a", "b"], "ranks": ranks if n % 3 else [1, 2]}) + "\n"
                for n in range(12)
            )
        )
    mix(list(map(str, files)), tmp_path / "mixed.jsonl", bootstrap=0, tell=print)
    found = load_rankings([DatasetEntry(path=str(tmp_path / "mixed.jsonl"))], on_bad_row="stop", seed=0).rows
    assert len(found) == 12
    assert any(row.pairs[0].probability not in (0.0, 0.5, 1.0) for row in found)
