"""The stages' comparison gives both systems the same work, and counts it."""

import json

import pytest
import torch

from alignment.config import load_recipe
from benchmarks.stage_data import pairs_of, write
from benchmarks.stages_ours import recipe_of
from benchmarks.stages_vs_trl import STAGES, table
from benchmarks.step_clock import StepClock
from benchmarks.workload import SHARED

needs_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the texts are in ../shared")


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_pairs_of_a_ranking_are_all_of_them_and_the_better_answer_is_chosen():
    pairs = pairs_of({"prompt": "p", "responses": ["second", "first", "third"], "ranks": [2, 1, 3]})
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("first", "second"),
        ("first", "third"),
        ("second", "third"),
    ]


@needs_data
@pytest.mark.parametrize("stage", STAGES)
def test_texts_fit_the_context_of_the_model_that_reads_them(stage, tmp_path):
    for row in read(write(stage, "natural", tmp_path, 80)["trl"]):
        texts = [row["prompt"] + row[key] for key in ("completion", "chosen", "rejected") if key in row]
        assert max(len(text.encode()) for text in texts) <= (250 if stage == "packed" else 500)


@needs_data
@pytest.mark.parametrize("stage", STAGES)
def test_both_systems_read_the_same_rows(stage, tmp_path):
    files = write(stage, "equal", tmp_path, 4)
    ours, theirs = read(files["ours"]), read(files["trl"])
    assert len(ours) == 4
    assert theirs == ([pair for row in ours for pair in pairs_of(row)] if stage == "rankings" else ours)


class Given:
    def __init__(self, stage, folder):
        self.stage, self.model, self.data, self.batch = stage, "m", str(folder / "d.jsonl"), 4


@pytest.mark.parametrize("stage", STAGES)
def test_its_recipe_is_accepted(stage, tmp_path):
    recipe = recipe_of(Given(stage, tmp_path), tmp_path)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert load_recipe(recipe["stage"], ["--config", str(tmp_path / "recipe.yaml")]).library["save_strategy"] == "no"


def test_padding_is_not_counted_and_the_first_and_last_steps_are_left_out(capsys):
    clock = StepClock()
    for tokens in (5, 3, 4, 6):
        mask = torch.arange(8).view(2, 4) < tokens
        clock.note({"input_ids": torch.zeros(2, 4), "attention_mask": mask})
    clock.note({"input_ids": torch.zeros(1, 8)})  # a pack
    assert clock.tokens == [5, 3, 4, 6, 8]
    clock.times = [(float(second), second / 2) for second in (0, 9, 10, 12, 15)]
    clock.print_figures("ours", "tokens")
    found = json.loads(capsys.readouterr().out)
    assert found["tokens_per_second"] == pytest.approx(13 / 6)  # 3 + 4 + 6 tokens in 1 + 2 + 3 seconds
    assert found["tokens_per_cpu_second"] == pytest.approx(13 / 3)


def test_the_table_has_a_line_for_each_baseline():
    ratio = {"tokens_per_second_ratio": 1.5, "tokens_per_cpu_second_ratio": 1.4, "peak_memory_ratio": 0.9, "goal": 1.3}
    found = {"packed": {"against": {"trl": {**ratio, "goal": 1.0}, "trl_padded": ratio}}}
    assert table(found).splitlines()[2:] == [
        "| `packed` | trl | 1.50 | 1.40 | 1.0 | 0.90 |",
        "| `packed` | trl_padded | 1.50 | 1.40 | 1.3 | 0.90 |",
    ]
