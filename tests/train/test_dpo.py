"""DPO: the probability in the loss, and that it learns."""

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

import recipes.dpo
from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.data.rows import Pair, Ranking
from alignment.errors import DataError, RecipeError, TrainingError
from alignment.policy.base import load_causal_lm
from alignment.train.arguments import checkpointing_key
from alignment.train.dpo import ProbabilityCollator, dpo_trainer, expectation_terms
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.saving import save_trained
from tests.models import save_tiny_model


class Keys(ModelKeys, AdapterKeys):
    """What a recipe says of model and adapter."""


def arguments(path, **changes):
    settings = {
        "output_dir": str(path),
        "use_cpu": True,
        "bf16": False,
        checkpointing_key(DPOConfig): False,
        "max_length": None,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "dataloader_pin_memory": False,
        **changes,
    }
    return DPOConfig(**settings)


def pairs(probability=1.0, count=4):
    """Pairs of answers that differ in words and in length."""
    return [
        {
            "prompt_ids": [2, 10 + i, 11],
            "chosen_ids": [20 + i, 21, 22, 1],
            "rejected_ids": [30, 31 + i, 1],
            "probability": probability,
        }
        for i in range(count)
    ]


def swapped(rows):
    return [
        {
            **row,
            "chosen_ids": row["rejected_ids"],
            "rejected_ids": row["chosen_ids"],
            "probability": 1 - row["probability"],
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def moved(tiny_model_dir):
    """A policy some way off its reference, and the reference."""
    policy = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy, AutoModelForCausalLM.from_pretrained(tiny_model_dir)


def loss_of(moved, tokenizer, rows, path, **changes):
    policy, reference = moved
    trainer = dpo_trainer(policy, tokenizer, arguments(path, **changes), reference=reference, train=rows)
    return trainer.compute_loss(trainer.model, trainer.data_collator(rows))


def log_ratios(moved, rows):
    """(pairs,) log π/π_ref of chosen and rejected, with plain softmax and a loop, in float64."""
    result = []
    for key in ("chosen_ids", "rejected_ids"):
        column = []
        for row in rows:
            ids = torch.tensor([row["prompt_ids"] + row[key]])
            total = 0.0
            for model, sign in zip(moved, (1, -1), strict=True):
                logps = model(ids).logits[0].double().log_softmax(-1)
                start = len(row["prompt_ids"])
                total += sign * sum(logps[t - 1, ids[0, t]].item() for t in range(start, ids.shape[1]))
            column.append(total)
        result.append(column)
    return result


def test_sigmoid_is_the_cross_entropy_against_the_probability(moved, tokenizer, tmp_path):
    rows = [{**row, "probability": p} for row, p in zip(pairs(), (1.0, 0.5, 0.8, 0.6), strict=True)]
    chosen, rejected = log_ratios(moved, rows)
    expected = 0.0
    for c, r, row in zip(chosen, rejected, rows, strict=True):
        prefers = 1 / (1 + math.exp(-0.1 * (c - r)))
        expected -= (row["probability"] * math.log(prefers) + (1 - row["probability"]) * math.log(1 - prefers)) / 4
    assert loss_of(moved, tokenizer, rows, tmp_path).item() == pytest.approx(expected, abs=2e-5)


def test_ipo_is_the_expected_square(moved, tokenizer, tmp_path):
    rows = [{**row, "probability": p} for row, p in zip(pairs(), (1.0, 0.5, 0.8, 0.6), strict=True)]
    chosen, rejected = log_ratios(moved, rows)
    expected = 0.0
    for c, r, row in zip(chosen, rejected, rows, strict=True):
        delta, goal = c / len(row["chosen_ids"]) - r / len(row["rejected_ids"]), 1 / (2 * 0.1)
        p = row["probability"]
        expected += (p * (delta - goal) ** 2 + (1 - p) * (delta + goal) ** 2) / 4
    loss = loss_of(moved, tokenizer, rows, tmp_path, loss_type=["ipo"])
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss_type", [["sigmoid"], ["ipo"], ["hinge"], ["sigmoid", "sft"]])
def test_certain_labels_give_trls_own_loss(moved, tokenizer, tmp_path, loss_type):
    rows = pairs()
    policy, reference = moved
    ours = loss_of(moved, tokenizer, rows, tmp_path, loss_type=loss_type)
    ours.backward()
    gradient = policy.lm_head.weight.grad.clone()
    policy.zero_grad()

    class Plain(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    from datasets import Dataset

    theirs = Plain(
        policy,
        ref_model=reference,
        args=arguments(tmp_path, loss_type=loss_type),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForPreference(pad_token_id=0),
        processing_class=tokenizer,
    )
    loss = theirs.compute_loss(theirs.model, theirs.data_collator(rows))
    loss.backward()
    assert ours.item() == loss.item()
    assert torch.equal(gradient, policy.lm_head.weight.grad)


@pytest.mark.parametrize(("loss_type", "expected"), [("sigmoid", math.log(2)), ("ipo", 25.0)])  # (1 / (2·0.1))²
def test_loss_at_the_reference(tiny_model_dir, tokenizer, tmp_path, loss_type, expected):
    models = [AutoModelForCausalLM.from_pretrained(tiny_model_dir) for _ in range(2)]
    for probability in (1.0, 0.7, 0.5):
        loss = loss_of(models, tokenizer, pairs(probability), tmp_path, loss_type=[loss_type])
        assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_swapping_answers_and_probability_changes_nothing(moved, tokenizer, tmp_path, loss_type):
    rows = pairs(0.8)
    one = loss_of(moved, tokenizer, rows, tmp_path, loss_type=[loss_type])
    other = loss_of(moved, tokenizer, swapped(rows), tmp_path, loss_type=[loss_type])
    assert one.item() == pytest.approx(other.item(), rel=1e-5)


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_an_even_pair_pulls_nowhere_at_the_reference(tiny_model_dir, tokenizer, tmp_path, loss_type):
    models = [AutoModelForCausalLM.from_pretrained(tiny_model_dir) for _ in range(2)]
    loss_of(models, tokenizer, pairs(0.5), tmp_path, loss_type=[loss_type]).backward()
    assert max(p.grad.abs().max().item() for p in models[0].parameters()) < 1e-5
    loss_of(models, tokenizer, pairs(0.6), tmp_path, loss_type=[loss_type]).backward()
    assert max(p.grad.abs().max().item() for p in models[0].parameters()) > 1e-3


def test_expectation_terms_by_hand():
    delta, probability = torch.tensor([2.0, -3.0]), torch.tensor([1.0, 0.75])
    # sigmoid: (1-1)·0.1·2 = 0; (1-0.75)·0.1·(-3) = -0.075. ipo: 0; (1-0.75)·2·(-3)/0.1 = -15
    assert expectation_terms("sigmoid", delta, probability, 0.1).tolist() == pytest.approx([0.0, -0.075])
    assert expectation_terms("ipo", delta, probability, 0.1).tolist() == pytest.approx([0.0, -15.0])
    assert expectation_terms("hinge", delta, probability, 0.1).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "method",
    [
        {"lora_r": 4},
        {"lora_r": 4, "load_in_4bit": True},  # TRL casts the trained weights to bfloat16
        {"lora_r": 4, "load_in_8bit": True},
        {"peft_method": "fourierft", "peft_config": {"n_frequency": 50}},  # TRL copies no ParameterDict
    ],
    ids=["lora", "nf4", "8 bits", "fourierft"],
)
def test_precomputed_references_give_the_same_training(wide_model_dir, tokenizer, tmp_path, method):
    losses = []
    for precompute in (False, True):
        keys = Keys(model_name_or_path=str(wide_model_dir), **method)
        torch.manual_seed(0)
        model = load_causal_lm(keys, trainable=True, peft=keys)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.1)  # as one that an earlier stage trained
        settings = arguments(tmp_path, precompute_ref_log_probs=precompute, max_steps=3, learning_rate=1e-2)
        trainer = dpo_trainer(model, tokenizer, settings, train=pairs(0.9))
        trainer.train()
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][0] == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("held", [{}, {"load_in_4bit": True}, {"load_in_8bit": True}], ids=["float32", "nf4", "8 bits"])
def test_continues_an_adapter_against_a_frozen_copy_and_saves_it_alone(wide_model_dir, tokenizer, tmp_path, held):
    start = tmp_path / "sft"
    keys = Keys(model_name_or_path=str(wide_model_dir), lora_r=4, **held)
    model = load_causal_lm(keys, trainable=True, peft=keys)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    model.save_pretrained(start)
    tokenizer.save_pretrained(start)

    keys = Keys(model_name_or_path=str(start), **held)
    model = load_causal_lm(keys, trainable=True, peft=keys)
    settings = arguments(tmp_path / "dpo", max_steps=8, learning_rate=2e-2, lr_scheduler_type="constant", beta=1.0)
    trainer = dpo_trainer(model, tokenizer, settings, train=pairs(0.95))
    reference = {n: p.clone() for n, p in trainer.model.named_parameters() if ".ref." in n}
    assert reference
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < 0.5
    assert all(torch.equal(p, reference[n]) for n, p in trainer.model.named_parameters() if ".ref." in n)

    run = tmp_path / "run"
    run.mkdir()
    save_trained(trainer, run)
    assert not [path for path in run.iterdir() if path.is_dir() or path.suffix == ".bin"]
    if not held:
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(wide_model_dir), run).eval()
        ids = torch.tensor([[2, 10, 11, 20]])
        assert torch.allclose(loaded(ids).logits, trainer.model.eval()(ids).logits, atol=1e-6)


class KilledAt(TrainerCallback):
    """Ctrl-C in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def first_losses(model, tokenizer, path):
    """Of a step without learning, and of one behind it."""
    trainer = dpo_trainer(model, tokenizer, arguments(path, max_steps=2, learning_rate=0.5), train=pairs())
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("dropout", ["attention_dropout", "dropout"])
def test_a_model_with_functional_dropout_starts_at_ln_2(tokenizer, tmp_path, dropout):
    """OPT calls `functional.dropout`, Llama's attention takes a rate; TRL turns off modules alone."""
    if dropout == "attention_dropout":
        save_tiny_model(tmp_path / "base", initializer_range=0.3, attention_dropout=0.5)
    else:
        sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = OPTConfig(vocab_size=len(tokenizer), word_embed_proj_dim=16, dropout=0.5, init_std=0.3, **sizes)
        OPTForCausalLM(config).save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
    keys = Keys(model_name_or_path=str(tmp_path / "base"), lora_r=2)
    model = load_causal_lm(keys, trainable=True, peft=keys)
    losses = first_losses(model, tokenizer, tmp_path)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[1] != losses[0]


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapter_on_embeddings_that_is_continued_starts_at_ln_2(tiny_model_dir, tokenizer, tmp_path, method):
    """TRL copies a part of such an adapter to its reference."""
    keys = Keys(
        model_name_or_path=str(tiny_model_dir), lora_target_modules=["embed_tokens", "q_proj"], peft_method=method
    )
    model = load_causal_lm(keys, trainable=True, peft=keys)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    keys = Keys(model_name_or_path=str(tmp_path / "adapter"))
    model = load_causal_lm(keys, trainable=True, peft=keys)
    losses = first_losses(model, tokenizer, tmp_path)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("peft_method", ["lora", "full"])
def test_a_run_that_does_not_start_at_ln_2_ends_with_the_reason(tiny_model_dir, tokenizer, tmp_path, peft_method):
    keys = Keys(model_name_or_path=str(tiny_model_dir), peft_method=peft_method)
    model = load_causal_lm(keys, trainable=True, peft=keys)
    reference = load_causal_lm(keys, trainable=False) if peft_method == "full" else None
    trainer = dpo_trainer(
        model, tokenizer, arguments(tmp_path, max_steps=2), reference=reference, train=pairs(), evaluation=pairs()
    )
    trainer.evaluate()  # is no start
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name or peft_method == "full":
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(TrainingError, match=r"the first DPO loss is 0\.\d{4} and must be ln 2 = 0\.6931"):
        trainer.train()
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.fixture
def recipe_file(tiny_model_dir, tmp_path):
    data = tmp_path / "labels.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {i}?"}],
            "responses": ["Thank you for asking!", "no", "a red ball"],
            "pairs": [
                {"first": 0, "second": 1, "probability": 0.9, "status": "ok"},
                {"first": 2, "second": 0, "probability": 0.3, "status": "ok"},
                {"first": 1, "second": 2, "probability": None, "status": "abstain"},
            ],
        }
        for i in range(6)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "stage": "dpo",
        "output_dir": str(tmp_path / "run"),
        "model_name_or_path": str(tiny_model_dir),
        "datasets": [{"path": str(data)}],
        "learning_rate": 1e-2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_steps": 2,
        "per_device_train_batch_size": 4,
        "beta": 1.0,
    }
    file = tmp_path / "dpo.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def run(file, output_dir, *overrides):
    recipes.dpo.main(["--config", str(file), "--output_dir", str(output_dir), *overrides])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_run_ends_at_the_same_weights(recipe_file, tmp_path, monkeypatch, method):
    options = ("--peft_method", method)
    run(recipe_file, tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        honest = recipes.dpo.callbacks_for
        patch.setattr(recipes.dpo, "callbacks_for", lambda *given: [*honest(*given), KilledAt(3)])
        with pytest.raises(KeyboardInterrupt):
            run(recipe_file, tmp_path / "killed", *options)
    run(recipe_file, tmp_path / "killed", *options)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    whole, killed = (load_file(tmp_path / folder / name) for folder in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    logs = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    losses = [log["loss"] for log in logs if "loss" in log]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6)
    assert losses[-1] < 0.6
    manifest = json.loads((tmp_path / "killed" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["train"]["rows"] == 12


class Words:
    """A template of one token a word, that stops with token 1."""

    def take_added_words(self):
        return ""

    def prompt_ids(self, prompt):
        return [2, *map(len, prompt.split())]

    def answer_ids(self, prompt, answer, *, stop=True, reasoning_field=False):
        return [*map(len, answer.split()), *([1] if stop else [])]


RANKING = Ranking(
    prompt="say something",
    responses=["a", "bb bb", "ccc", "a"],
    pairs=[
        Pair(0, 1, 0.25),
        Pair(1, 2, 0.5, "tie"),
        Pair(0, 2, None, "parse_error"),
        Pair(0, 3, 0.9),  # the same words
        Pair(2, 0, 0.6),
    ],
    source="labels.jsonl:7",
)


def test_pairs_become_rows_with_the_more_probable_answer_chosen():
    rows = tokenise_pairs([RANKING], Words(), limit=100).rows
    prompt = [2, 3, 9]
    assert rows == [
        {"prompt_ids": prompt, "chosen_ids": [2, 2, 1], "rejected_ids": [1, 1], "probability": 0.75},
        {"prompt_ids": prompt, "chosen_ids": [2, 2, 1], "rejected_ids": [3, 1], "probability": 0.5},
        {"prompt_ids": prompt, "chosen_ids": [3, 1], "rejected_ids": [1, 1], "probability": 0.6},
    ]
    assert len(tokenise_pairs([RANKING], Words(), limit=100, ties=False).rows) == 2


def test_answers_that_differ_in_white_space_around_them_are_left_out_and_counted(capsys):
    answers = ["a b", "a b ", "\n\ta b\n", "a  b"]
    rankings = [Ranking("say", [answers[0], other], [Pair(0, 1, 1.0)], source="d.jsonl:1") for other in answers[1:]]

    class Letters(Words):
        def answer_ids(self, prompt, answer, *, stop=True, reasoning_field=False):
            return [*answer.encode(), 1]

    result = tokenise_pairs(rankings, Letters(), limit=100)
    assert [row["rejected_ids"] for row in result.rows] == [[*b"a  b", 1]]
    assert result.counts() == {"rows": 1, "rows_truncated": 0, "rows_skipped": 0, "pairs_of_one_answer": 2}
    assert "left out 2 pairs whose two answers are the same" in capsys.readouterr().err


def test_an_answer_that_does_not_fit_is_named_or_left_out(capsys):
    with pytest.raises(DataError, match=r"labels.jsonl:7 answer 2 of 4: 3 tokens .* room for 2 .* raise max_length"):
        tokenise_pairs([RANKING], Words(), limit=5)
    result = tokenise_pairs([RANKING], Words(), limit=5, on_bad_row="skip")
    assert [row["chosen_ids"] for row in result.rows] == [[3, 1]]
    assert len(result.skipped) == 1
    two = tokenise_pairs([RANKING, replace(RANKING, source="labels.jsonl:8")], Words(), limit=3, on_bad_row="skip")
    assert [fault.split(" answer")[0] for fault in two.skipped] == ["labels.jsonl:7", "labels.jsonl:8"]
    assert two.counts()["rows_skipped"] == 2  # rows, each of which has four answers that do not fit
    assert (
        "left out 2 of 2 rows (on_bad_row: skip); the first is labels.jsonl:7 answer 1 of 4" in capsys.readouterr().err
    )


def test_no_pair_left_is_refused(moved, tokenizer, tmp_path):
    with pytest.raises(DataError, match="no usable pair"):
        dpo_trainer(moved[0], tokenizer, arguments(tmp_path), reference=moved[1], train=[])


def test_losses_without_a_form_for_probabilities_are_refused(moved, tokenizer, tmp_path):
    settings = arguments(tmp_path, ld_alpha=0.5)
    with pytest.raises(RecipeError, match="ld_alpha changes the loss"):
        dpo_trainer(moved[0], tokenizer, settings, reference=moved[1], train=pairs(0.8))


def test_collator_keeps_probabilities():
    batch = ProbabilityCollator(pad_token_id=0)(pairs(0.8, count=2))
    assert batch["probability"].tolist() == pytest.approx([0.8, 0.8])
    assert batch["completion_mask"].tolist()[0] == [0, 0, 0, 1, 1, 1, 1]


def test_an_answer_that_was_cut_off_does_not_teach_to_stop_there():
    cut = Ranking("say something", ["a", "bb bb"], [Pair(0, 1, 1.0)], provenance={"stopped": [False, True]})
    (row,) = tokenise_pairs([cut], Words(), limit=20, on_bad_row="stop", ties=True).rows
    assert row["chosen_ids"] == [1]  # "a" alone, no stop token
    assert row["rejected_ids"] == [2, 2, 1]
