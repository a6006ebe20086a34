"""What `alignment doctor` finds out about the rows as tokens, and `alignment check --data` without a model."""

import json
import subprocess
import sys

import pytest

from alignment.config.loading import check_recipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.doctor.rows import measured, rows
from alignment.policy.tokenizer import load_tokenizer
from tests.models import make_tokenizer, save_tiny_model

FORGETFUL = (  # writes user and assistant alone, and no tools
    "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED, ANSWERED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}


def look(file: str, sample: int = 100) -> dict[str, tuple[str, str]]:
    settled = check_recipe(file)
    template = Template(load_tokenizer(settled), settled.chat_template, settled.eos_token)
    return {one.about: (one.level, one.found) for one in rows(settled, template, sample)}


def test_rows_that_the_tokens_hold_are_ok(recipe):
    found = look(recipe("sft", [{"messages": [ASKED, ANSWERED]}, {"messages": [ASKED, {**ANSWERED, "content": "é"}]}]))
    assert found["text"] == ("ok", "the tokens decode to all of it, in 2 rows")
    assert found["BOS"][0] == found["labels"][0] == "ok"
    assert "reasoning" not in found
    assert "tools" not in found


def test_a_template_that_leaves_a_message_out_is_found(recipe, tmp_path):
    model = save_tiny_model(tmp_path / "model", chat_template=FORGETFUL)
    system = {"role": "system", "content": "Be kind."}
    data = [{"messages": [ASKED, ANSWERED]}, {"messages": [system, ASKED, ANSWERED]}]
    level, said = look(recipe("sft", data, model_name_or_path=str(model)))["rows"]
    assert level == "fault"
    assert said.startswith(
        f"1 of 2 cannot be tokenised, first {tmp_path}/data.jsonl:2: the chat template leaves out message 1, "
        "of the system"
    )


def test_two_bos_tokens_are_found(recipe, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    tokens = AnswerTokens(Template(tokenizer))
    once = Demonstration([ASKED], "Hello.", source="x:1")
    assert not measured(once, tokens, 100).doubled
    twice = Demonstration("<|im_start|><|im_start|>Hi", "Hello.", source="x:1")
    assert measured(twice, tokens, 100).doubled


@pytest.mark.parametrize(("kind", "level"), [("qwen3", "ok"), ("qwen25", None)])
def test_reasoning_and_tools_are_looked_for_in_the_tokens(recipe, shared, kind, level):
    tool = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
    reasoned = {**ANSWERED, "reasoning_content": "They greet."}
    data = [{"messages": [ASKED, reasoned]}, {"messages": [ASKED, ANSWERED], "tools": [tool]}]
    file = recipe("sft", data, model_name_or_path=str(shared / "models" / "kinds" / kind), on_bad_row="skip")
    found = look(file)
    assert found["tools"] == ("ok", "the tokens decode to all of it, in 1 rows")
    assert found.get("reasoning", (None,))[0] == level
    assert ("rows" in found) == (level is None)  # qwen25 writes no reasoning, so training refuses the row


def test_a_sample_is_taken_evenly_and_stated(recipe):
    data = [{"prompt": "q", "completion": "a" * (n + 1)} for n in range(10)]
    found = look(recipe("sft", data), 5)
    assert found["lengths"][1].endswith("of 5 of 10 rows, evenly spaced")
    assert look(recipe("sft", data))["lengths"][1].endswith("of all 10 rows")


def check(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "alignment.cli", "check", *words], capture_output=True, text=True)


def test_check_with_data_reports_layouts_and_every_bad_row_without_a_model(recipe, tmp_path):
    data = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": ""}, {"prompt": "p"}]
    file = recipe("sft", data, model_name_or_path="nowhere/at-all")
    assert check(file).returncode == 0
    done = check("--data", file)
    assert done.returncode == 2
    assert f"sft: {tmp_path}/data.jsonl: layout prompt_completion, 1 rows" in done.stdout
    named = [line.split(": ")[0] for line in done.stderr.splitlines() if line.startswith(f"{tmp_path}/data.jsonl:")]
    assert named == [f"{tmp_path}/data.jsonl", f"{tmp_path}/data.jsonl:2", f"{tmp_path}/data.jsonl:3"]
    assert "correct the rows, or set on_bad_row: skip" in done.stderr
    skipping = check("--data", recipe("sft", data, model_name_or_path="nowhere/at-all", on_bad_row="skip"))
    assert skipping.returncode == 0
    assert "sft: 2 bad rows are left out" in skipping.stdout


def test_check_with_data_refuses_keys_that_nothing_reads_and_absent_files(recipe, tmp_path):
    done = check("--data", recipe("sft", [{"prompt": "p", "completion": "c", "good_answer": "text of another"}]))
    assert (done.returncode, "good_answer" in done.stderr) == (2, True)
    done = check("--data", recipe("sft", [], datasets=[{"path": str(tmp_path / "none.jsonl")}]))
    assert (done.returncode, "none.jsonl does not exist" in done.stderr) == (2, True)


def test_check_with_data_leaves_out_what_a_pipeline_makes(recipe, tmp_path):
    recipe("sft", [{"prompt": "p", "completion": "c"}])
    labels = str(tmp_path / "run" / "labels.jsonl")
    (tmp_path / "dpo.yaml").write_text(
        (tmp_path / "sft.yaml")
        .read_text()
        .replace("sft", "dpo")
        .replace(f"{tmp_path}/data.jsonl", labels)
        .replace(f"output_dir: {tmp_path}/run", f"output_dir: {tmp_path}/dpo")
    )
    stages = [{"name": name, "recipe": f"{name}.yaml"} for name in ("sft", "dpo")]
    pipeline = {"name": "p", "output_dir": str(tmp_path), "stages": stages}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(pipeline))
    done = check("--data", str(tmp_path / "pipeline.yaml"))
    assert done.returncode == 0, done.stderr
    assert f"dpo: {labels}: an earlier stage writes it; not checked" in done.stdout
