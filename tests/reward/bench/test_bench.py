"""`alignment bench`: numbers by hand on a stand-in for the model, and the command on a real one."""

import json
import math

import numpy
import pytest
import torch

from alignment.cli import app
from alignment.errors import DataError, ModelError
from alignment.evaluate.statistics import agreement, calibration_error
from reward.bench.reading import read_bench
from reward.bench.run import bench
from reward.bench.table import tables
from reward.models.ensemble import Ensemble, member_paths
from tests.models import save_tiny_model


class Length:
    """Likes answers by their number of words; more than nine do not fit."""

    def encode_answer(self, ranking, place, *, where):
        words = ranking.responses[place].split()
        if len(words) > 9:
            raise DataError(f"{where}: does not fit.")
        return [len(word) for word in words]

    def score_tokens(self, sequences):
        return [float(len(ids)) for ids in sequences]


class Backwards(Length):
    def score_tokens(self, sequences):
        return [-3.0 * len(ids) for ids in sequences]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rated(prompt, responses, scores, **more):
    return {"prompt": prompt, "responses": responses, "scores": scores, **more}


def choice(prompt, chosen, rejected, **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


LENGTH = (Length(),)


def measured(*files, models=LENGTH, aggregate="mean", on_bad_row="stop", **options):
    read = read_bench(files, on_bad_row=on_bad_row, **options)
    return bench(Ensemble(tuple(models), ("m",) * len(models), aggregate), read, on_bad_row=on_bad_row)


def test_accuracy_by_subset_by_hand(tmp_path):
    rows = [
        choice("a", "one two", "one", subset="chat"),  # right
        choice("b", "one", "one two", subset="chat"),  # wrong
        choice("c", "one", "two", subset="code"),  # equal scores: one half
    ]
    labels = [
        {"prompt": "d", "responses": ["x", "x y"], "subset": "code",
         "pairs": [{"first": 0, "second": 1, "probability": 0.5, "status": "tie"}]},
        {"prompt": "e", "responses": ["x", "x y"], "subset": "code",
         "pairs": [{"first": 0, "second": 1, "probability": None, "status": "refusal"}]},
    ]  # fmt: skip
    found = measured(write(tmp_path / "rows.jsonl", rows), write(tmp_path / "labels.jsonl", labels))
    chat, code = found["subsets"]["chat"], found["subsets"]["code"]
    assert (chat["accuracy"]["value"], code["accuracy"]["value"]) == (0.5, 0.5)
    assert (chat["pairs"], code["pairs"], code["label_ties"], code["equal_scores"]) == (2, 1, 1, 1)
    assert found["all"]["accuracy"]["value"] == pytest.approx(0.5)
    assert found["all"]["pairs"] == 3
    assert found["mean_of_subsets"] == 0.5
    # gaps 1 and -1 against label 1: (ln(1 + e^-1) + ln(1 + e)) / 2 = (0.31326169 + 1.31326169) / 2
    assert chat["nll"] == pytest.approx(0.81326169)
    # sigma(1) = 0.73105858: ((1 - 0.73105858)^2 + 0.73105858^2) / 2 = (0.07232949 + 0.53444665) / 2
    assert chat["brier"] == pytest.approx(0.30338807)
    assert chat["of_longer"] == 0.5
    assert chat["best"] is None


def test_agreement_gives_one_half_to_equals():
    gap, label = numpy.array([1.0, -1.0, 0.0, 2.0]), numpy.array([0.9, 0.9, 0.9, 0.2])
    assert agreement(gap, label).tolist() == [1, 0, 0.5, 0]


def test_calibration_error_by_hand():
    # 0.8 of the pairs called 0.75 are so: |0.75 - 0.8| = 0.05, and as much on the mirrored side
    probability, label = numpy.full(5, 0.75), numpy.array([1.0, 1, 1, 1, 0])
    assert calibration_error(probability, label) == pytest.approx(0.05)
    # each pair from both sides: called 0.75 and 0.25, right and wrong once each
    assert calibration_error(numpy.array([0.75, 0.25]), numpy.array([1.0, 0.0])) == pytest.approx(0.25)
    soft = numpy.array([0.31, 0.62])
    assert calibration_error(soft, soft) == pytest.approx(0)


def test_best_of_many_and_the_curve_of_best_of_n(tmp_path):
    rows = [
        rated("a", ["x", "x y", "x y z", "x y z u"], [0.0, 1.0, 2.0, 3.0]),  # the longest is best
        rated("b", ["x", "x y", "x y z", "x y z u"], [4.0, 1.0, 2.0, 3.0]),  # the shortest is
    ]
    found = measured(write(tmp_path / "rows.jsonl", rows))
    assert found["all"]["best"]["value"] == 0.5
    assert found["all"]["pairs"] == 12
    curve = found["best_of_n"]["rows.jsonl"]
    assert [point["n"] for point in curve] == [1, 2, 4]
    # n 1: means 1.5 and 2.5. n 2, chances 0, 1/6, 2/6, 3/6: (1 + 4 + 9)/6 = 14/6 for both. n 4: 3 and 3
    assert [point["gold"]["value"] for point in curve] == pytest.approx([2.0, 14 / 6, 3.0])
    assert [point["gold_of_best"] for point in curve] == pytest.approx([2.0, (14 / 6 + (2 + 6 + 12) / 6) / 2, 3.5])
    assert [point["score"] for point in curve] == pytest.approx([2.5, (2 + 6 + 12) / 6, 4.0])
    assert curve[2]["kl"] == pytest.approx(math.log(4) - 0.75)
    assert curve[0]["prompts"] == 2


def test_lists_of_chosen_and_rejected_as_rewardbench_2_has_them(tmp_path):
    rows = [choice("a", ["x y z"], ["x", "x y", "y"], subset="Math"), choice("b", ["x"], ["x y", "y"], subset="Math")]
    found = measured(write(tmp_path / "rows.jsonl", rows))["subsets"]["Math"]
    # a: 3 of 3 right. b: wrong against "x y", equal to "y": 0.5. So 3.5 of 5, and best of all in one of two
    assert found["accuracy"]["value"] == pytest.approx(0.7)
    assert found["best"]["value"] == 0.5


def test_files_are_subsets_without_a_column(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    rows = [choice("a", "x y", "x", topic="t")]
    files = [write(tmp_path / name, rows) for name in ("one/rows.jsonl", "two/rows.jsonl", "else.jsonl")]
    assert list(measured(*files)["subsets"]) == [*files[:2], "else.jsonl"]
    assert list(measured(*files, column="topic")["subsets"]) == ["t"]
    with pytest.raises(DataError, match=r"rows.jsonl:1: has no column tag, named by --subset; it has prompt, chosen"):
        measured(*files, column="tag")


def test_a_prompt_may_be_a_users_message(tmp_path):
    file = write(tmp_path / "rows.jsonl", [choice("a", "x y", "x")])
    assert read_bench([file]).rows[0].ranking.prompt == "a"
    assert read_bench([file], chat=True).rows[0].ranking.prompt == [{"role": "user", "content": "a"}]


def test_answers_that_do_not_fit_are_not_cut(tmp_path):
    file = write(tmp_path / "rows.jsonl", [choice("a", "x y", "x"), choice("b", "x " * 20, "x")])
    with pytest.raises(DataError, match=r"rows.jsonl:2: answer 1: does not fit\. Or leave such rows out with --on"):
        measured(file)
    found = measured(file, on_bad_row="skip")
    assert found["all"]["pairs"] == 1
    assert [reason.partition("rows.jsonl")[2] for reason in found["skipped"]] == [":2: answer 1: does not fit."]


def test_an_ensemble_is_one_model(tmp_path):
    file = write(tmp_path / "rows.jsonl", [choice("a", "x y", "x")])
    found = measured(file, models=(Length(), Backwards()))
    assert found["all"]["accuracy"]["value"] == 0.0  # means -2 and -1
    # of "x y" 2 and -6, of "x" 1 and -3: standard deviations 4 and 2
    assert found["all"]["score_std_of_members"] == pytest.approx(3.0)


def test_the_tables_can_be_printed(tmp_path, capsys):
    from rich.console import Console

    rows = [rated("a", ["x", "x y"], [0.0, 1.0], subset="s"), rated("b", ["y", "x y"], [1.0, 0.0], subset="t")]
    Console(width=140).print(tables(measured(write(tmp_path / "rows.jsonl", rows))))
    told = capsys.readouterr().out
    assert "all pairs" in told
    assert "Best of n on s, 1 prompts" in told
    assert "Best of n on t, 1 prompts" in told


def save_reward(base, path, seed):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0).save_pretrained(path)
    AutoTokenizer.from_pretrained(base).save_pretrained(path)
    return str(path)


def test_the_command(tmp_path):
    from typer.testing import CliRunner

    base = save_tiny_model(tmp_path / "base")
    models = [save_reward(base, tmp_path / f"reward{seed}", seed) for seed in range(2)]
    file = write(tmp_path / "rows.jsonl", [choice(f"tell me {n}", f"the cat {n}", "no") for n in range(8)])
    out = tmp_path / "out.json"
    done = CliRunner().invoke(app, ["bench", ",".join(models), file, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "mean of 2 models" in done.output
    found = json.loads(out.read_text())
    assert found["models"] == models
    assert found["all"]["pairs"] == 8
    each = [Ensemble.load(model) for model in models]
    together = Ensemble.load(models)
    prompts, answers = ["tell me 1", "tell me 2"], ["the cat 1", "no"]
    expected = torch.tensor([one.score(prompts, answers) for one in each]).mean(0).tolist()
    assert together.score(prompts, answers) == pytest.approx(expected, abs=1e-6)


def test_members_of_a_run_and_names_that_lead_nowhere(tmp_path):
    (tmp_path / "manifest.json").write_text('{"members": ["member-0", "member-1"]}')
    assert member_paths(str(tmp_path)) == [str(tmp_path / "member-0"), str(tmp_path / "member-1")]
    assert member_paths(["owner/model", "owner/other"]) == ["owner/model", "owner/other"]
    with pytest.raises(ModelError, match=r"\./none: no such folder; name the run folder of a reward model"):
        member_paths("./none")
    with pytest.raises(ModelError, match="is named twice"):
        Ensemble.load([str(tmp_path), str(tmp_path)])
