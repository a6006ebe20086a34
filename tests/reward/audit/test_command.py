"""`alignment audit` as its user meets it: words, numbers, a page, files that other verbs read, exit codes."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings, ranking_to_json
from alignment.errors import AlignmentError, DataError
from alignment.report.charts import number
from alignment.run.files import write_jsonl
from reward.audit.command import Outputs, beside, method_of, run
from reward.audit.items import Reading, read_labels
from tests.reward.audit.made import both_orders, ranking

ROOT = Path(__file__).parents[3]


def write_run(folder: Path, size: int = 60, judge: str = "toy <b>judge</b>") -> Path:
    """A finished label run of a judge that is too sure, and people who voted on all of it."""
    draw, labels, votes = np.random.default_rng(0), [], []
    for i in range(size):
        texts = [f"answer {i}", f"a longer answer {i}"]
        p = float(draw.choice([0.02, 0.98]))
        voted = (p > 0.5) == (draw.random() < 0.8)
        labels.append(ranking(f"p{i}", both_orders(p, 1 - p), responses=texts, judge=judge, prompt_hash="ab"))
        for name in ("Ann", "Bob"):
            row = {"prompt": f"p{i}", "responses": texts, "ranks": [1, 2] if voted else [2, 1]}
            votes.append(row | {"provenance": {"source": "person", "annotator": name}})
    folder.mkdir(parents=True)
    write_jsonl(folder / "labels.jsonl", [ranking_to_json(row) for row in labels])
    write_jsonl(folder / "people.jsonl", votes)
    usage = {
        "calls": 120,
        "prompt_tokens": 12_000,
        "completion_tokens": 120,
        "cost": 0.6,
        "currency": "USD",
        "seconds": 9,
    }
    manifest = {"stage": "label", "status": "finished", "results": {"usage": usage}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Page(HTMLParser):
    """The tags and the words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def test_text_numbers_and_page_agree(tmp_path):
    folder, said = write_run(tmp_path / "label"), []
    outputs = Outputs(page=tmp_path / "audit.html", json=tmp_path / "audit.json")
    run([folder], None, outputs=outputs, say=said.append)  # people.jsonl beside the labels is found
    found = json.loads((tmp_path / "audit.json").read_text())
    (judge,) = found["judges"]
    accuracy = judge["against"]["accuracy"]["value"]
    assert (judge["against"]["people"], judge["against"]["votes"]) == (2, 120)
    assert judge["spent"]["per_thousand"]["cost"] == pytest.approx(10.0)
    words = "\n".join(said)
    assert f"accuracy                        {100 * accuracy:.1f}%" in words
    assert "10.00 USD, 202,000 tokens, 150 seconds, 2,000 calls" in words
    assert re.search(r"!!  The judge is overconfident", words)
    page = Page((tmp_path / "audit.html").read_text())
    assert f"{100 * accuracy:.1f}%" in page.words
    assert "The judge is overconfident:" in page.words
    people, alone, errors = judge["against"], judge["measures"], judge["calibration"]
    shares = [alone[name] for name in ("coverage", "consistency", "same_position", "tie_rate")]
    shares += [
        people[name]
        for name in ("accuracy_strict", "both_orders_correct", "accuracy_one_order", "accuracy_when_consistent")
    ]
    shares += [people["human_ceiling"]]
    plain = [people["kappa"], *people["alpha"].values(), *people["people_alpha"].values(), *errors["before"].values()]
    plain += [*errors["temperature"]["after"].values(), *errors["isotonic"]["after"].values()]
    written = [f"{100 * share['value']:.1f}%" for share in shares] + [number(measure["value"]) for measure in plain]
    written += [f"{50 + 100 * found['value']:.1f}%" for found in (alone["position_bias"], people["people_length_bias"])]
    missing = [text for text in written if text not in page.words]
    assert missing == []
    assert all(measure["low"] is None or measure["low"] <= measure["value"] <= measure["high"] for measure in plain)
    assert "toy <b>judge</b>" in page.words  # as text, not as markup
    figures = [attrs for tag, attrs in page.tags if tag == "svg" and "data-chart" in attrs]
    assert len(figures) == 3
    assert json.loads(figures[0]["data-chart"])["across"] == "% sure"
    outside = [attrs for tag, attrs in page.tags for key in ("src", "href") if key in attrs]
    assert outside == []  # needs nothing but a browser


def test_labels_may_be_calibrated_and_trained_on(tmp_path):
    folder, said = write_run(tmp_path / "label"), []
    outputs = Outputs(calibrated=beside([folder], "calibrated.jsonl"))
    (found,) = run([folder], None, outputs=outputs, calibrate=method_of("temperature"), say=said.append)
    assert "fitted on 60 comparisons" in said[-1]
    rows = load_rankings([DatasetEntry(path=str(folder / "calibrated.jsonl"))], on_bad_row="stop", seed=0).rows
    sure = {round(max(p, 1 - p), 3) for row in rows if (p := row.pairs[0].probability) is not None}
    assert sure == {round(found["against"]["accuracy"]["value"], 3)}  # as sure as it is right, neither more nor less
    parameters = json.loads((folder / "calibrated.json").read_text())
    assert parameters["temperature"] > 1
    with pytest.raises(AlignmentError, match="--calibrate platt is not known; give temperature or isotonic"):
        method_of("platt")


def test_several_judges_stand_side_by_side_and_choose_nothing(tmp_path):
    folders = [write_run(tmp_path / name, judge=name) for name in ("one", "two")]
    run(folders, None, outputs=Outputs(page=tmp_path / "audit.html"), say=lambda words: None)
    page = Page((tmp_path / "audit.html").read_text())
    assert "2 judges" in page.words
    assert "Side by side" in page.words
    with pytest.raises(AlignmentError, match="--suggest is for the labels of one judge, and these have 2: one, two"):
        run(folders, None, outputs=Outputs(), suggestions=5, say=lambda words: None)


def gold_of(folder, file, matching, others):
    """A file of comparisons, the first `matching` of them those of a run."""
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()[:matching]]
    rows = [{"prompt": row["prompt"], "chosen": row["responses"][0], "rejected": row["responses"][1]} for row in rows]
    write_jsonl(file, rows + [{"prompt": f"other {n}", "chosen": "a", "rejected": "b"} for n in range(others)])
    return file


def test_gold_that_matches_nothing_is_refused(tmp_path):
    folder, said = write_run(tmp_path / "label"), []
    gold = gold_of(folder, tmp_path / "gold.jsonl", 0, 3)
    with pytest.raises(DataError, match="none of its 3 decided comparisons is among the labels; prompt and both ans"):
        run([folder], gold, outputs=Outputs(page=tmp_path / "audit.html"), say=said.append)
    assert not (tmp_path / "audit.html").exists()


@pytest.mark.parametrize(("others", "warned"), [(2, False), (3, True)])
def test_how_many_comparisons_of_gold_match_is_printed(tmp_path, others, warned):
    folder, said = write_run(tmp_path / "label"), []
    gold = gold_of(folder, tmp_path / "gold.jsonl", 2, others)
    run([folder], gold, outputs=Outputs(), say=said.append)
    assert f"{gold}: 2 of {2 + others} comparisons are among the labels" in said[0]
    assert ("!!" in said[0] and "fewer than half" in said[0]) == warned


def test_a_file_of_gold_replaces_the_labels_within_recordings(tmp_path, shared):
    recorded = shared / "data/llmbar-natural/evaluators/GPT-4/Vanilla"
    rows = json.loads((recorded / "result.json").read_text())
    turned = [{"prompt": [{"role": "user", "content": row["input"]}], "chosen": row[f"output_{3 - row['label']}"],
               "rejected": row[f"output_{row['label']}"]} for row in rows]  # fmt: skip
    write_jsonl(tmp_path / "gold.jsonl", turned)
    found, said = {}, []
    for gold in (None, tmp_path / "gold.jsonl"):
        (found[gold],) = run([recorded], gold, outputs=Outputs(), say=said.append)
    own, given = (numbers["against"] for numbers in found.values())
    assert (own["people"], given["people"]) == (1, 1)
    assert given["accuracy"]["value"] == pytest.approx(1 - own["accuracy"]["value"])
    assert "The judge does not prefer what people prefer" in said[-1]


def test_one_bad_row_of_a_recording_may_be_left_out(tmp_path, shared, capsys):
    rows = json.loads((shared / "data/llmbar-natural/evaluators/GPT-4/Vanilla/result.json").read_text())
    rows[3]["label"] = 7
    file = tmp_path / "judge" / "result.json"
    file.parent.mkdir()
    file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"'label' is 7, not 1 or 2.*Or leave such rows out with on_bad_row: skip"):
        run([file], None, outputs=Outputs(), say=print)
    (numbers,) = run([file], None, outputs=Outputs(), reading=Reading(on_bad_row="skip"), say=print)
    assert numbers["comparisons"] == len(rows) - 1
    assert "left out 1 of 100 rows (on_bad_row: skip)" in capsys.readouterr().err


def test_labels_of_one_judge_in_two_files_are_measured_apart_too(tmp_path):
    folders = [write_run(tmp_path / name, size, judge="one") for name, size in (("a", 40), ("b", 60))]
    said = []
    (numbers,) = run(folders, None, outputs=Outputs(), say=said.append)
    apart = numbers["against"]["subsets"]
    assert list(apart) == list(map(str, folders))
    assert [one["accuracy"]["n"] for one in apart.values()] == [40, 60]
    mean = sum(one["accuracy"]["value"] for one in apart.values()) / 2
    assert numbers["against"]["subset_means"]["accuracy"] == pytest.approx(mean)
    assert "accuracy, mean of subsets" in said[0]


def test_an_audit_needs_labels_of_a_judge_or_of_several_people(tmp_path):
    folder = write_run(tmp_path / "label")
    votes = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "one.jsonl", [row for row in votes if row["provenance"]["annotator"] == "Ann"])
    with pytest.raises(DataError, match="there is no label of a judge, and no comparison that two people judged"):
        run([tmp_path / "one.jsonl"], None, outputs=Outputs(), say=lambda words: None)


def test_the_verb_and_its_exit_codes(tmp_path):
    folder = write_run(tmp_path / "label")
    recipe = {"stage": "label", "model_name_or_path": "m", "output_dir": str(tmp_path / "x"),
              "datasets": [{"path": "d"}], "judge": {"kind": "rules", "function": "a:b"}}  # fmt: skip
    limits = [({"min_coverage": 0.9}, 0), ({"max_position_bias": 0.1, "min_consistency": 1.0, "max_tie_rate": 0.0}, 0)]
    limits.append(({"gold": str(folder / "people.jsonl"), "min_kappa": 0.99}, 3))
    for gate, code in limits:
        (tmp_path / "label.yaml").write_text(json.dumps(recipe | {"gate": gate}))
        command = [sys.executable, "-m", "alignment.cli", "audit", str(folder), "--gate", str(tmp_path / "label.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == code, done.stderr
    assert re.search(r"the gate is missed:\n  toy.*Cohen's kappa .* below min_kappa 0\.99\n$", done.stderr)
    assert (folder / "audit.html").is_file()


def test_a_run_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("alignment.data.sources.read_hub", lambda entry: pytest.fail(f"asked the Hub for {entry.path}"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"runs/mine does not exist\. Give the folder of a label run"):
        read_labels([Path("runs/mine")])


def test_a_file_of_votes_beside_the_labels_counts_once(tmp_path):
    folder, said = write_run(tmp_path / "label"), []
    (alone,) = run([folder], None, outputs=Outputs(), say=said.append)
    (named,) = run([folder], folder / "people.jsonl", outputs=Outputs(), say=said.append)
    assert named["against"] == alone["against"]
    assert named["against"]["repeated_votes"] == 0


def test_votes_that_decide_nothing_are_refused_as_such(tmp_path):
    folder = write_run(tmp_path / "label")
    pair = {"first": 0, "second": 1, "probability": None, "status": "abstain"}
    row = {"prompt": "p0", "responses": ["answer 0", "a longer answer 0"], "pairs": [pair]}
    write_jsonl(tmp_path / "gold.jsonl", [row])
    with pytest.raises(DataError, match="has no decided comparison: no row prefers an answer"):
        run([folder], tmp_path / "gold.jsonl", outputs=Outputs(), say=print)
