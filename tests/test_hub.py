"""Names that are asked of the Hub, and a Hub that does not answer."""

import os
import socket
import subprocess
import sys
import time

import pytest

from alignment.hub import local, may_be_on_hub, why_not_on_hub

HUB = ["gpt2", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct", "Anthropic/hh-rlhf", "a/b.c", "o/model-v1.5"]
LOCAL = [
    "runs/tiny/sft", "runs/sft", "./m", "../m", "/m", "~/m", "~nobody/m", "m/", "a/b/c", "x.jsonl", "o/x.parquet",
    "o/model.safetensors", "o/checkpoint-20", "checkpoint-20", "data/x", "outputs/x", "models/llama", "here/x",
    "x y", "x--y", "..", "x..y", "$HOME/m", "o\\m", "", "é/x", "x" * 97, "a\0b", "sk-test-4711-secret", "http://h/x",
]  # fmt: skip


@pytest.mark.parametrize("name", HUB)
def test_ids_may_be_on_the_hub(name):
    assert may_be_on_hub(name)


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_looking_name_is_not_looked_up(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert why_not_on_hub(name)
    assert local(name) is None or name in ("..", "")


def test_names_that_no_path_can_have_are_not_here():
    assert local("x" * 5_000) is None
    assert local("a\0b") is None


SCRIPT = """
import sys
from alignment.policy.model_source import resolve_model
from alignment.policy.tokenizer import load_tokenizer
from alignment.data.sources import read_entry
from alignment.config.schema import DatasetEntry
from alignment.errors import AlignmentError
for ask in (lambda: load_tokenizer(Keys), lambda: read_entry(DatasetEntry(path="nobody/nothing"))):
    try:
        ask()
    except AlignmentError as error:
        print(error)
"""
KEYS = """
class Keys:
    model_name_or_path, model_revision, trust_remote_code, eos_token = "nobody/none", "main", False, None
"""


def test_a_hub_that_does_not_answer_is_given_up_in_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        without = {
            key: value for key, value in os.environ.items() if "OFFLINE" not in key and "PROXY" not in key.upper()
        }
        begun = time.monotonic()
        run = subprocess.run(
            [sys.executable, "-c", KEYS + SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env=without | {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"},
        )
        seconds = time.monotonic() - begun
    assert "does not respond: models and data sets of the Hub are read from the cache only" in run.stderr
    assert run.stdout.count("nobody/") >= 2
    assert seconds < 120  # the libraries' own tries take longer for the model alone
