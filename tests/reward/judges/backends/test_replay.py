"""Recorded verdicts go through the label stage as any judge's do, and come out as they were."""

import json

import pytest

from alignment.config.schema.judges import judge_entry
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison
from recipes import label
from reward.audit.audit import audit
from reward.audit.items import read_labels
from reward.judges import build_judge


def entry(path, **keys):
    return judge_entry(kind="replay", path=str(path), **keys)


def write_labels(file, *verdicts, responses=("4", "5")):
    pairs = [{"first": 0, "second": 1, "probability": 0.8, "status": "ok", "verdicts": list(verdicts)}]
    row = {"prompt": "2+2?", "responses": list(responses), "pairs": pairs, "provenance": {}}
    file.write_text(json.dumps(row) + "\n")
    return file


def asked(shown, probability, repeat=0, status="ok", mass=None):
    return {"shown": shown, "repeat": repeat, "probability": probability, "status": status, "mass": mass}


def test_the_label_stage_with_published_verdicts_audits_to_the_published_numbers(shared, tmp_path):
    folder = shared / "data" / "llmbar-natural" / "evaluators" / "GPT-4" / "Vanilla_NoRules"
    recipe = {
        "stage": "label",
        "responses": "given",
        "output_dir": str(tmp_path / "run"),
        "datasets": [{"path": str(folder / "result.json")}],
        "judge": {"kind": "replay", "path": str(folder)},
    }
    (tmp_path / "label.yaml").write_text(json.dumps(recipe))
    label.main(["--config", str(tmp_path / "label.yaml")])
    (judge,), people = read_labels([tmp_path / "run"])
    assert judge.name == "GPT-4/Vanilla_NoRules"
    _, people = read_labels([folder])  # the gold labels
    found = audit(judge, people)
    assert found["against"]["accuracy"]["value"] == pytest.approx(0.935, abs=1e-12)
    assert found["measures"]["consistency"]["value"] == pytest.approx(0.97, abs=1e-12)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["results"]["pairs"] == 100
    before = (tmp_path / "run" / "labels.jsonl").read_text()
    label.main(["--config", str(tmp_path / "label.yaml"), "--reparse"])
    assert (tmp_path / "run" / "labels.jsonl").read_text() == before


def test_our_own_labels_are_replayed_by_order_and_repeat(tmp_path):
    file = write_labels(
        tmp_path / "labels.jsonl",
        asked("first", 0.9, mass=0.7),
        asked("swapped", 0.3),
        asked("first", 0.6, repeat=1),
        asked("swapped", None, repeat=1, status="refusal"),
    )
    judge = build_judge(entry(tmp_path))
    assert build_judge(entry(file)).prompt_hash == judge.prompt_hash
    question = Comparison([{"role": "user", "content": "2+2?"}], "4", "5")  # the same as the text alone
    verdict = judge.ask(question)
    assert (verdict.probability, verdict.status, verdict.details) == (0.9, "ok", {"mass": 0.7})
    assert judge.ask(question.swapped()).probability == 0.3
    again = Comparison("2+2?", "4", "5", 1)
    assert judge.ask(again).probability == 0.6
    assert (judge.ask(again.swapped()).probability, judge.ask(again.swapped()).status) == (None, "refusal")


def test_an_unrecorded_question_gives_no_verdict(tmp_path):
    judge = build_judge(entry(write_labels(tmp_path / "labels.jsonl", asked("first", 0.9))))
    for question in (Comparison("2+2?", "5", "4"), Comparison("2+2?", "4", "5", 1), Comparison("2+3?", "4", "5")):
        verdict = judge.ask(question)
        assert (verdict.probability, verdict.status) == (None, "api_error")
        assert "has no verdict on these answers in this order" in verdict.raw


@pytest.mark.parametrize(
    ("verdicts", "responses", "words"),
    [
        ((), ("4", "5"), "has no recorded verdicts"),
        ((asked("first", 0.9), asked("swapped", 0.3)), ("4", "4"), "has two verdicts on the same question"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused(tmp_path, verdicts, responses, words):
    with pytest.raises(JudgeError, match=words):
        build_judge(entry(write_labels(tmp_path / "labels.jsonl", *verdicts, responses=responses)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(JudgeError, match=r"judge.path .*absent.jsonl"):
        build_judge(entry(tmp_path / "absent.jsonl"))
