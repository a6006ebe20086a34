"""A real server: `transformers serve` on loopback with a model of 260,032 parameters. What it says means nothing."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import JudgeError
from recipes import label

pytest.importorskip("fastapi", reason="transformers serve needs it")
QUESTION = "{prompt}\n{first}\n{second}\nA or B? "
SECONDS_TO_START = 180


@dataclass
class Server:
    url: str
    model: str


@pytest.fixture(scope="module")
def server(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    model = shutil.copytree(shared / "models" / "stories260K", folder / "stories260K")
    (model / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    # This tokenizer has a token for "a" and for "b" after a space, none for "A": labels of a choice are single tokens.
    (folder / "decision.json").write_text(json.dumps({"labels": {"choice": ["a", "b"]}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command += ["--decision-config", str(folder / "decision.json")]
    environment = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        for _ in range(10 * SECONDS_TO_START):
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            pytest.fail("the server did not start: " + (folder / "log").read_text())
        yield Server(f"http://127.0.0.1:{port}/v1", str(model))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(
    folder: Path, server: Server, judge: dict[str, Any], **keys: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = [{"prompt": f"Tell of {what}.", "responses": ["Lily ran.", "Tom sat."], "ranks": [1, 2]} for what in "xyz"]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompt.txt").write_text(QUESTION)
    chat = {"kind": "openai", "model": server.model, "base_url": server.url, "api_key_env": "MY_KEY"}
    recipe = {
        "stage": "label",
        "responses": "given",
        "output_dir": str(folder / "run"),
        "datasets": [{"path": str(folder / "data.jsonl")}],
        "judge": {**chat, "name": "stories", "prompt": str(folder / "prompt.txt"), **judge},
        "max_concurrency": 2,
        "max_failure_share": 1.0,
        **keys,
    }
    (folder / "label.yaml").write_text(json.dumps(recipe))
    label.main(["--config", str(folder / "label.yaml")])
    labels = [json.loads(line) for line in (folder / "run" / "labels.jsonl").read_text().splitlines()]
    return labels, json.loads((folder / "run" / "manifest.json").read_text())


def calls(folder: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{folder / 'run' / 'calls.sqlite'}?mode=ro", uri=True) as store:
        return store.execute(
            "SELECT status, repeat, seed, raw, prompt_tokens, completion_tokens, model FROM calls"
        ).fetchall()


def test_without_log_probabilities_the_run_ends_and_reports_what_to_do(server: Server, tmp_path: Path) -> None:
    with pytest.raises(JudgeError) as error:
        run(tmp_path, server, {"max_tokens": 4})
    said = str(error.value)
    assert f"{server.url}/ returned no log-probabilities for model {server.model}" in said
    assert "set logprobs: false" in said
    assert "samples: 5" in said
    assert not (tmp_path / "run" / "labels.jsonl").exists()


def test_verdicts_are_read_from_samples_where_the_recipe_asks_for_them(server: Server, tmp_path: Path) -> None:
    judge = {"logprobs": False, "samples": 3, "temperature": 1.0, "max_tokens": 4, "repair": False}
    labels, manifest = run(tmp_path, server, judge)
    rows = calls(tmp_path)
    assert len(rows) == 3 * 2 * 3  # prompts, orders, samples
    assert sorted({(repeat, seed) for _, repeat, seed, *_ in rows}) == [(0, 0), (1, 1), (2, 2)]
    assert len({raw for *_, raw, _, _, _ in rows}) > 1  # another seed, another story
    assert {status for status, *_ in rows} == {"truncated"}  # a story does not end within four tokens, and is no label
    assert all(prompt > 10 and written == 4 for *_, prompt, written, _ in rows)
    for row in labels:
        (pair,) = row["pairs"]
        assert [asked["repeat"] for asked in pair["verdicts"]] == [0, 0, 1, 1, 2, 2]
        assert (pair["probability"], pair["status"]) == (None, "truncated")
    assert manifest["results"]["statuses"] == {"truncated": 3}
    assert manifest["results"]["usage"]["calls"] == 18


def test_a_typed_choice_has_probabilities(server: Server, tmp_path: Path) -> None:
    labels, manifest = run(tmp_path, server, {"endpoint": "systemone"})
    rows = calls(tmp_path)
    assert [status for status, *_ in rows] == ["ok"] * 6
    assert {raw for *_, raw, _, _, _ in rows} <= {"A", "B"}
    assert all(prompt > 10 and written == 0 for *_, prompt, written, _ in rows)
    assert manifest["results"]["statuses"] == {"ok": 3}
    for row in labels:
        (pair,) = row["pairs"]
        first, swapped = (asked["probability"] for asked in pair["verdicts"])
        assert 0 < first < 1
        assert 0 < swapped < 1
        assert pair["probability"] == pytest.approx((first + 1 - swapped) / 2)
        assert [asked["mass"] for asked in pair["verdicts"]] == [None, None]  # over A and B alone: nobody knows
