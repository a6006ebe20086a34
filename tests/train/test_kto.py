"""KTO: TRL's loss for certain labels, the expectation for others, an evaluation without batches; it learns."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

import recipes.kto
from alignment.config import load_recipe
from alignment.config.schema import KTORecipe
from alignment.data.answer_labels import require_both_labels
from alignment.data.rows import Unpaired
from alignment.data.template import Template
from alignment.doctor.data import require_data as check_data
from alignment.errors import DataError, RecipeError, TrainingError
from alignment.policy.base import load_causal_lm
from alignment.run.files import read_jsonl
from alignment.train.arguments import checkpointing_key
from alignment.train.kto import KTOLoss, evaluated, kto_trainer
from alignment.train.label_weights import label_weights
from alignment.train.unpaired_rows import (
    MISMATCHED,
    ordered,
    require_evaluable,
    tokenise_unpaired,
)
from tests.train.test_dpo import Keys

BETA, GOOD, BAD = 0.3, 1.5, 0.75
CERTAIN, SOFT = (1.0, 0.0, 1.0, 0.0), (1.0, 0.2, 0.5, 0.6)


def arguments(path, **changes):
    settings = {
        "output_dir": str(path),
        "use_cpu": True,
        "bf16": False,
        checkpointing_key(KTOConfig): False,
        "max_length": None,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "dataloader_pin_memory": False,
        "beta": BETA,
        "desirable_weight": GOOD,
        "undesirable_weight": BAD,
        **changes,
    }
    return KTOConfig(**settings)


def answers(probabilities=CERTAIN):
    """Answers that differ in words and in length."""
    return [
        {"prompt_ids": [2, 10 + i, 11][: 2 + i % 2], "completion_ids": [20 + i, 21, 22, 1][i % 3 :], "probability": p}
        for i, p in enumerate(probabilities)
    ]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


def moved(folder, dtype=torch.float64):
    """A policy some way off its reference, and the reference."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=dtype) for _ in range(2))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy, reference


@torch.no_grad()
def log_ratio(models, prompt, answer):
    """log π/π_ref of an answer, token by token."""
    ids, start, total = torch.tensor([prompt + answer]), len(prompt), 0.0
    for model, sign in zip(models, (1, -1), strict=True):
        logps = model(ids).logits[0].log_softmax(-1)
        total += sign * sum(logps[t - 1, ids[0, t]].item() for t in range(start, ids.shape[1]))
    return total


def by_hand(models, rows, *, has_kl=True):
    """The mean expected loss of a microbatch, from eq. 7 and 8 of the paper; (loss, KL)."""
    kl = sum(log_ratio(models, row["prompt_ids"], row[MISMATCHED]) for row in rows) / len(rows) if has_kl else 0.0
    kl, total = max(kl, 0.0), 0.0
    for row in rows:
        ratio, p = log_ratio(models, row["prompt_ids"], row["completion_ids"]), row["probability"]
        good = GOOD * (1 - 1 / (1 + math.exp(-BETA * (ratio - kl))))
        bad = BAD * (1 - 1 / (1 + math.exp(-BETA * (kl - ratio))))
        total += p * good + (1 - p) * bad
    return total / len(rows), kl


def loss_of(models, tokenizer, rows, path, **changes):
    """Loss and gradients of one microbatch by our trainer, and the rows in it."""
    policy, reference = models
    trainer = kto_trainer(policy, tokenizer, arguments(path, **changes), reference=reference, train=rows)
    trainer.state.global_step = 1  # the policy has moved
    given = [dict(row) for row in trainer.train_dataset]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(given))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    return loss.detach(), gradients, given


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("labels", [CERTAIN, (1.0, 1.0, 1.0, 0.0)])
def test_certain_labels_have_the_loss_and_gradients_of_trl(tiny_model_dir, tokenizer, tmp_path, loss_type, labels):
    models = moved(tiny_model_dir)
    ours, gradients, given = loss_of(models, tokenizer, answers(labels), tmp_path, loss_type=loss_type)

    class Plain(KTOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    rows = [{**row, "label": row["probability"] == 1.0} for row in given]
    policy, reference = models
    settings = arguments(tmp_path, loss_type=loss_type)
    trl = Plain(policy, ref_model=reference, args=settings, train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer)  # fmt: skip
    theirs = trl.compute_loss(trl.model, trl.data_collator(rows))
    theirs.backward()
    assert ours.item() == theirs.item()
    assert set(gradients) == {name for name, p in policy.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, policy.get_parameter(name).grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("labels", [CERTAIN, SOFT])
def test_the_loss_is_the_expectation_of_the_papers(tiny_model_dir, tokenizer, tmp_path, loss_type, labels):
    models = moved(tiny_model_dir)
    found, _, rows = loss_of(models, tokenizer, answers(labels), tmp_path, loss_type=loss_type)
    expected, kl = by_hand(models, rows, has_kl=loss_type == "kto")
    assert (kl > 0) == (loss_type == "kto")  # the clamp hides nothing
    assert found.item() == pytest.approx(expected, abs=1e-6)  # TRL's fused layer computes log-probabilities in float32


class Given:
    """A model whose log-probabilities are given: those of the mismatched answers first, then those of the answers."""

    def __init__(self, *log_probs):
        self.left = list(log_probs)

    def __call__(self, **_):
        logps = self.left.pop(0)
        return SimpleNamespace(log_probs=logps, entropy=torch.zeros_like(logps), mean_logits=torch.zeros_like(logps))


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("labels", [CERTAIN, SOFT])
def test_loss_and_gradient_of_the_same_numbers_in_float64(tiny_model_dir, tokenizer, tmp_path, loss_type, labels):
    settings = arguments(tmp_path, loss_type=loss_type)
    trainer = kto_trainer(moved(tiny_model_dir)[0], tokenizer, settings, train=answers(labels))
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    g, width = torch.Generator().manual_seed(0), batch["input_ids"].size(1)
    of_mismatched = batch["KL_input_ids"].size(1) if loss_type == "kto" else width
    widths = (width, of_mismatched, width, of_mismatched)
    logps, mismatched, reference, reference_kl = (
        -torch.rand(4, width - 1, generator=g, dtype=torch.float64) for width in widths
    )
    batch |= {"ref_logps": reference.sum(1), "ref_KL_logps": reference_kl.sum(1) - 1.0}
    if loss_type != "kto":
        del batch["ref_KL_logps"]
    passes = [mismatched, logps.requires_grad_()] if loss_type == "kto" else [logps.requires_grad_()]
    loss = trainer._compute_loss(Given(*passes), batch, False)
    (gradient,) = torch.autograd.grad(loss, logps)
    ratio = (logps - reference).sum(1).detach()
    kl = (mismatched - reference_kl).sum(1).mean().item() + 1.0 if loss_type == "kto" else 0.0
    assert kl > 0 or loss_type != "kto"
    p, likes = batch["probability"].double(), 1 / (1 + (-BETA * (ratio - kl)).exp())
    expected = (p * GOOD * (1 - likes) + (1 - p) * BAD * likes).mean()
    slope = BETA * likes * (1 - likes) * ((1 - p) * BAD - p * GOOD) / 4  # of σ(x): σ(x) (1 - σ(x))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    torch.testing.assert_close(gradient, slope[:, None].expand_as(gradient), rtol=0, atol=1e-9)
    if labels == CERTAIN:  # TRL's own method on the same numbers
        given = {key: value for key, value in batch.items() if key != "probability"}
        with trainer._references_given():
            theirs = KTOTrainer._compute_loss(trainer, Given(*passes), given, False)
        assert loss.item() == pytest.approx(theirs.item(), abs=1e-9)
        torch.testing.assert_close(gradient, torch.autograd.grad(theirs, logps)[0], rtol=0, atol=1e-9)


def test_the_expectation_in_numbers():
    loss = KTOLoss(beta=1.0, desirable_weight=2.0, undesirable_weight=1.0)
    ratios, p = torch.tensor([math.log(3) + 0.5] * 3), torch.tensor([1.0, 0.0, 0.25])
    # σ(log 3) = 3/4: good 2 · 1/4, bad 1 · 3/4, and 1/4 · 1/2 + 3/4 · 3/4 = 0.6875
    torch.testing.assert_close(loss.expected(ratios, 0.5, p), torch.tensor([0.5, 0.75, 0.6875]))
    torch.testing.assert_close(loss.beyond_label(ratios, 0.5, p), torch.tensor([0.0, 0.0, 0.6875 - 0.75]))


def test_a_probability_has_the_mean_gradient_of_both_labels(tiny_model_dir, tokenizer, tmp_path):
    models = moved(tiny_model_dir)
    found = [loss_of(models, tokenizer, answers([p, 0.5, 0.5, 0.5]), tmp_path)[1] for p in (0.3, 1.0, 0.0)]
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, 0.3 * found[1][name] + 0.7 * found[2][name], rtol=1e-5, atol=1e-7)


def test_mismatched_answers_are_those_of_the_microbatch():
    rows = answers((1.0, 0.0) * 4 + (1.0,))
    made = ordered(rows, seed=5, microbatch=4)
    assert sorted(map(str, (row["completion_ids"] for row in made))) == sorted(
        map(str, (r["completion_ids"] for r in rows))
    )
    assert [row["prompt_ids"] for row in made] != [row["prompt_ids"] for row in rows]  # shuffled, and the same again
    assert list(made) == list(ordered(rows, seed=5, microbatch=4))
    for begin in (0, 4):
        block = [made[begin + i] for i in range(4)]
        assert [row[MISMATCHED] for row in block] == [block[i - 1]["completion_ids"] for i in range(4)]
    assert made[8][MISMATCHED] == made[7]["completion_ids"]  # alone in its microbatch
    assert MISMATCHED not in ordered(rows, seed=5, microbatch=None)[0]


def test_an_evaluation_does_not_depend_on_the_batch(tiny_model_dir, tokenizer, tmp_path):
    models = moved(tiny_model_dir, torch.float32)
    held_out = answers((1.0, 0.0, 0.7, 0.5, 0.0, 1.0, 0.2))
    found = []
    for size in (1, 2, 3, 7):
        policy, reference = models
        settings = arguments(tmp_path, per_device_eval_batch_size=size)
        trainer = kto_trainer(policy, tokenizer, settings, reference=reference, train=answers(), evaluation=held_out)
        found.append(trainer.evaluate())
        rows = [dict(row) for row in trainer.eval_dataset]
    expected, kl = by_hand(models, rows)
    good = [BETA * log_ratio(models, r["prompt_ids"], r["completion_ids"]) for r in rows if r["probability"] >= 0.5]
    for one in found:
        assert one["eval_loss"] == pytest.approx(expected, abs=1e-5)
        assert one["eval_kl"] == pytest.approx(kl, abs=1e-5)
        assert one["eval_rewards/chosen"] == pytest.approx(sum(good) / len(good), abs=1e-5)
        assert one["eval_rewards/margins"] == pytest.approx(one["eval_rewards/chosen"] - one["eval_rewards/rejected"])


def test_one_label_alone_has_no_margin_in_an_evaluation():
    constants = KTOLoss(beta=1.0, desirable_weight=1.0, undesirable_weight=1.0)
    zero = torch.zeros(2, dtype=torch.float64)
    loss, metrics = evaluated(constants, zero, zero, zero - 1, torch.ones(2, dtype=torch.float64))
    assert (loss, metrics) == (0.5, {"kl": 0.0, "rewards/chosen": 0.0, "logps/chosen": 0.0})


@pytest.mark.parametrize(
    ("good", "bad", "given", "expected"),
    [
        (10, 10, {}, (1, 1)),
        (8, 7, {}, (1, 1)),  # 8 / 7 lies between 1 and 4/3
        (5, 20, {}, (4, 1)),  # 4 · 5 / 20 = 1
        (20, 5, {}, (1, 3)),  # 20 / (3 · 5) = 4/3
        (5, 20, {"undesirable_weight": 0.5}, (2, 0.5)),
        (20, 5, {"undesirable_weight": 1.5}, (0.5, 1.5)),  # 0.5 · 20 / (1.5 · 5) = 4/3
        (5, 20, {"desirable_weight": 2.0}, (2, 0.5)),
        (20, 5, {"desirable_weight": 0.3}, (0.3, 1)),
        (5, 20, {"desirable_weight": 1.0, "undesirable_weight": 1.0}, (1, 1)),
    ],
)
def test_weights_come_from_the_balance_of_the_labels(good, bad, given, expected):
    found = label_weights([1.0] * good + [0.0] * bad, **given)
    assert (found.desirable_weight, found.undesirable_weight) == pytest.approx(expected)
    inside = 1 <= round(found.ratio, 9) <= 4 / 3 + 1e-9
    assert (found.warning() is None) == inside
    assert inside == (len(given) < 2)


def test_probabilities_count_as_parts_of_a_label():
    found = label_weights([0.75, 0.25, 0.25])
    assert (found.desirable, found.undesirable) == (1.25, 1.75)
    assert found.desirable_weight == pytest.approx(1.4)


def test_weights_that_no_balance_justifies_are_refused():
    rare = [0.0] * 9 + [5e-6]
    with pytest.raises(DataError, match=r"10 answers make 5e-06 good and 10 bad ones, too few good ones"):
        label_weights(rare)
    assert label_weights(rare, desirable_weight=2.0, undesirable_weight=1.0).desirable == 5e-6
    with pytest.raises(DataError, match="too few bad ones"):
        label_weights([1.0] * 9 + [1 - 5e-6])


def test_one_held_out_answer_has_no_kl(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes.kto, "load_causal_lm", None)
    (tmp_path / "one.jsonl").write_text(json.dumps(ROWS[0]))
    held_out = [{"path": str(tmp_path / "one.jsonl")}]
    with pytest.raises(DataError, match="1 labelled answer is held out, and the KL of an evaluation needs two"):
        recipes.kto.main(write(tmp_path, tiny_model_dir, ROWS, eval_datasets=held_out))
    require_evaluable(answers((1.0,)), loss_type="apo_zero_unpaired")


def test_the_metric_that_chooses_needs_its_labels_held_out(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes.kto, "load_causal_lm", None)
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[1::2]))
    keys = {
        "eval_datasets": [{"path": str(tmp_path / "good.jsonl")}], "eval_strategy": "steps", "eval_steps": 2,
        "load_best_model_at_end": True, "metric_for_best_model": "rewards/margins",
    }  # fmt: skip
    with pytest.raises(DataError, match="metric_for_best_model rewards/margins needs bad answers among the held-out"):
        recipes.kto.main(write(tmp_path, tiny_model_dir, ROWS, **keys))
    require_evaluable(answers((1.0, 0.9)), loss_type="kto", best_by="eval_rewards/chosen")
    require_evaluable(answers((1.0, 0.9)), loss_type="kto", best_by="loss")
    require_evaluable([], loss_type="kto", best_by="rewards/margins")


@pytest.mark.parametrize(
    ("probabilities", "told"),
    [
        ((), "0 labelled answers are left to train on, and KTO needs two or more"),
        ((1.0, 1.0), "all 2 answers are labelled good, and KTO learns from good and bad ones"),
        ((0.0, 0.0), "all 2 answers are labelled bad, "),
        ((0.5, 0.5), "all 2 answers are labelled good with probability 0.5, "),
        ((1.0, 0.9999999999999999), "all 2 answers are labelled good, "),  # as a judge's probabilities add up
    ],
)
def test_labels_that_are_all_the_same_are_refused(probabilities, told):
    with pytest.raises(DataError) as caught:
        require_both_labels(probabilities)
    assert told in str(caught.value)


def test_an_answer_that_does_not_fit_is_refused_or_left_out(tiny_model_dir, tokenizer):
    template = Template(tokenizer, "chatml", None)
    fits = Unpaired("q", ["a", "b " * 50], [], {}, "d.jsonl:1", (1.0, 0.0))
    with pytest.raises(DataError, match=r"d.jsonl:1 answer 2 of 2: .* raise max_length"):
        tokenise_unpaired([fits], template, limit=20)
    made = tokenise_unpaired([fits, replace(fits, desirable=(0.5, None))], template, limit=20, on_bad_row="skip")
    assert ([row["probability"] for row in made.rows], made.places) == ([1.0, 0.5], [0, 1])


def test_left_out_answers_are_counted_among_answers(tiny_model_dir, tokenizer, capsys):
    rows = [Unpaired("q", ["a", "b " * 50, "b " * 60, "c"], [], {}, "d.jsonl:1", (1.0, 0.0, 0.0, None))]
    tokenise_unpaired(rows, Template(tokenizer, "chatml", None), limit=20, on_bad_row="skip")
    assert "left out 2 of 3 rows" in capsys.readouterr().err  # a row that is trained is an answer with a label


def test_a_policy_that_is_not_its_reference_is_refused_at_the_first_step(tiny_model_dir, tokenizer, tmp_path):
    policy, reference = moved(tiny_model_dir, torch.float32)
    trainer = kto_trainer(policy, tokenizer, arguments(tmp_path, max_steps=1), reference=reference, train=answers())
    with pytest.raises(TrainingError, match=r"the first KTO rewards are .* and must be 0"):
        trainer.train()


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.parametrize("peft_method", ["lora", "full"])
def test_it_learns_from_a_common_start(tiny_model_dir, tokenizer, tmp_path, peft_method, precompute):
    keys = Keys(model_name_or_path=str(tiny_model_dir), peft_method=peft_method)
    model = load_causal_lm(keys, trainable=True, peft=keys)
    reference = load_causal_lm(keys, trainable=False) if peft_method == "full" and not precompute else None
    settings = arguments(tmp_path, precompute_ref_log_probs=precompute, max_steps=8, learning_rate=1e-2)
    trainer = kto_trainer(model, tokenizer, settings, reference=reference, train=answers(), evaluation=answers())
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert logs[0]["loss"] == pytest.approx((GOOD + BAD) / 4)  # at the reference each loss is half its weight
    assert (logs[0]["kl"], logs[0]["rewards/margins"]) == (0, 0)
    assert logs[-1]["rewards/margins"] > 0.1
    assert trainer.evaluate()["eval_loss"] < (GOOD + BAD) / 4


def test_a_first_microbatch_of_one_label_trains(tiny_model_dir, tokenizer, tmp_path):
    settings = arguments(tmp_path, loss_type="apo_zero_unpaired", per_device_train_batch_size=1, max_steps=3)
    keys = Keys(model_name_or_path=str(tiny_model_dir), peft_method="lora")
    model = load_causal_lm(keys, trainable=True, peft=keys)
    trainer = kto_trainer(model, tokenizer, settings, train=answers())
    trainer.train()
    logs = [log for log in trainer.state.log_history if "kl" in log]
    assert [sorted({"rewards/chosen", "rewards/rejected"} & log.keys()) for log in logs] == [
        [f"rewards/{'chosen' if row['probability'] >= 0.5 else 'rejected'}"] for row in list(trainer.train_dataset)[:3]
    ]


ROWS = [{"prompt": f"tell me {n}", "completion": f"a b {n}" if n % 2 else "c", "label": n % 2 == 1} for n in range(12)]


def write(folder, base, rows, **keys):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "stage": "kto", "output_dir": str(folder / "run"), "model_name_or_path": str(base),
        "datasets": [{"path": str(folder / "rows.jsonl")}], "max_length": 64, "max_steps": 4, "save_steps": 2,
        "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, **keys,
    }  # fmt: skip
    (folder / "kto.yaml").write_text(yaml.safe_dump(recipe))
    return ["--config", str(folder / "kto.yaml")]


def test_a_recipe_trains_reports_the_weights_and_saves_an_adapter(tiny_model_dir, tmp_path):
    recipes.kto.main(write(tmp_path, tiny_model_dir, ROWS + ROWS[::2], test_split_size=0.2))
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    labels = manifest["labels"]
    assert labels["desirable_weight"] == pytest.approx(labels["undesirable"] / labels["desirable"])
    assert (labels["undesirable_weight"], labels["ratio"]) == (1.0, pytest.approx(1.0))
    assert manifest["preview"]["probability"] in (0.0, 1.0)
    assert manifest["train"]["rows"] + manifest["evaluation"]["rows"] == 18
    assert (tmp_path / "run/adapter_model.safetensors").is_file()
    names = set().union(*read_jsonl(tmp_path / "run/metrics.jsonl"))
    assert {"kl", "rewards/margins", "rewards/chosen", "rewards/rejected", "eval_loss", "eval_kl"} <= names


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{**row, "label": True} for row in ROWS], "all 12 answers are labelled good"),
        ([{key: row[key] for key in ("prompt", "completion")} for row in ROWS], "holds no labels of answers"),
    ],
)
def test_bad_labels_are_refused_before_the_model_loads(tiny_model_dir, tmp_path, monkeypatch, rows, told):
    monkeypatch.setattr(recipes.kto, "load_causal_lm", None)
    with pytest.raises(DataError, match=told) as refused:
        recipes.kto.main(write(tmp_path, tiny_model_dir, rows))
    assert refused.value.exit_code == 2
    with pytest.raises(RecipeError, match=told):
        check_data([load_recipe(KTORecipe, ["--config", str(tmp_path / "kto.yaml")])], print)


def test_a_run_without_a_step_fails(tiny_model_dir, tmp_path):
    keys = {"dataloader_drop_last": True, "per_device_train_batch_size": 16}
    with pytest.raises(TrainingError, match="no step was taken: dataloader_drop_last leaves out"):
        recipes.kto.main(write(tmp_path, tiny_model_dir, ROWS, **keys))
    assert not (tmp_path / "run/adapter_model.safetensors").exists()


def test_trls_refusals_are_faults_of_the_recipe(tiny_model_dir, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with pytest.raises(RecipeError, match="batch size must be > 1"):
        kto_trainer(model, tokenizer, arguments(tmp_path, per_device_train_batch_size=1), train=answers())


def test_a_synchronised_reference_goes_on_after_a_stop(tiny_model_dir, tmp_path):
    ends = []
    for name, stops in (("straight", ()), ("stopped", (2,))):
        folder = tmp_path / name
        folder.mkdir()
        keys = {"peft_method": "full", "sync_ref_model": True, "ref_model_sync_steps": 2}
        for stop in stops:
            recipes.kto.main(write(folder, tiny_model_dir, ROWS, **keys, max_steps=stop, lr_scheduler_type="constant"))
            (folder / "run/model.safetensors").unlink()
            manifest = json.loads((folder / "run/manifest.json").read_text())
            manifest["recipe"]["max_steps"], manifest["status"] = 4, "running"
            (folder / "run/manifest.json").write_text(json.dumps(manifest))
        recipes.kto.main(write(folder, tiny_model_dir, ROWS, **keys, lr_scheduler_type="constant"))
        ends.append(load_file(folder / "run/model.safetensors"))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
