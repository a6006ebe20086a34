"""`alignment preview`: the rows are those that training makes, and it ends where training would end."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from alignment.cli.stages import preview_reader
from alignment.config.loading import check_recipe
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import RecipeError
from alignment.policy.tokenizer import load_tokenizer
from alignment.preview.command import Preview, Refused, preview, skipped
from alignment.train.sft import tokenise_demonstrations
from tests.own_code import save_own_code_model

CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]
PAIR = {"prompt": "Name a cat.", "chosen": "Tom", "rejected": "I will not", "probability": 0.25}


def look(file: str, count: int | None = None) -> Preview:
    return preview(file, [], count, preview_reader)


def marked(parts: list[dict[str, Any]]) -> str:
    return "".join(f"⟦{part['text']}⟧" if part["trained"] else part["text"] for part in parts)


def alignment(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "alignment.cli", *words], capture_output=True, text=True, cwd=cwd)


def test_each_answer_of_a_conversation_is_marked_as_trained(recipe, tmp_path):
    (row,) = look(recipe("sft", [{"messages": CHAT}])).to_json()["rows"]
    assert marked(row["segments"]) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n⟦See you.<|im_end|>⟧"
    )
    assert (row["source"], row["layout"], row["stop"]) == (f"{tmp_path}/data.jsonl:1", "messages", "<|im_end|>")
    assert [origin["column"] for origin in row["origins"]] == [f"messages[{place}].content" for place in range(4)]


def test_the_rows_are_the_tokens_that_training_gets(recipe):
    file = recipe("sft", [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(6)])
    found = look(file, 3)
    settled = check_recipe(file)
    template = Template(load_tokenizer(settled))
    given = [Demonstration(f"question {n}", f"answer {n}", source="x:1") for n in range(6)]
    rows = tokenise_demonstrations(given, template, limit=256).rows
    assert [row.sequences["segments"].ids for row in found.rows] == [row["input_ids"] for row in rows[:3]]
    assert found.stage.lengths().tokens == [len(row["input_ids"]) for row in rows]


def test_cut_tokens_are_shown_separately(recipe):
    rows = [{"prompt": "ab", "completion": "cdefgh"}, {"prompt": "a", "completion": "b"}]
    row, _ = look(recipe("sft", rows, max_length=5)).to_json()["rows"]
    text = "".join(part["text"] for part in row["segments"])
    assert text + row["cut"]["text"] == "abcdefgh<|im_end|>"
    assert (row["tokens"], row["stop"]) == (5, None)
    assert row["cut"]["tokens"] > 0


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_pairs_show_both_answers_the_more_probable_one_as_chosen(stage, recipe):
    (row,) = look(recipe(stage, [{**PAIR, "prompt": [{"role": "user", "content": "Name a cat."}]}])).to_json()["rows"]
    head = "<|im_start|>user\nName a cat.<|im_end|>\n<|im_start|>assistant\n"
    assert marked(row["chosen"]) == f"{head}⟦I will not<|im_end|>⟧"
    assert marked(row["rejected"]) == f"{head}⟦Tom<|im_end|>⟧"
    assert row["probability"] == 0.75
    columns = {origin["part"]: origin["column"] for origin in row["origins"]}
    assert columns == {"user": "prompt[0].content", "chosen": "rejected", "rejected": "chosen"}
    assert "segments" not in row


def test_renamed_columns_are_shown_by_their_names_in_the_file(recipe, tmp_path):
    entry = {"path": str(tmp_path / "data.jsonl"), "columns": {"prompt": "question", "completion": "good"}}
    file = recipe("sft", [{"question": "What is it?", "good": "A cat."}], datasets=[entry])
    assert [part.column for part in look(file).rows[0].parts] == ["question", "good"]


def test_each_file_has_its_share_of_the_rows(recipe, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"instruction": f"i{n}", "output": "o"}) + "\n" for n in range(3)))
    rows = [{"prompt": f"p{n}", "completion": "c"} for n in range(9)]
    datasets = [{"path": str(tmp_path / "data.jsonl")}, {"path": str(other)}]
    found = look(recipe("sft", rows, datasets=datasets), 4)
    assert [row.layout for row in found.rows] == ["prompt_completion"] * 2 + ["alpaca"] * 2
    assert found.stage.layouts() == {"prompt_completion": 9, "alpaca": 3}


def test_rows_that_are_left_out_stand_with_their_reasons(recipe, tmp_path):
    rows = [{"prompt": "p", "completion": ""}, {"prompt": "p", "completion": "c"}]
    found = look(recipe("sft", rows, on_bad_row="skip")).to_json()
    assert [one["source"] for one in found["skipped"]] == [f"{tmp_path}/data.jsonl:1"]
    assert "empty" in found["skipped"][0]["reason"]
    assert skipped("a:b.jsonl:7 answer 1 of 2: too long: by 3") == {
        "source": "a:b.jsonl:7",
        "reason": "answer 1 of 2: too long: by 3",
    }


@pytest.mark.parametrize(
    ("stage", "rows", "keys", "words"),
    [
        ("sft", [{"prompt": "p", "completion": ""}], {}, "data.jsonl:1: 'completion' is empty"),
        ("sft", [{"prompt": "p", "completion": "c"}], {"eos_token": "<no>"}, "eos_token '<no>' is not a token"),
        ("sft", [{"prompt": "p" * 90, "completion": "c"}], {"max_length": 4}, "no token of the answer is among"),
        ("dpo", [{"prompt": "p", "chosen": "a b", "rejected": "a b"}], {}, "are the same answer"),
        ("reward", [PAIR], {"max_length": 2}, "more than the 2 that fit"),
    ],
)
def test_it_refuses_what_training_refuses_with_its_message(stage, rows, keys, words, recipe):
    with pytest.raises(Refused, match=words) as refused:
        look(recipe(stage, rows, **keys))
    assert refused.value.exit_code == 2


def test_it_ends_with_2_and_one_line(recipe):
    done = alignment("preview", recipe("sft", [{"prompt": "p", "completion": ""}]))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("count", [0, -3])
def test_a_number_of_rows_below_one_is_refused(count, recipe):
    with pytest.raises(RecipeError, match=f"--rows {count}: give a number of rows from 1 on"):
        look(recipe("sft", [{"prompt": "p", "completion": "c"}]), count)


def test_a_pipeline_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\noutput_dir: o\nstages: []\n")
    with pytest.raises(RecipeError, match="is a pipeline; name the recipe of one of its stages"):
        look(str(tmp_path / "p.yaml"))


def test_weights_are_not_read(recipe, tmp_path, tiny_model_dir, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    assert look(recipe("sft", [{"prompt": "p", "completion": "c"}])).rows


def test_the_command_marks_trained_text_and_writes_json(recipe, tmp_path):
    file = recipe("sft", [{"messages": CHAT[:2]}, {"messages": CHAT}])
    done = alignment("preview", file, "--rows", "1", "--json", "rows.json", "--max_length", "64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "⟦Hello.‹<|im_end|>›⟧" in done.stdout
    assert "sft: 1 of 2 rows shown" in done.stdout
    assert "layouts: messages 2" in done.stdout
    assert "assistant: messages[1].content" in done.stdout
    found = json.loads((tmp_path / "rows.json").read_text())
    assert (len(found["rows"]), found["skipped"], found["layouts"]) == (1, [], {"messages": 2})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["data.jsonl", "sft.yaml"])
def test_an_output_that_is_an_input_is_refused(name, recipe, tmp_path):
    file = recipe("sft", [{"prompt": "p", "completion": "c"}])
    before = (tmp_path / name).read_bytes()
    done = alignment("preview", file, "--json", str(tmp_path / name))
    assert (done.returncode, done.stderr.splitlines()[-1][:4]) == (2, "json")
    assert "it is also read, and would be replaced" in done.stderr
    assert (tmp_path / name).read_bytes() == before


def test_control_characters_of_the_data_are_escaped(recipe, tmp_path, tiny_model_dir):
    done = alignment("preview", recipe("sft", [{"prompt": "p\x1b[31m", "completion": "c"}]))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "p\\x1b[31m⟦c" in done.stdout


def test_a_folder_without_weights_is_refused_as_in_training(recipe, tmp_path, tiny_model_dir):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(Refused, match="without weights"):
        look(recipe("sft", [{"prompt": "p", "completion": "c"}], model_name_or_path=str(tmp_path / "model")))


def test_the_first_reason_is_reported_if_all_rows_are_left_out(recipe):
    rows = [{"prompt": "p" * 90, "completion": "c"}, {"prompt": "q" * 90, "completion": "c"}]
    with pytest.raises(
        Refused, match=r"no training row is left: all 2 were left out, the first is .*data\.jsonl:1: no"
    ):
        look(recipe("sft", rows, max_length=4, on_bad_row="skip"))


def test_added_tokens_are_control_tokens(recipe, shared):
    gpt2 = str(shared / "models" / "kinds" / "gpt2")
    keys = {"chat_template": "chatml", "add_tokens": ["<|im_start|>", "<|im_end|>"], "peft_method": "full"}
    found = look(recipe("sft", [{"messages": CHAT[:2]}], model_name_or_path=gpt2, **keys))
    assert found.to_json()["rows"][0]["stop"] == "<|im_end|>"


def test_added_tokens_of_an_adapter_are_refused_as_in_training(recipe, tiny_model_dir, tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_dir), lora).save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    told = {**json.loads(config.read_text()), "base_model_name_or_path": str(tiny_model_dir)}
    config.write_text(json.dumps(told))
    keys = {"model_name_or_path": str(tmp_path / "adapter"), "add_tokens": ["<|new|>"]}
    with pytest.raises(Refused, match=r"add_tokens needs a whole model, and .*adapter is an adapter; merge it first"):
        look(recipe("sft", [{"messages": CHAT[:2]}], **keys))


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_a_models_own_code_runs_where_the_recipe_asks_for_it_alone(recipe, tmp_path, stage):
    own = save_own_code_model(tmp_path / "own", tmp_path / "canary")
    rows = [{"messages": CHAT[:2]}] if stage == "sft" else [PAIR]
    with pytest.raises(Refused, match=r"needs Python code of its own, .* give trust_remote_code: true"):
        look(recipe(stage, rows, model_name_or_path=str(own)))
    assert not (tmp_path / "canary").exists()
    trusted = look(recipe(stage, rows, model_name_or_path=str(own), trust_remote_code=True)).to_json()["rows"]
    shutil.rmtree(own)
    plain = look(recipe(stage, rows)).to_json()["rows"]
    assert trusted == plain
