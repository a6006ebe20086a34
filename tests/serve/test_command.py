"""The command: names, options that contradict each other, its lines, and a full disk."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from alignment.errors import ModelError, RecipeError
from alignment.policy.policies import Policy
from alignment.run.signals import Terminated
from alignment.serve.names import named_runs
from alignment.serve.serve import Settings, allowed_folders, serve


def test_names_of_runs(base):
    assert named_runs([str(base), "org/model", f"mine={base}"]) == {
        "base": str(base), "org/model": "org/model", "mine": str(base),
    }  # fmt: skip
    with pytest.raises(RecipeError, match="would both be served as base; write NAME="):
        named_runs([str(base), f"{base}/"])
    with pytest.raises(RecipeError, match="write RUN, or NAME=RUN"):
        named_runs([f"={base}"])


def test_options_that_contradict_each_other(base, tmp_path):
    keys = {"trust_remote_code": True}
    with pytest.raises(RecipeError) as refused:
        allowed_folders(Settings([str(base)], adapters=[tmp_path / "none"], keys=keys))
    assert [fault.partition(":")[0] for fault in refused.value.faults] == [
        f"--adapters {tmp_path / 'none'} is not a folder",
        "--adapters and --trust_remote_code",
    ]


def test_more_than_the_context_is_refused_before_a_model_is_loaded(base, monkeypatch):
    monkeypatch.setattr("alignment.serve.models.hold_base", None)
    settings = Settings([str(base)], port=0, max_length=257)
    with pytest.raises(ModelError, match=r"--max_length 257 is more than the context of .*base, 256 tokens") as refused:
        serve(settings, print)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("told", [KeyboardInterrupt(), Terminated(signal.SIGTERM)], ids=repr)
def test_a_signal_while_models_load_ends_it_as_later(base, monkeypatch, told):
    def find(*_, **__):
        raise told

    monkeypatch.setattr(Policy, "find", find)
    lines = []
    serve(Settings([str(base)], port=0), lines.append)
    assert lines == ["stopped"]


def command(*words, **options):
    environment = {**os.environ, "ALIGNMENT_SERVE_KEY": "secret"}
    return subprocess.Popen(
        [sys.executable, "-m", "alignment.cli", "serve", *map(str, words)],
        stderr=subprocess.PIPE, env=environment, text=True, cwd=Path(__file__).parents[2], **options,
    )  # fmt: skip


@pytest.mark.slow
def test_a_server_with_a_full_disk_goes_on(base):
    with Path("/dev/full").open("w") as full, command(base, "--port", 8799, stdout=full) as server:
        with openai.OpenAI(base_url="http://127.0.0.1:8799/v1", api_key="secret", max_retries=30) as client:
            reply = client.completions.create(model="base", prompt="the", max_tokens=3)
        assert reply.usage.completion_tokens > 0
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended(base, number):
    with command(base, "--port", 0, stdout=subprocess.PIPE) as server:
        line = server.stdout.readline()
        url = re.search(r"http://\S+/v1", line)[0]
        with openai.OpenAI(base_url=url, api_key="secret") as client:
            assert [model.id for model in client.models.list().data] == ["base"]
        server.send_signal(number)
        out, err = server.communicate(timeout=60)
    assert "secret" not in line + out
    assert out.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    assert "ended by" not in err
    assert server.returncode == 0


@pytest.mark.slow
def test_a_folder_without_a_model_is_a_fault_of_the_command(tmp_path):
    with command(tmp_path, stdout=subprocess.PIPE) as server:
        out, err = server.communicate(timeout=120)
    assert (server.returncode, out) == (2, "")
    assert "holds no config.json" in err
    assert "Traceback" not in err
