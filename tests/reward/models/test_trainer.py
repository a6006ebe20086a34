"""The reward trainer learns, calibrates, resumes, and does not care how a batch is cut."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from transformers import TrainingArguments

from alignment.data.rows import Pair, Ranking
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.policy.tokenizer import load_tokenizer
from reward.models.batches import EncodedRanking, RankingCollator, encode_rankings
from reward.models.loading import load_reward_model, score_sequences
from reward.models.losses import ranking_loss
from reward.models.metrics import preference_metrics
from reward.models.trainer import RewardTrainer
from tests.reward.toy import rankings, recipe


def encoded(model_dir: Path, rows: list[Ranking]) -> list[EncodedRanking]:
    template = Template(load_tokenizer(recipe(model_dir, Path("unused"))))
    return encode_rankings(rows, template, max_length=None).rows


def make_trainer(
    model_dir: Path,
    output: Path,
    train: list[EncodedRanking],
    evaluation: list[EncodedRanking] | None = None,
    *,
    seed: int = 0,
    peft_method: str = "full",
    center_rewards_coefficient: float = 0.0,
    label_smoothing: float = 0.0,
    ties: Literal["half", "davidson"] = "half",
    **arguments: Any,
) -> RewardTrainer:
    torch.manual_seed(seed)
    given = recipe(model_dir, output, peft_method=peft_method, lora_r=8)
    tokenizer = load_tokenizer(given)
    model = load_reward_model(given, tokenizer, Template(tokenizer).stop_token_ids, trainable=True, peft=given)
    settings = {
        "output_dir": str(output),
        "use_cpu": True,
        "report_to": "none",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "seed": seed,
        **arguments,
    }
    return RewardTrainer(
        model,
        TrainingArguments(**settings),
        tokenizer=tokenizer,
        train=train,
        evaluation=evaluation,
        center_rewards_coefficient=center_rewards_coefficient,
        label_smoothing=label_smoothing,
        ties=ties,
    )


def weights(trainer: RewardTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("peft_method", ["full", "lora"])
def test_it_learns_to_score_good_above_bad(tiny_model_dir: Path, tmp_path: Path, peft_method: str) -> None:
    train, held_out = encoded(tiny_model_dir, rankings(64)), encoded(tiny_model_dir, rankings(40, start=100))
    trainer = make_trainer(
        tiny_model_dir, tmp_path, train, held_out, peft_method=peft_method, max_steps=40, lr_scheduler_type="constant"
    )
    before = trainer.evaluate()
    assert before["eval_accuracy"] < 0.9
    trainer.train()
    results = trainer.held_out_results()
    assert results["reward_accuracy"] > 0.9
    assert results["reward_accuracy_low"] > 0.8
    assert results["reward_loss"] < before["eval_loss"]
    assert trainer.state.log_history[-1]["eval_accuracy"] == results["reward_accuracy"]


def test_soft_labels_calibrate_the_predicted_probability(tiny_model_dir: Path, tmp_path: Path) -> None:
    train = encoded(tiny_model_dir, rankings(64, probability=0.75, answers=2))
    held_out = encoded(tiny_model_dir, rankings(40, start=100, probability=0.75, answers=2))
    trainer = make_trainer(tiny_model_dir, tmp_path, train, held_out, max_steps=60)
    trainer.train()
    output = trainer.predict(trainer.eval_dataset)
    predicted = [
        1 / (1 + math.exp(-(scores[i] - scores[j]) * (1 if p > 0.5 else -1)))
        for scores, row in zip(output.predictions, trainer.eval_dataset.rows, strict=True)
        for i, j, p, _ in row.pairs
    ]
    assert sum(predicted) / len(predicted) == pytest.approx(0.75, abs=0.03)
    # the least loss any model can reach is the labels' entropy, -(3 ln(3/4) + ln(1/4)) / 4 = 0.5623
    assert trainer.held_out_results()["reward_nll"] == pytest.approx(0.5623, abs=0.02)


def mixed(count: int) -> list[Ranking]:
    """Rankings of two to four answers, so that microbatches hold different numbers of pairs."""
    return [
        row for number in range(count) for row in rankings(1, start=number, answers=2 + number % 3, probability=0.9)
    ]


def test_the_loss_does_not_depend_on_how_the_batch_is_cut(tiny_model_dir: Path, tmp_path: Path) -> None:
    train = encoded(tiny_model_dir, mixed(6))
    found = []
    for size, accumulation in ((6, 1), (1, 6), (4, 2), (2, 3)):  # 4 and 2: the second microbatch is smaller
        trainer = make_trainer(
            tiny_model_dir,
            tmp_path,
            train,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            center_rewards_coefficient=0.1,
        )
        trainer.train()
        found.append((trainer.state.log_history[0]["loss"], weights(trainer)))
    losses = [loss for loss, _ in found]
    assert losses == pytest.approx([losses[0]] * 4, abs=1e-5)
    for _, others in found[1:]:
        for name, weight in found[0][1].items():
            torch.testing.assert_close(others[name], weight, atol=1e-6, rtol=1e-5)
    assert any(
        not torch.equal(found[0][1][n], w) for n, w in weights(make_trainer(tiny_model_dir, tmp_path, train)).items()
    )


def test_the_first_loss_is_the_mean_over_all_prompts(tiny_model_dir: Path, tmp_path: Path) -> None:
    train = encoded(tiny_model_dir, mixed(5))
    trainer = make_trainer(
        tiny_model_dir, tmp_path, train, per_device_train_batch_size=2, gradient_accumulation_steps=3, max_steps=1
    )
    model, total = trainer.model.eval(), 0.0
    for row in train:  # one prompt at a time, by plain logits
        scores = [model(input_ids=torch.tensor([ids])).logits.item() for ids in row.input_ids]
        pairs = [-p * math.log(1 / (1 + math.exp(scores[j] - scores[i]))) - (1 - p) * math.log(
            1 / (1 + math.exp(scores[i] - scores[j]))) for i, j, p, _ in row.pairs]  # fmt: skip
        total += sum(pairs) / len(pairs)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(total / 5, abs=1e-5)


def test_padding_and_company_do_not_change_scores(tiny_model_dir: Path, tmp_path: Path) -> None:
    train = encoded(tiny_model_dir, mixed(6))
    trainer = make_trainer(tiny_model_dir, tmp_path, train)
    collate, model = RankingCollator(0), trainer.model.eval()
    with torch.no_grad():
        batch = collate([{"index": n, "ranking": row} for n, row in enumerate(train)])
        together = score_sequences(model, batch["input_ids"], batch["attention_mask"])
        alone = []
        for row in train:
            single = collate([{"index": 0, "ranking": row}])
            alone.append(score_sequences(model, single["input_ids"], single["attention_mask"]))
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)


def test_collator_indexes_the_flat_batch() -> None:
    rows = [
        EncodedRanking([[5, 6], [7]], [1, 1], [(0, 1, 0.8, 0.0)]),
        EncodedRanking([[8], [9, 9, 9], [4]], [1, 2, 1], [(0, 1, 1.0, 2.0), (2, 1, 0.5, 0.0)]),
    ]
    batch = RankingCollator(0)([{"index": 7, "ranking": rows[0]}, {"index": 3, "ranking": rows[1]}])
    assert next(iter(batch)) == "index"
    assert batch["index"].tolist() == [7, 3]
    assert batch["answers"].tolist() == [2, 3]
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0], [8, 0, 0], [9, 9, 9], [4, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [2, 1, 1, 3, 1]
    assert (batch["first"].tolist(), batch["second"].tolist()) == ([0, 2, 4], [1, 3, 3])
    assert batch["prompt"].tolist() == [0, 1, 1]
    assert batch["margin"].tolist() == [0, 2, 0]


def test_evaluation_measures_every_prompt_once(tiny_model_dir: Path, tmp_path: Path) -> None:
    held_out = encoded(tiny_model_dir, mixed(7))
    trainer = make_trainer(tiny_model_dir, tmp_path, held_out, held_out, per_device_eval_batch_size=3)
    found = trainer.evaluate()
    model = trainer.model.eval()
    with torch.no_grad():
        scores = [[model(input_ids=torch.tensor([ids])).logits.item() for ids in row.input_ids] for row in held_out]
    expected = preference_metrics(scores, held_out)
    for key in ("loss", "accuracy", "nll", "brier", "score_mean", "score_std", "length_spearman"):
        assert found[f"eval_{key}"] == pytest.approx(expected[key], abs=1e-5), key
    assert found["eval_prompts"] == 7
    flat = [score for row in scores for score in row]
    mean = sum(flat) / len(flat)
    scale = trainer.score_scale()
    assert scale["score_mean"] == pytest.approx(mean, abs=1e-5)
    assert scale["score_std"] == pytest.approx(math.sqrt(sum((s - mean) ** 2 for s in flat) / len(flat)), abs=1e-5)


def test_score_scale_reads_a_spread_of_prompts(tiny_model_dir: Path, tmp_path: Path) -> None:
    train = encoded(tiny_model_dir, mixed(7))
    trainer = make_trainer(tiny_model_dir, tmp_path, train)
    expected = trainer.predict(type(trainer.train_dataset)(train[::3]), metric_key_prefix="x").metrics
    assert trainer.score_scale(most_prompts=3)["score_mean"] == expected["x_score_mean"]


@pytest.mark.parametrize("peft_method", ["full", "lora"])
def test_a_resumed_run_ends_with_the_same_bits(tiny_model_dir: Path, tmp_path: Path, peft_method: str) -> None:
    train = encoded(tiny_model_dir, mixed(12))
    settings = {"per_device_train_batch_size": 3, "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = make_trainer(tiny_model_dir, tmp_path / "run", train, peft_method=peft_method, **settings)
    whole.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    resumed = make_trainer(tiny_model_dir, tmp_path / "run", train, peft_method=peft_method, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name


def test_only_usable_pairs_train(tiny_model_dir: Path) -> None:
    template = Template(load_tokenizer(recipe(tiny_model_dir, Path("unused"))))
    pairs = [Pair(0, 1, None, "parse_error"), Pair(1, 2, 0.8), Pair(2, 3, None, "api_error")]
    rows = [
        Ranking("the  Cat", ["one", "two", "three", "four"], pairs),
        Ranking("the dog", ["one", "two"], [Pair(0, 1, None, "abstain")]),
    ]
    found = encode_rankings(rows, template, max_length=None)
    assert [row.pairs for row in found.rows] == [[(0, 1, 0.8, 0.0)]]  # answers 0 and 3 are not even read
    assert len(found.rows[0].input_ids) == 2
    assert found.rows[0].prompt == "the cat"  # prompts are told apart by words, not by case and spacing
    assert found.counts() == {
        "prompts": 1,
        "answers": 2,
        "pairs": 1,
        "prompts_without_usable_pairs": 1,
        "answers_left_out": 0,
    }


def test_nothing_comparable_is_an_error(tiny_model_dir: Path) -> None:
    template = Template(load_tokenizer(recipe(tiny_model_dir, Path("unused"))))
    rows = [Ranking("the cat", ["one", "two"], [Pair(0, 1, None, "refusal")], source="rows.jsonl:1")]
    with pytest.raises(DataError, match=r"none of 1 rankings \(the first at rows.jsonl:1\) has two comparable answers"):
        encode_rankings(rows, template, max_length=None)
    assert encode_rankings([], template, max_length=None).rows == []


def test_an_answer_that_does_not_fit_is_never_cut(tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = Template(load_tokenizer(recipe(tiny_model_dir, Path("unused"))))
    long = "a very long answer " * 20
    pairs = [Pair(0, 1, 1.0), Pair(0, 2, 0.0), Pair(1, 2, 0.3)]
    rows = [Ranking("the cat", ["one", long, "three"], pairs, source="rows.jsonl:4")]
    with pytest.raises(DataError, match=r"rows.jsonl:4: answer 2 of 3: .* \d+ tokens, more than the 40 that fit;"):
        encode_rankings(rows, template, max_length=40)
    found = encode_rankings(rows, template, max_length=40, on_bad_row="skip")
    assert [row.pairs for row in found.rows] == [[(0, 1, 0.0, 0.0)]]
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("rows.jsonl:4: answer 2 of 3: prompt and answer are")
    line = "left out 1 of 3 answers (on_bad_row: skip); the first is rows.jsonl:4: answer 2 of 3: prompt and answer are"
    assert line in capsys.readouterr().err


def test_microbatch_losses_add_up() -> None:
    scores = torch.randn(6, dtype=torch.float64)
    first, second = torch.tensor([0, 2, 3]), torch.tensor([1, 3, 4])
    probability, prompt = torch.tensor([1.0, 0.2, 0.7], dtype=torch.float64), torch.tensor([0, 1, 1])
    whole = ranking_loss(scores, first, second, probability, prompt, num_prompts=2)
    parts = [
        ranking_loss(scores, first[:1], second[:1], probability[:1], prompt[:1], num_prompts=2),
        ranking_loss(scores, first[1:], second[1:], probability[1:], prompt[1:] - 1, num_prompts=2),
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_an_answer_that_was_cut_off_is_scored_without_a_stop_token(tiny_model_dir: Path) -> None:
    template = Template(load_tokenizer(recipe(tiny_model_dir, tiny_model_dir)))
    cut = Ranking("the fox", [" jumps", " over"], [Pair(0, 1, 1.0)], provenance={"stopped": [False, True]})
    (row,) = encode_rankings([cut], template, max_length=None).rows
    stop = template.stop_token_ids
    assert [ids[-1] in stop for ids in row.input_ids] == [False, True]


@pytest.mark.parametrize("peft_method", ["full", "lora"])
def test_ties_learn_their_own_share_and_leave_a_plain_classifier(
    tiny_model_dir: Path, tmp_path: Path, peft_method: str
) -> None:
    # two bad answers of three are a tie: 1 of 3 pairs; log nu begins at ln(2/3 / (2/3)) = 0
    train = encoded(tiny_model_dir, rankings(48))
    trainer = make_trainer(tiny_model_dir, tmp_path, train, train, peft_method=peft_method, ties="davidson",
                           max_steps=40, lr_scheduler_type="constant")  # fmt: skip
    assert trainer.nu["davidson_nu"] == pytest.approx(1.0)
    trainer.train()
    assert trainer.nu["davidson_nu"] > 1.2  # decided pairs part, so a tie between equals grows likelier
    results = trainer.held_out_results()
    assert results["reward_accuracy"] > 0.9
    assert results["davidson_nu"] == trainer.nu["davidson_nu"]
    assert results["reward_loss"] < math.log(3)  # three outcomes alike
    assert trainer.state.log_history[0]["davidson_nu"] > 0
    trainer.save_model(str(tmp_path / "saved"))
    (saved,) = (tmp_path / "saved").glob("*.safetensors")
    with safe_open(saved, "pt") as file:
        assert not [name for name in file.keys() if "davidson" in name]  # it is no dictionary
    assert json.loads((tmp_path / "saved" / "davidson.json").read_text())["nu"] == trainer.nu["davidson_nu"]


def test_the_optimizer_moves_nu_at_its_own_rate_without_decay(tiny_model_dir: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_model_dir, tmp_path, encoded(tiny_model_dir, rankings(8)), ties="davidson",
                           weight_decay=0.1)  # fmt: skip
    groups = trainer.create_optimizer().param_groups
    own = [group for group in groups if any(p is trainer.log_nu for p in group["params"])]
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in own] == [(0.02, 0.0, 1)]
    assert sum(len(group["params"]) for group in groups) == len(weights(trainer))


@pytest.mark.parametrize("peft_method", ["full", "lora"])
def test_a_resumed_run_with_ties_ends_with_the_same_bits(
    tiny_model_dir: Path, tmp_path: Path, peft_method: str
) -> None:
    train = encoded(tiny_model_dir, rankings(12))
    settings = {"per_device_train_batch_size": 3, "max_steps": 6, "save_strategy": "steps", "save_steps": 3,
                "ties": "davidson", "peft_method": peft_method}  # fmt: skip
    whole = make_trainer(tiny_model_dir, tmp_path / "run", train, **settings)
    whole.train()
    resumed = make_trainer(tiny_model_dir, tmp_path / "run", train, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.nu == whole.nu
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name


def test_without_ties_there_is_nothing_to_learn_them_from(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"ties: davidson learns the probability of ties, and none of the 8 training pairs"
    ):
        make_trainer(tiny_model_dir, tmp_path, encoded(tiny_model_dir, rankings(8, answers=2)), ties="davidson")


def test_smoothed_labels_hold_the_scores_apart_no_further_than_they_say(tiny_model_dir: Path, tmp_path: Path) -> None:
    train = encoded(tiny_model_dir, rankings(64, answers=2))
    trainer = make_trainer(tiny_model_dir, tmp_path, train, train, label_smoothing=0.1, max_steps=60)
    trainer.train()
    # sigma(gap) = 0.9 at the minimum, where the loss is the entropy -(0.9 ln 0.9 + 0.1 ln 0.1) = 0.3251
    assert trainer.held_out_results()["reward_loss"] == pytest.approx(0.3251, abs=0.02)
    assert trainer.state.log_history[-1]["eval_nll"] == pytest.approx(-math.log(0.9), abs=0.04)
