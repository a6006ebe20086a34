"""Losses without a reference: equal to TRL's trainers at probability 1, the expectation elsewhere, trained in DPO."""

import json
import os
import types
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoTokenizer

import recipes.dpo
from alignment.policy.base import load_causal_lm
from alignment.train.dpo import dpo_trainer
from alignment.train.reference_free import ReferenceFreeTrainer, forced_arguments, preference_losses
from tests.train.test_dpo import Keys, arguments, pairs

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # TRL warns when these are imported
CPOTrainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
ORPOTrainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer
SETTINGS = {
    "cpo": {"cpo_alpha": 1.0, "simpo_gamma": 0.5},
    "simpo": {"cpo_alpha": 0.0, "simpo_gamma": 0.7},
    "orpo": {"cpo_alpha": 1.0, "simpo_gamma": 0.5},
}
BETA = 0.3


def numbers(seed: int, pairs: int = 4):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (2 * pairs,), generator=g)
    sums = -(torch.rand(2 * pairs, generator=g, dtype=torch.float64) + 0.01) * 3 * lengths
    return sums, lengths


def of_trl(loss_type: str, sums: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each pair's loss by TRL's own method, with its likelihood term of one pair."""
    means = sums / lengths
    (chosen, rejected), (chosen_mean, rejected_mean) = sums.chunk(2), means.chunk(2)
    trainer = types.SimpleNamespace(
        accelerator=Accelerator(cpu=True), beta=BETA, alpha=0.0, label_smoothing=0.0,
        simpo_gamma=SETTINGS[loss_type]["simpo_gamma"], loss_type="simpo" if loss_type == "simpo" else "sigmoid",
    )  # fmt: skip
    if loss_type == "orpo":
        ratios, *_ = ORPOTrainer.odds_ratio_loss(trainer, chosen_mean, rejected_mean)
        return -chosen_mean - ratios
    read = (chosen_mean, rejected_mean) if loss_type == "simpo" else (chosen, rejected)
    losses, *_ = CPOTrainer.cpo_loss(trainer, *read)
    return losses - SETTINGS[loss_type]["cpo_alpha"] * chosen_mean


@pytest.mark.parametrize("loss_type", SETTINGS)
def test_a_certain_label_has_the_loss_of_trl(loss_type):
    for seed in range(5):
        sums, lengths = numbers(seed)
        found = preference_losses(loss_type, sums, lengths, torch.ones(4), beta=BETA, **SETTINGS[loss_type])
        tolerance = 1e-5 if loss_type == "orpo" else 1e-12  # TRL computes the odds in float32
        torch.testing.assert_close(found, of_trl(loss_type, sums, lengths).double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("loss_type", SETTINGS)
def test_the_loss_is_the_expectation_over_the_label(loss_type):
    sums, lengths = numbers(9)
    swapped, swapped_lengths = sums.roll(4), lengths.roll(4)
    p = torch.tensor([1.0, 0.75, 0.5, 0.6], dtype=torch.float64)
    settings = {"beta": BETA, **SETTINGS[loss_type]}
    one = torch.ones(4, dtype=torch.float64)
    as_labelled = preference_losses(loss_type, sums, lengths, one, **settings)
    reversed_label = preference_losses(loss_type, swapped, swapped_lengths, one, **settings)
    found = preference_losses(loss_type, sums, lengths, p, **settings)
    torch.testing.assert_close(found, p * as_labelled + (1 - p) * reversed_label)


def test_odds_stay_finite_where_an_answer_is_certain():
    sums = torch.tensor([0.0, -5.0], requires_grad=True)
    loss = preference_losses("orpo", sums, torch.tensor([2, 2]), torch.ones(1), beta=BETA, **SETTINGS["orpo"])
    loss.sum().backward()
    assert bool(loss.isfinite().all())
    assert bool(sums.grad.isfinite().all())


@pytest.mark.parametrize("loss_type", SETTINGS)
@pytest.mark.parametrize("peft_method", ["lora", "full"])
def test_dpo_trains_without_a_reference(tiny_model_dir, tmp_path, monkeypatch, loss_type, peft_method):
    keys = Keys(model_name_or_path=str(tiny_model_dir), peft_method=peft_method)
    model = load_causal_lm(keys, trainable=True, peft=keys)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    settings = arguments(tmp_path, **forced_arguments(), max_steps=6, learning_rate=1e-2, beta=BETA)
    build = partial(ReferenceFreeTrainer, loss_settings={"loss_type": loss_type, **SETTINGS[loss_type]})
    trainer = dpo_trainer(model, tokenizer, settings, trainer_class=build, train=pairs(0.8), evaluation=pairs(0.8))
    assert trainer.ref_model is None
    assert "ref" not in getattr(model, "peft_config", {})
    expected, rewards = by_hand(model, pairs(0.8), loss_type)
    evaluated = trainer.evaluate()
    assert evaluated["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert {name: evaluated[f"eval_rewards/{name}"] for name in rewards} == pytest.approx(rewards, abs=1e-5)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[0] == pytest.approx(expected, abs=1e-5)
    assert losses[-1] < losses[0]


@torch.no_grad()
def by_hand(model, rows, loss_type):
    """The mean loss of some pairs and the rewards that it compares, one answer at a time."""
    sums = []
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            ids, start = torch.tensor([row["prompt_ids"] + row[side]]), len(row["prompt_ids"])
            logp = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
            sums.append(logp.gather(1, ids[0, start:].unsqueeze(1)).sum())
    lengths = torch.tensor([len(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows])
    probability = torch.tensor([row["probability"] for row in rows])
    sums = torch.stack(sums)
    losses = preference_losses(loss_type, sums, lengths, probability, beta=BETA, **SETTINGS[loss_type])
    chosen, rejected = (BETA * (sums if loss_type == "cpo" else sums / lengths)).chunk(2)
    rewards = {
        "chosen": float(chosen.mean()),
        "rejected": float(rejected.mean()),
        "margins": float((chosen - rejected).mean()),
        "accuracies": float((chosen > rejected).float().mean()),
    }
    return float(losses.mean()), rewards


@pytest.mark.parametrize("peft_method", ["lora", "full"])
def test_a_recipe_loads_one_model_and_a_killed_run_ends_at_the_same_weights(tiny_model_dir, tmp_path, peft_method):
    rows = [{"prompt": f"tell me {i}", "chosen": "a kind and whole answer", "rejected": f"no {i}"} for i in range(12)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name):
        keys = {
            "stage": "dpo", "model_name_or_path": str(tiny_model_dir), "output_dir": str(tmp_path / name),
            "datasets": [{"path": str(data)}], "loss_type": "simpo", "peft_method": peft_method, "max_steps": 4,
            "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 2,
        }  # fmt: skip
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps(keys))
        recipes.dpo.main(["--config", str(file)])

    run("whole")
    with pytest.MonkeyPatch.context() as patch:
        loads = []
        load = recipes.dpo.load_causal_lm
        patch.setattr(recipes.dpo, "load_causal_lm", lambda *a, **k: loads.append(1) or load(*a, **k))
        patch.setattr(ReferenceFreeTrainer, "training_step", stop_after(ReferenceFreeTrainer.training_step, steps=3))
        with pytest.raises(KeyboardInterrupt):
            run("killed")
        assert len(loads) == 1
    run("killed")
    weights = "adapter_model.safetensors" if peft_method == "lora" else "model.safetensors"
    whole, killed = (load_file(tmp_path / name / weights) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def stop_after(step, *, steps):
    taken = []

    def limited(*args, **options):
        taken.append(1)
        if len(taken) > steps:
            raise KeyboardInterrupt
        return step(*args, **options)

    return limited
