"""Labels that miss their gate train nothing, and the message says by how much."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.schema import DatasetEntry, GateEntry
from alignment.data import load_demonstrations, load_rankings
from alignment.errors import DataError, GateError, RecipeError
from recipes import label
from reward.audit.gate import missed
from reward.judges.backends.rules import RulesJudge

PROMPTS = ("fox", "dog", "cat", "ball", "friend", "story")


def write_gold(path: Path, count: int = 60) -> Path:
    """People who prefer what comes earlier in the alphabet; the file, like many, always has the chosen one first."""
    rows = [{"prompt": f"Say {i}.", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_recipe(folder: Path, model: Path, function: str, **keys: Any) -> list[str]:
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Tell me about the {word}."}) + "\n" for word in PROMPTS))
    recipe = {
        "stage": "label",
        "model_name_or_path": str(model),
        "output_dir": str(folder / "run"),
        "datasets": [{"path": str(data)}],
        "judge": {"kind": "rules", "function": f"tests.reward.audit.judges:{function}"},
        "num_generations": 3,
        "max_new_tokens": 6,
        **keys,
    }
    (folder / "label.yaml").write_text(json.dumps(recipe))
    return ["--config", str(folder / "label.yaml")]


class CallCount:
    """Counts the questions that reach a rules judge."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        ask = RulesJudge._call

        def counting(judge: RulesJudge, question: Any) -> Any:
            self.calls += 1
            return ask(judge, question)

        monkeypatch.setattr(RulesJudge, "_call", counting)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "manifest.json").read_text())


def test_a_judge_against_people_stops_before_anything_else_is_judged(tmp_path, tiny_model_dir):
    gold = write_gold(tmp_path / "gold.jsonl")
    gate = {"gold": str(gold), "min_kappa": 0.4, "min_accuracy": 0.7}
    with pytest.raises(GateError) as error:
        label.main(write_recipe(tmp_path, tiny_model_dir, "contrary", gate=gate))
    # All 60 are the other way round: observed agreement 0 where chance has one half, so kappa is (0 - 0.5) / 0.5 = -1.
    assert "Cohen's kappa −1.00" in str(error.value)
    assert "is 1.40 below min_kappa 0.4" in str(error.value)
    assert "is 0.700 below min_accuracy 0.7" in str(error.value)
    assert error.value.exit_code == 3
    run = tmp_path / "run"
    assert manifest(tmp_path)["status"] == "failed"
    assert not (run / "labels.jsonl").exists()
    assert len((run / "gold_labels.jsonl").read_text().splitlines()) == 60
    for load in (load_rankings, load_demonstrations):
        for path in (run, run / "gold_labels.jsonl"):
            with pytest.raises(DataError, match=r"missed their gate.*below min_kappa 0\.4"):
                load([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0)


def test_labels_that_miss_are_kept_apart_and_a_mended_gate_goes_on(tmp_path, tiny_model_dir, monkeypatch):
    argv = write_recipe(tmp_path, tiny_model_dir, "undecided", gate={"max_tie_rate": 0.1})
    with pytest.raises(GateError, match=r"tie rate 1\.00.* is 0\.900 above max_tie_rate 0\.1"):
        label.main(argv)
    run = tmp_path / "run"
    assert not (run / "labels.jsonl").exists()
    assert len((run / "rejected.jsonl").read_text().splitlines()) == len(PROMPTS)
    with pytest.raises(DataError, match="missed their gate"):
        load_rankings([DatasetEntry(path=str(run))], on_bad_row="stop", seed=0)
    asked = CallCount(monkeypatch)
    label.main(write_recipe(tmp_path, tiny_model_dir, "undecided", gate={"max_tie_rate": 1.0}))
    assert asked.calls == 0  # everything was answered already
    assert manifest(tmp_path)["status"] == "finished"
    assert manifest(tmp_path)["gate"]["passed"] is True
    assert not (run / "rejected.jsonl").exists()
    assert load_rankings([DatasetEntry(path=str(run))], on_bad_row="stop", seed=0).rows


def test_a_good_judge_passes_and_its_labels_are_calibrated(tmp_path, tiny_model_dir):
    gold = write_gold(tmp_path / "gold.jsonl")
    gate = {"gold": str(gold), "min_kappa": 0.9, "max_position_bias": 0.05, "min_coverage": 1.0}
    keys = {"gate": gate, "calibration": {"gold": str(gold)}}
    label.main(write_recipe(tmp_path, tiny_model_dir, "alphabetical", **keys))
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    stored = json.loads((run / "calibration.json").read_text())
    assert (stored["method"], stored["comparisons"], stored["gold"]) == ("temperature", 60, str(gold))
    assert stored["temperature"] < 1  # the judge says 0.8 and is always right, so it should be surer
    for row in rows:
        assert row["provenance"]["calibration"]["temperature"] == stored["temperature"]
        for pair in row["pairs"]:
            if row["responses"][pair["first"]] == row["responses"][pair["second"]]:
                assert (pair["probability"], pair["status"]) == (0.5, "tie")
                continue
            raw = {asked["probability"] for asked in pair["verdicts"]}
            assert raw == {0.8, 0.2}  # what the judge said stays as it was
            assert max(pair["probability"], 1 - pair["probability"]) > 0.95


def test_reading_the_calls_anew_meets_the_gate_too(tmp_path, tiny_model_dir, capsys):
    argv = write_recipe(tmp_path, tiny_model_dir, "first_shown")
    label.main(argv)
    # In both orders the answer shown first wins: its share is 1, half more than one half, 0.4 above the limit.
    write_recipe(tmp_path, tiny_model_dir, "first_shown", gate={"max_position_bias": 0.1})
    with pytest.raises(GateError, match=r"position bias 0\.500.* is 0\.400 above max_position_bias 0\.1"):
        label.main([*argv, "--reparse"])
    assert manifest(tmp_path)["status"] == "failed"
    assert not (tmp_path / "run" / "labels.jsonl").exists()


def test_a_dry_run_counts_the_questions_about_gold(tmp_path, tiny_model_dir, capsys):
    keys = {"gate": {"gold": str(write_gold(tmp_path / "gold.jsonl")), "min_kappa": 0.4}}
    for given, questions in (({}, 36), (keys, 36 + 120)):  # 6 prompts with 3 pairs, 60 with one, in both orders
        label.main([*write_recipe(tmp_path, tiny_model_dir, "alphabetical", **given), "--dry_run"])
        assert f", {questions} questions" in capsys.readouterr().out


def numbers(**measures: Any) -> dict[str, Any]:
    against = {"comparisons": 80, "kappa": {"value": 0.5, "low": 0.3, "high": 0.7}}
    return {"against": against, "calibration": None, "measures": measures}


def test_the_whole_interval_may_be_demanded():
    gate = {"gold": "g.jsonl", "min_kappa": 0.4}
    assert missed(GateEntry(**gate), numbers()) == []
    (words,) = missed(GateEntry(**gate, whole_interval=True), numbers())
    assert words == "Cohen's kappa 0.500 [0.300, 0.700] is 0.100 below min_kappa 0.4"


def test_a_bias_is_bounded_on_both_sides():
    bias = {"value": -0.2, "low": -0.3, "high": -0.1}
    (words,) = missed(GateEntry(max_position_bias=0.1), numbers(position_bias=bias))
    assert words == "position bias −0.200 [−0.300, −0.100] is 0.100 above max_position_bias 0.1"
    (words,) = missed(GateEntry(max_position_bias=0.1, whole_interval=True), numbers(position_bias=bias))
    assert "is 0.200 above" in words


def test_too_little_gold_misses():
    (words,) = missed(GateEntry(gold="g.jsonl", min_kappa=0.4, min_comparisons=100), numbers())
    assert words == "80 comparisons have people's judgements, min_comparisons is 100"
    unmatched = numbers() | {"against": None}
    assert "Cohen's kappa cannot be measured: there are no comparisons to count" in missed(
        GateEntry(gold="g.jsonl", min_kappa=0.4), unmatched
    )


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"min_kappa": 0.4}, r"label\.yaml.*min_kappa.*give gate\.gold"),
        ({"gold": "gold.jsonl"}, "has no limit, so every judge would pass"),
        ({"min_kapa": 0.4}, "did you mean min_kappa"),
        ({"max_position_bias": 0.7}, "must be at most 0.5"),
    ],
)
def test_an_impossible_gate_is_reported_with_its_line(tmp_path, gate, words):
    with pytest.raises(RecipeError, match=words):
        label.main(write_recipe(tmp_path, tmp_path, "alphabetical", gate=gate))
