"""`--engine vllm`: the arguments that vLLM is started with; vLLM itself needs a GPU."""

import json
import stat
import sys
from pathlib import Path

import pytest

from alignment.config.schema import ProxyEntry
from alignment.errors import LineageError, ModelError, RecipeError
from alignment.policy.policies import Policy
from alignment.serve.serve import Settings
from alignment.serve.vllm import arguments, serve
from tests.models import save_tiny_model
from tests.policy.test_many_adapters import OTHERS, saved


def found(runs, folder, keys=None, **settings):
    policies = {name: Policy.find(str(run), keys) for name, run in runs.items()}
    return arguments(policies, Settings(list(map(str, runs.values())), **settings), folder)


def value_of(words, option):
    return words[words.index(option) + 1]


def test_adapters_share_their_base(base, folders, tmp_path):
    runs = {"one": folders["one"], "two": folders["two"]}
    words = found(runs, tmp_path, port=9, batch_size=5, max_length=100)
    assert words[:2] == ["serve", str(base)]
    assert "--served-model-name" not in words
    assert value_of(words, "--max-lora-rank") == "8"  # the smallest that vLLM has for 2 and 4
    assert value_of(words, "--max-loras") == "2"
    modules = [json.loads(word) for word in words[words.index("--lora-modules") + 1 :]]
    assert modules == [{"name": name, "path": str(path)} for name, path in runs.items()]
    options = {"--host": "127.0.0.1", "--port": "9", "--max-num-seqs": "5", "--max-model-len": "100", "--dtype": "auto"}
    assert {option: value_of(words, option) for option in options} == options


def test_the_template_and_the_stop_tokens_of_training_are_given(base, folders, tmp_path):
    words = found({"one": folders["one"]}, tmp_path)
    policy = Policy.find(str(folders["one"]))
    assert Path(value_of(words, "--chat-template")).read_text() == policy.template.chat_template
    config = json.loads(Path(value_of(words, "--generation-config"), "generation_config.json").read_text())
    assert config == {"eos_token_id": policy.template.stop_token_ids}


def test_a_whole_model_has_its_name(base, tmp_path):
    words = found({"mine": base}, tmp_path)
    assert value_of(words, "--served-model-name") == "mine"
    assert "--enable-lora" not in words


def test_what_vllm_cannot_serve_is_refused(base, folders, tmp_path):
    with pytest.raises(ModelError, match="alignment export"):
        found({"ia3": folders["ia3"]}, tmp_path)
    dora = saved(base, tmp_path / "dora", *["LORA", 1], **OTHERS["DoRA"][1])
    with pytest.raises(ModelError, match="alignment export"):
        found({"dora": dora}, tmp_path)
    with pytest.raises(ModelError, match=r"is held in 8 bits \(load_in_8bit\), to which vLLM quantises none"):
        found({"one": folders["one"]}, tmp_path, keys={"load_in_8bit": True})
    other = save_tiny_model(tmp_path / "other", seed=7)
    with pytest.raises(ModelError, match="have different bases"):
        found({"base": base, "other": other}, tmp_path)
    changed = tmp_path / "changed"
    saved(base, changed, "LORA", 1, r=2)
    for file in base.glob("tokenizer*"):
        (changed / file.name).write_bytes(file.read_bytes())
    (changed / "chat_template.jinja").write_text(
        (base / "chat_template.jinja").read_text().replace("<|im_start|>", "<|im_start|> ")
    )
    with pytest.raises(LineageError, match="different chat templates or stop tokens"):
        found({"one": folders["one"], "changed": changed}, tmp_path)


def test_without_vllm_the_command_names_the_package(monkeypatch, base):
    monkeypatch.setattr("alignment.serve.vllm.vllm_is_installed", lambda: False)
    proxy = ProxyEntry(tuned=str(base), untuned=str(base))
    with pytest.raises(RecipeError) as refused:
        serve(Settings([str(base)], proxy=proxy, cache_tokens=5))
    assert refused.value.exit_code == 2
    assert [fault.partition(":")[0] for fault in refused.value.faults[:2]] == [
        "--cache_tokens with --engine vllm", "--proxy with --engine vllm",
    ]  # fmt: skip
    assert "pip install 'alignment-stack[vllm]'" in refused.value.faults[2]


PROGRAM = """#!{python}
import json, os, sys, time
template = sys.argv[sys.argv.index("--chat-template") + 1]
record = dict(words=sys.argv[1:], key=os.environ["VLLM_API_KEY"], template=os.path.exists(template))
open({out!r}, "w").write(json.dumps(record))
sys.exit({code}) if {code} >= 0 else time.sleep(60)
"""


@pytest.mark.parametrize("code", [0, 3])
def test_the_program_gets_the_token_by_its_environment(monkeypatch, base, tmp_path, code):
    program = tmp_path / "vllm"
    program.write_text(PROGRAM.format(python=sys.executable, out=str(tmp_path / "out"), code=code))
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr("alignment.serve.vllm.vllm_is_installed", lambda: True)
    monkeypatch.setattr("alignment.serve.vllm._program", lambda: str(program))
    monkeypatch.setenv("ALIGNMENT_SERVE_KEY", "secret")
    if code:
        with pytest.raises(ModelError, match="vLLM ended with exit code 3"):
            serve(Settings([str(base)]))
    else:
        serve(Settings([str(base)]))
    record = json.loads((tmp_path / "out").read_text())
    assert record["words"][:2] == ["serve", str(base)]
    assert (record["key"], record["template"]) == ("secret", True)
    assert "secret" not in record["words"]
