"""What a stage saves stops in plain `generate` where training taught it to, merged too."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignment.config.schema import SFTRecipe
from alignment.data.template import Template
from alignment.errors import ModelError
from alignment.policy.merge import merge
from alignment.policy.tokenizer import load_tokenizer
from alignment.train.saving import generation_of
from recipes import dpo, ppo, reward, sft
from tests.models import CHAT_TEMPLATE, make_model, make_tokenizer

WORDS = ("cat", "ball", "fox", "dog")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A base whose EOS is not what ends a turn in its chat template, as Qwen2.5's is, and rows to train it on."""
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token
    make_model(tokenizer).save_pretrained("base")
    tokenizer.save_pretrained("base")
    rows = [{"prompt": f"Say {word}", "chosen": word, "rejected": word * 2} for word in WORDS]
    turns = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    pairs = [
        {
            "prompt": turn,
            **{key: [{"role": "assistant", "content": row[key]}] for key in ("chosen", "rejected")},
        }
        for turn, row in zip(turns, rows, strict=True)
    ]
    talks = [{"messages": [*pair["prompt"], *pair["chosen"]]} for pair in pairs]
    for name, lines in (("sft", talks), ("pairs", pairs), ("prompts", [{"prompt": turn} for turn in turns])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines * 4))
    return tmp_path


def run(stage, main, data, out, **keys):
    recipe = {
        "stage": stage,
        "output_dir": out,
        "model_name_or_path": "base",
        "datasets": [{"path": f"{data}.jsonl"}],
        "save_strategy": "no",
        "learning_rate": 0.01,
        **keys,
    }
    with open(f"{stage}.yaml", "w") as file:
        json.dump(recipe, file)
    main(["--config", f"{stage}.yaml"])


def written(folder, **options):
    """What plain transformers writes, or plain PEFT, greedily, with the tokens that end it.

    transformers 5.17 loads an adapter's folder without the modules that the adapter trains whole; PEFT loads them.
    """
    loader = AutoPeftModelForCausalLM if Path(folder, "adapter_config.json").is_file() else AutoModelForCausalLM
    tokenizer, model = AutoTokenizer.from_pretrained(folder), loader.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say cat"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**asked, max_new_tokens=20, do_sample=False, **options)[0]
    return tokenizer.decode(ids[asked["input_ids"].shape[1] :])


ENDED = {f"{word}<|im_end|>" for word in WORDS}


def no_score(prompts, answers):
    """Scores for PPO."""
    return [0.0] * len(answers)


def test_a_saved_and_a_merged_model_stop_where_training_taught_them_to(project):
    run("sft", sft.main, "sft", "full", peft_method="full", num_train_epochs=20, per_device_train_batch_size=8)
    assert json.loads((project / "full/generation_config.json").read_text())["eos_token_id"] == [1, 0]
    assert written("full") in ENDED

    keys = {"lora_r": 32, "lora_modules_to_save": ["embed_tokens", "lm_head"]}
    run("sft", sft.main, "sft", "lora", num_train_epochs=30, per_device_train_batch_size=8, **keys)
    assert written("lora", generation_config=GenerationConfig.from_pretrained("lora")) in ENDED
    merge("lora", "merged")
    assert written("merged") in ENDED
    shutil.rmtree("merged")
    (project / "lora/generation_config.json").unlink()  # of an adapter made elsewhere: the template still tells
    (project / "lora/whole.json").unlink()
    merge("lora", "merged")
    assert written("merged") in ENDED


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(("stage", "main", "data"), [("dpo", dpo.main, "pairs"), ("reward", reward.main, "pairs")])
def test_every_stage_saves_the_stop_tokens(project, stage, main, data, method):
    run(stage, main, data, "out", peft_method=method, max_steps=1)
    assert json.loads((project / "out/generation_config.json").read_text())["eos_token_id"] == [1, 0]
    assert "generation_config.json" in json.loads((project / "out/whole.json").read_text())["files"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_ppo_saves_the_stop_tokens(project, method):
    keys = {"total_episodes": 4, "rollout_batch_size": 4, "num_mini_batches": 1, "per_device_train_batch_size": 4}
    scored = {"kind": "function", "function": f"{__name__}:no_score"}
    run("ppo", ppo.main, "prompts", "out", peft_method=method, max_new_tokens=4, scorers=[scored], **keys)
    assert json.loads((project / "out/generation_config.json").read_text())["eos_token_id"] == [1, 0]


def test_the_rest_of_the_bases_generation_config_stays(project):
    (project / "base/generation_config.json").write_text(
        json.dumps({"eos_token_id": 2, "temperature": 0.6, "do_sample": False, "_from_model_config": True})
    )
    recipe = SFTRecipe(stage="sft", output_dir="x", model_name_or_path="base", datasets=[{"path": "sft.jsonl"}])
    generation = generation_of(recipe, Template(load_tokenizer(recipe)))
    assert generation == {"eos_token_id": [1, 0, 2], "temperature": 0.6, "do_sample": False}


def test_the_next_stage_finds_the_same_stop_tokens(project):
    run("sft", sft.main, "sft", "one", peft_method="full", max_steps=1)
    run("sft", sft.main, "sft", "two", peft_method="full", max_steps=1, model_name_or_path="one")
    lineages = [json.loads((project / name / "manifest.json").read_text())["lineage"] for name in ("one", "two")]
    assert lineages[0]["stop_token_ids"] == lineages[1]["stop_token_ids"] == [0, 1]
    assert lineages[0]["template_sha256"] == lineages[1]["template_sha256"]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("keys", [{"peft_method": "full"}, {"lora_r": 32}, {"peft_method": "dora", "lora_r": 32}])
def test_marks_that_the_vocabulary_lacks_are_added_trained_saved_and_merged(project, tied, keys):
    tokenizer = make_tokenizer(chat_template=None)
    make_model(tokenizer, tie_word_embeddings=tied).save_pretrained("bare")
    tokenizer.save_pretrained("bare")
    text = CHAT_TEMPLATE.replace("im_", "turn_")
    given = {"model_name_or_path": "bare", "chat_template": text, "num_train_epochs": 30}
    with pytest.raises(ModelError, match=r"add_tokens: \['<\|turn_start\|>', '<\|turn_end\|>'\]\.$"):
        run("sft", sft.main, "sft", "refused", **given)
    marks = ["<|turn_start|>", "<|turn_end|>"]
    run("sft", sft.main, "sft", "out", per_device_train_batch_size=8, add_tokens=marks, **given, **keys)
    saved = AutoTokenizer.from_pretrained("out")
    start, end = saved.convert_tokens_to_ids(marks)
    assert (start, end) == (len(tokenizer), len(tokenizer) + 1)
    generation = GenerationConfig.from_pretrained("out")
    assert generation.eos_token_id == [end, 1]
    said = {f"{word}<|turn_end|>" for word in WORDS}
    before = AutoModelForCausalLM.from_pretrained("out/base")
    pieces = [*tokenizer("<")["input_ids"], *tokenizer("|turn_end|>")["input_ids"]]
    rows = before.get_input_embeddings().weight
    assert torch.allclose(rows[end], rows[pieces].mean(0), atol=1e-6)
    assert written("out", generation_config=generation) in said
    if keys.get("peft_method") != "full":
        merge("out", "merged")
        assert written("merged") in said
        trained = AutoModelForCausalLM.from_pretrained("merged")
        for layer, old in (
            (trained.get_input_embeddings(), before.get_input_embeddings()),
            (trained.get_output_embeddings(), before.get_output_embeddings()),
        ):
            assert not torch.equal(layer.weight[end], old.weight[end])
