"""The recipes of recipes/<model>: sound, small enough for the card that they name, and run, stage by stage."""

import importlib
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from alignment.config.loading import load_recipe
from alignment.config.pipelines import check_file, load_pipeline
from alignment.data import load_rows
from alignment.data.template import Template
from alignment.planner.command import plan_file
from alignment.planner.machine import machine
from alignment.policy.tokenizer import load_tokenizer
from tests.calls.chat_server import ChatServer, completion, fenced
from tests.recipes import small_worlds

RECIPES = Path(__file__).parents[2] / "recipes"
MODELS = ("qwen3-0.6b", "mistral-7b", "llama-3.1-8b", "llama-3.1-70b")
STAGES = ("sft", "label", "reward", "dpo", "ppo", "evaluate")
FILES = [path for model in MODELS for path in sorted((RECIPES / model).glob("*.yaml"))]
SHORT = {  # the only keys that are changed where a recipe is run: how much is done
    "sft": ["--max_steps", "2"],
    "label": ["--max_samples", "4", "--max_new_tokens", "8"],
    "reward": ["--max_steps", "2"],
    "dpo": ["--max_steps", "2"],
    "kto": ["--max_steps", "2"],
    "ppo": ["--total_episodes", "16", "--rollout_batch_size", "16", "--max_new_tokens", "8"],
    "grpo": ["--total_episodes", "16", "--rollout_batch_size", "16", "--max_new_tokens", "8"],
    "evaluate": ["--max_samples", "2", "--max_new_tokens", "8"],
}


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipes_are_sound(file):
    check_file(str(file))


@pytest.mark.parametrize("model", MODELS)
def test_a_pipeline_has_all_stages(model):
    pipeline = load_pipeline(str(RECIPES / model / "pipeline.yaml"))
    assert tuple(stage.name for stage in pipeline.stages) == STAGES
    assert all(stage.recipe.output_dir == f"runs/{model}/{stage.name}" for stage in pipeline.stages)


def run(stage, model, *more):
    argv = ["--config", str(RECIPES / model / f"{stage}.yaml"), *SHORT[stage], *more]
    importlib.import_module(f"recipes.{stage}").main(argv)


def judged(prompt, _):
    seen = fenced(prompt)
    return completion("A", p_first=0.9 if len(seen["answer-A"]) > len(seen["answer-B"]) else 0.2)


FAST = ("qwen3-0.6b", "mistral-7b")  # the Llamas have Mistral's architecture, without its window
SMALL = [pytest.param(model, marks=[] if model in FAST else pytest.mark.slow) for model in MODELS]


@pytest.mark.parametrize("model", SMALL)
def test_every_stage_runs_on_a_small_model_of_the_same_kind(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    name = load_recipe("sft", ["--config", str(RECIPES / model / "sft.yaml")]).model_name_or_path
    small_worlds.write_small(tmp_path, name)
    small_worlds.write_data(tmp_path)
    with ChatServer(judged) as server:
        for stage in STAGES:
            at = {"label": ["--judge.base_url", server.url], "evaluate": ["--judges.0.base_url", server.url]}
            run(stage, model, *at.get(stage, []))
    more = {"grpo": ["--mask_truncated_completions", "false"]}  # a model of random weights does not stop
    beside = [path.stem for path in (RECIPES / model).glob("*.yaml") if path.stem in ("grpo", "kto")]
    for stage in beside:  # not of the pipeline
        run(stage, model, *more.get(stage, []))
    folder = tmp_path / "runs" / model
    for stage in (*STAGES, *beside):
        assert json.loads((folder / stage / "manifest.json").read_text())["status"] == "finished"
    labels = [json.loads(line) for line in (folder / "label" / "labels.jsonl").read_text().splitlines()]
    assert len(labels) == 4
    assert {len(row["pairs"]) for row in labels} == {6}


PROMPT = [{"role": "user", "content": "Tell me about the fox."}]
WRITTEN = {  # what generation is conditioned on, what is learned, and the tokens that end an answer
    "qwen3-0.6b": (
        "<|im_start|>user\nTell me about the fox.<|im_end|>\n<|im_start|>assistant\n",
        "<think>\n\n</think>\n\nIt is small.<|im_end|>",
        ["<|im_end|>", "<|endoftext|>"],
    ),
    "mistral-7b": ("<s> [INST] Tell me about the fox. [/INST]", "It is small.</s>", ["</s>"]),
    "llama-3.1-8b": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nTell me about the fox."
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "It is small.<|eot_id|>",
        ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
    ),
}


@pytest.mark.parametrize("model", WRITTEN)
def test_prompts_and_answers_have_the_models_format(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("sft", ["--config", str(RECIPES / model / "sft.yaml")])
    small_worlds.write_small(tmp_path, recipe.model_name_or_path)
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    before, after, stops = WRITTEN[model]
    head, tail = template.prompt_ids(PROMPT), template.answer_ids(PROMPT, "It is small.")
    assert tokenizer.decode(head) == before
    assert tokenizer.decode(tail) == after
    assert tokenizer.convert_ids_to_tokens(template.stop_token_ids) == stops
    assert tokenizer.eos_token == stops[0]  # saved beside the adapter, so plain transformers stops there too


CARDS = {"qwen3-0.6b": "24GiB", "mistral-7b": "24GiB", "llama-3.1-8b": "24GiB", "llama-3.1-70b": "80GB"}
SLOWLY = [pytest.param(model, marks=[] if model == "mistral-7b" else pytest.mark.slow) for model in MODELS]


@pytest.mark.parametrize("model", SLOWLY)
def test_it_fits_the_card_that_its_readme_names(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_worlds.write_published(tmp_path)
    file = f"recipes/{model}/pipeline.yaml"
    said = Console(file=io.StringIO(), highlight=False, width=120)
    card = machine(gpus=1, memory=CARDS[model], strategy=None)
    options = {"overrides": [], "rows": None, "solve": False, "json_out": None}
    assert plan_file(str(RECIPES.parent / file), card, console=said, **options)
    readme = (RECIPES / model / "README.md").read_text(encoding="utf-8")
    assert f"$ alignment plan {file} --memory {CARDS[model]}\n" in readme
    verdicts = [line for line in said.file.getvalue().splitlines() if ": fits, " in line]
    assert len(verdicts) == len(STAGES)
    assert [line for line in verdicts if line not in readme] == []


def test_published_preferences_are_read_in_their_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_worlds.write_binarized(tmp_path)
    entry = "[{path: HuggingFaceH4/ultrafeedback_binarized, split: train_prefs}]"
    for stage in ("reward", "dpo"):
        recipe = load_recipe(stage, ["--config", str(RECIPES / f"mistral-7b/{stage}.yaml"), "--datasets", entry])
        rows = load_rows(recipe).rows
        assert len(rows) == len(small_worlds.WORDS)
        assert [pair.probability for pair in rows[0].pairs] == [1.0]
