"""SFT of encoder-decoder models: losses against transformers' own, resuming, sampling, evaluation, refusals."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, TrainerCallback

import recipes.evaluate
import recipes.label
import recipes.sft
from alignment.config.schema import ModelKeys
from alignment.data.masks import IGNORE
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import AlignmentError, DataError, ModelError
from alignment.policy.adapters import require_task_of_adapter
from alignment.policy.base import whole_modules
from alignment.policy.merge import merge
from alignment.policy.tokenizer import load_tokenizer
from alignment.train.sft import sft_trainer, tokenise_demonstrations
from tests.models import save_tiny_bart, save_tiny_model, save_tiny_t5
from tests.train.test_sft import arguments, manifest
from tests.tuned import Keys

PAIRS = [(f"Say {n}, please.", f"It is {n}" + " and more" * (n % 3) + ".") for n in range(12)]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return save_tiny_t5(tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return save_tiny_bart(tmp_path_factory.mktemp("models") / "bart")


def rows_of(folder, pairs=PAIRS, limit=64):
    template = Template(load_tokenizer(ModelKeys(model_name_or_path=str(folder))))
    made = tokenise_demonstrations([Demonstration(*pair) for pair in pairs], template, limit=limit)
    return made.rows, template.tokenizer


def trainer_of(folder, path, pairs=PAIRS, **changes):
    rows, tokenizer = rows_of(folder, pairs)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    return sft_trainer(model, tokenizer, arguments(path, **changes), train=rows, evaluation=rows), model


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_loss_and_gradients_are_those_of_transformers_on_the_same_batch(request, tmp_path, kind):
    folder = request.getfixturevalue(kind)
    trainer, model = trainer_of(folder, tmp_path, per_device_train_batch_size=12)
    (batch,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(model.train(), dict(batch))
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    order = [tokenizer.decode(row, skip_special_tokens=True) for row in batch["input_ids"]]
    answers = [dict(PAIRS)[prompt] for prompt in order]
    plain = tokenizer(order, text_target=answers, padding=True, return_tensors="pt")
    plain["labels"][plain["labels"] == tokenizer.pad_token_id] = IGNORE
    wanted = model(**plain)
    wanted.loss.backward()
    assert loss.item() == pytest.approx(wanted.loss.item(), rel=1e-6)
    assert all(torch.allclose(found[n], p.grad, atol=1e-6) for n, p in model.named_parameters() if n in found)
    assert torch.equal(model.prepare_decoder_input_ids_from_labels(plain["labels"])[:, 1:][plain["labels"][:, 1:] >= 0],
                       batch["decoder_input_ids"][:, 1:][plain["labels"][:, 1:] >= 0])  # fmt: skip


def test_accumulated_batches_weigh_tokens_alike(t5, tmp_path):
    weights = []
    for size, steps in ((12, 1), (3, 4), (2, 6)):
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        trainer, model = trainer_of(t5, tmp_path / str(size), optim="sgd", learning_rate=1.0, **how)
        loss = trainer.train().training_loss
        weights.append((loss, model.decoder.block[0].layer[0].SelfAttention.q.weight.detach().clone()))
    for loss, weight in weights[1:]:
        assert loss == pytest.approx(weights[0][0], rel=1e-5)
        assert torch.allclose(weight, weights[0][1], atol=1e-6)


def test_evaluation_is_a_mean_over_tokens_with_trl_s_metrics(t5, tmp_path):
    losses = []
    for size in (12, 5):
        trainer, model = trainer_of(t5, tmp_path / str(size), per_device_eval_batch_size=size)
        losses.append(trainer.evaluate())
    assert losses[0]["eval_loss"] == pytest.approx(losses[1]["eval_loss"], rel=1e-5)
    log = trainer.state.log_history[-1]
    total = entropy = right = count = 0
    for row in rows_of(t5)[0]:
        ids = [torch.tensor([row[key]]) for key in ("input_ids", "decoder_input_ids", "labels")]
        logp = model(input_ids=ids[0], decoder_input_ids=ids[1]).logits[0].double().log_softmax(-1)
        total -= logp.gather(1, ids[2].T).sum().item()
        entropy -= (logp.exp() * logp).sum().item()
        right += (logp.argmax(-1) == ids[2][0]).sum().item()
        count += len(logp)
    assert log["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert log["eval_entropy"] == pytest.approx(entropy / count, rel=1e-5)
    assert log["eval_mean_token_accuracy"] == pytest.approx(right / count, rel=1e-5)


def test_losses_other_than_the_likelihood(t5, tmp_path):
    trainer, model = trainer_of(t5, tmp_path, loss_type="dft", per_device_train_batch_size=12)
    (batch,) = trainer.get_train_dataloader()
    logits = model(batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"]).logits
    mask = batch["labels"] != IGNORE
    logp = logits.log_softmax(-1).gather(2, batch["labels"].clamp(min=0)[..., None])[..., 0][mask]
    found = trainer.compute_loss(model.eval(), dict(batch)).item()
    assert found == pytest.approx(-(logp * logp.exp()).mean().item(), rel=1e-5)
    with pytest.warns(FutureWarning, match="label_smoothing_factor"):  # of TRL
        trainer, model = trainer_of(t5, tmp_path, label_smoothing_factor=0.1, per_device_train_batch_size=12)
    smooth = 0.9 * -logp.mean() + 0.1 * -logits.log_softmax(-1).mean(-1)[mask].mean()
    assert trainer.compute_loss(model.eval(), dict(batch)).item() == pytest.approx(smooth.item(), rel=1e-5)


def test_long_answers_are_cut_and_long_prompts_refused(t5, bart):
    short, long = ("Say 1.", "It is 1, and so on and so on."), ("Say one, two, three, four and five.", "No.")
    whole = rows_of(t5, [short])[0][0]
    row = rows_of(t5, [short], limit=8)[0][0]
    assert (row["labels"], row["decoder_input_ids"]) == (whole["labels"][:8], whole["decoder_input_ids"][:8])
    with pytest.raises(DataError, match="tokens, and the encoder reads 8, which is as many as max_length"):
        rows_of(bart, [long], limit=8)


@pytest.fixture
def recipe_file(t5, tmp_path):
    """A recipe that overfits a few questions."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS))
    recipe = {
        "stage": "sft",
        "output_dir": str(tmp_path / "run"),
        "model_name_or_path": str(t5),
        "datasets": [{"path": str(data)}],
        "test_split_size": 0.25,
        "learning_rate": 2e-2,
        "max_steps": 6,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
    }
    file = tmp_path / "sft.yaml"
    file.write_text(json.dumps(recipe))
    return file


def run(file, **overrides):
    recipes.sft.main(["--config", str(file), *(f"--{key}={value}" for key, value in overrides.items())])


class KilledAt(TrainerCallback):
    """Ctrl-C in the middle of a step."""

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_a_killed_run_ends_at_the_same_weights(recipe_file, tmp_path, monkeypatch):
    common = {"lora_dropout": 0.2, "save_strategy": "steps", "save_steps": 2}
    run(recipe_file, output_dir=tmp_path / "whole", **common)
    with monkeypatch.context() as patch:
        honest = recipes.sft.callbacks_for
        patch.setattr(recipes.sft, "callbacks_for", lambda *given: [*honest(*given), KilledAt()])
        with pytest.raises(KeyboardInterrupt):
            run(recipe_file, output_dir=tmp_path / "killed", **common)
    run(recipe_file, output_dir=tmp_path / "killed", **common)
    whole, killed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    kept = [[json.loads(line) for line in lines if '"num_tokens"' in line] for lines in logs]
    assert kept[0][:6] == kept[1][:6]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_t5_is_trained_sampled_and_evaluated(recipe_file, tmp_path, t5, method, capsys):
    run(recipe_file, peft_method=method, max_steps=40, learning_rate=2e-2 if method == "lora" else 5e-3)
    folder = tmp_path / "run"
    assert f"saved {folder}; next: compare it with its base in stage evaluate" in capsys.readouterr().err
    losses = [json.loads(line).get("loss") for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[39] < losses[0] / 2
    found = manifest(folder)
    assert found["results"]["eval_loss"] < losses[0] / 2
    shown = {n: "".join(p["text"] for p in pieces) for n, pieces in found["preview"]["sequences"].items()}
    assert shown["input"].startswith("Say ")
    assert shown["target"].startswith("It is ")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    asked = [prompt for prompt, _ in PAIRS]
    greedy = [plain.generate(**tokenizer(p, return_tensors="pt"), max_new_tokens=12)[0, 1:].tolist() for p in asked]
    if method == "lora":
        assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
        adapted = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(t5), folder).eval()
        batch = tokenizer(asked, text_target=asked, padding=True, return_tensors="pt")
        merge(folder, tmp_path / "merged")
        merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").eval()
        assert torch.allclose(adapted(**batch).logits, merged(**batch).logits, atol=1e-4)
        assert torch.allclose(adapted(**batch).logits, plain(**batch).logits, atol=1e-5)
    _sampled(tmp_path, folder, tokenizer, greedy)
    _evaluated(tmp_path, folder, t5, plain)


def test_modules_that_train_whole_beside_4_bits_are_found(t5):
    keys = Keys(model_name_or_path=str(t5), peft_method="freeze", load_in_4bit=True)
    assert whole_modules(str(t5), keys, [], [keys])


def test_an_adapter_of_an_encoder_decoder_model_is_refused_by_stages_of_decoders():
    config = SimpleNamespace(task_type="SEQ_2_SEQ_LM")
    with pytest.raises(ModelError, match="one for CAUSAL_LM is needed here; stages sft, label and evaluate take it"):
        require_task_of_adapter(config, "runs/x", "CAUSAL_LM")


def _sampled(tmp_path, folder, tokenizer, greedy):
    judge = {"kind": "rules", "function": "tests.evaluate.rules:shorter"}
    keys = {"datasets": [{"path": str(tmp_path / "data.jsonl")}], "max_new_tokens": 12, "top_k": 1}
    keys |= {"num_generations": 2, "judge": judge, "per_device_eval_batch_size": 5}
    recipe = {"stage": "label", "output_dir": str(tmp_path / "labels"), "model_name_or_path": str(folder), **keys}
    (tmp_path / "label.yaml").write_text(json.dumps(recipe))
    recipes.label.main(["--config", str(tmp_path / "label.yaml")])
    rows = [json.loads(line) for line in (tmp_path / "labels" / "labels.jsonl").read_text().splitlines()]
    for row, answer in zip(rows, greedy, strict=True):
        (record,) = row["provenance"]["sampled_tokens"]
        assert record["response_ids"] == [answer, answer]
        assert record["prompt_ids"] == tokenizer(row["prompt"]).input_ids
        assert row["responses"][0] == tokenizer.decode(answer, skip_special_tokens=True)


def _evaluated(tmp_path, folder, base, plain):
    pairs = [{"prompt": "Tell me.", "completion": "The fox."}, {"prompt": "Why?", "completion": "A dog is big."}]
    (tmp_path / "outside.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    ranked = [{"prompt": p, "chosen": c, "rejected": "no fox <unk>"} for p, c in PAIRS]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ranked))
    recipe = {
        "stage": "evaluate",
        "output_dir": str(tmp_path / "results"),
        "model_name_or_path": str(base),
        "baseline_name": "base",
        "candidates": [{"name": "tuned", "model_name_or_path": str(folder)}],
        "datasets": [{"path": str(tmp_path / "data.jsonl")}],
        "judges": [{"kind": "rules", "name": "shorter", "function": "tests.evaluate.rules:shorter"}],
        "perplexity_datasets": [{"path": str(tmp_path / "outside.jsonl")}],
        "outside_tasks": [{"path": str(tmp_path / "tasks.jsonl")}],
        "max_new_tokens": 12,
        "bootstrap_samples": 50,
    }
    (tmp_path / "evaluate.yaml").write_text(json.dumps(recipe))
    recipes.evaluate.main(["--config", str(tmp_path / "evaluate.yaml")])
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["win_rate"]["tuned"]["shorter"]["n"] == 12
    assert results["kl"]["tuned"] > 1
    kept = results["details"]["forgetting"]["tuned"]["data"]
    assert kept[str(tmp_path / "tasks.jsonl")]["score"]["value"] == 1
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts, answers = [pair["prompt"] for pair in pairs], [pair["completion"] for pair in pairs]
    batch = tokenizer(prompts, text_target=answers, padding=True, return_tensors="pt")
    batch["labels"][batch["labels"] == tokenizer.pad_token_id] = IGNORE
    for model, name in ((plain, "perplexity"), (AutoModelForSeq2SeqLM.from_pretrained(base), "baseline_perplexity")):
        wanted = model.eval()(**batch).loss.exp().item()
        assert kept[str(tmp_path / "outside.jsonl")][name]["value"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"packing": "true"}, "packing cannot be used with the encoder-decoder model"),
        ({"padding_free": "true"}, "padding_free cannot be used with the encoder-decoder model"),
        ({"add_tokens": "[<new>]"}, "add_tokens cannot be used with the encoder-decoder model"),
        ({"peft_method": "prompt_tuning"}, "puts a soft prompt before the inputs of a decoder-only model"),
    ],
)
def test_keys_of_decoders_are_refused(recipe_file, tmp_path, keys, message):
    with pytest.raises(ModelError, match=message) as refused:
        run(recipe_file, **keys)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_fsdp2_is_refused_before_the_folder_is_made(recipe_file, tmp_path, monkeypatch, method):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ModelError, match=r"FSDP2 cannot split .*, whose embeddings belong to several") as refused:
        run(recipe_file, peft_method=method)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_text_without_a_prompt_is_refused(recipe_file, tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": f"The fox {n}."}) + "\n" for n in range(8)))
    with pytest.raises(
        DataError, match="is text without a prompt, which the encoder of an encoder-decoder model"
    ) as no:
        run(recipe_file)
    assert no.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"perplexity_datasets": "pairs"}, "is of answers, and that of decoder of whole texts, so they do not compare"),
        ({"proxy": "t5"}, "proxy cannot be used with the encoder-decoder model"),
        ({"reward_model_path": "t5"}, "reward model"),
    ],
)
def test_evaluations_that_mix_models_are_refused_before_the_folder_is_made(t5, tmp_path, keys, message):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS))
    data = [{"path": str(tmp_path / "pairs.jsonl")}]
    candidates = [{"name": "decoder", "model_name_or_path": str(save_tiny_model(tmp_path / "decoder"))}]
    if "proxy" in keys:
        candidates = [{"name": "x", "model_name_or_path": str(t5), "proxy": {"tuned": str(t5), "untuned": str(t5)}}]
    more = {"perplexity_datasets": data} if "perplexity_datasets" in keys else {}
    more |= {"reward_model_path": str(t5)} if "reward_model_path" in keys else {}
    recipe = {"stage": "evaluate", "output_dir": str(tmp_path / "results"), "model_name_or_path": str(t5), **more}
    recipe |= {"candidates": candidates, "datasets": data, "max_new_tokens": 4}
    recipe |= {"judges": [{"kind": "rules", "name": "shorter", "function": "tests.evaluate.rules:shorter"}]}
    (tmp_path / "evaluate.yaml").write_text(json.dumps(recipe))
    with pytest.raises(AlignmentError, match=message) as refused:
        recipes.evaluate.main(["--config", str(tmp_path / "evaluate.yaml")])
    assert refused.value.exit_code == 2
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("stage", ["dpo", "kto", "ppo", "grpo", "rloo", "reward"])
def test_stages_that_train_decoders_refuse_it(stage, t5, tmp_path):
    row = {"prompt": "Say 1.", "chosen": "It is 1.", "rejected": "No."}
    if stage == "kto":
        row = {"prompt": "Say 1.", "completion": "It is 1.", "label": True}
    (tmp_path / "data.jsonl").write_text((json.dumps(row) + "\n") * 4)
    recipe = {"stage": stage, "output_dir": str(tmp_path / "run"), "model_name_or_path": str(t5)}
    recipe |= {"datasets": [{"path": str(tmp_path / "data.jsonl")}]}
    if stage in ("ppo", "grpo", "rloo"):
        recipe |= {"scorers": [{"kind": "length", "maximum": 9}], "total_episodes": 64}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    message = r"is a T5ForConditionalGeneration, and a decoder.* is needed here; stages sft, label and evaluate take it"
    with pytest.raises(ModelError, match=message) as refused:
        importlib.import_module(f"recipes.{stage}").main(["--config", str(tmp_path / "recipe.yaml")])
    assert refused.value.exit_code == 2
    assert not (tmp_path / "run").exists()
