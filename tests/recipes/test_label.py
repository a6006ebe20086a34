"""The label stage end to end: a real model, a real endpoint on loopback, real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings
from alignment.errors import AlignmentError, JudgeError
from recipes import label
from tests.reward.chat_server import ChatServer, Reply, completion, failure, fenced

KEY = "sk-test-0815-secret"


def write_recipe(folder: Path, model: Path, judge: dict[str, Any], **keys: Any) -> list[str]:
    prompts = [{"prompt": f"Tell me about the {word}."} for word in ("fox", "dog", "cat", "ball", "friend", "story")]
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in prompts))
    recipe = {
        "stage": "label",
        "model_name_or_path": str(model),
        "output_dir": str(folder / "run"),
        "datasets": [{"path": str(data)}],
        "judge": judge,
        "num_generations": 3,
        "max_new_tokens": 6,
        "per_device_eval_batch_size": 8,
        **keys,
    }
    (folder / "label.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return ["--config", str(folder / "label.yaml")]


def alphabetical(prompt: str) -> Reply:
    seen = fenced(prompt)
    return completion("A", p_first=0.9 if seen["answer-A"] < seen["answer-B"] else 0.2)


def openai(server: ChatServer) -> dict[str, Any]:
    return {"kind": "openai", "model": "toy", "base_url": server.url, "api_key_env": "MY_KEY", "max_retries": 0}


def test_labels_come_out_with_probability_status_and_provenance(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(lambda prompt, n: alphabetical(prompt)) as server:
        argv = write_recipe(tmp_path, tiny_model_dir, openai(server))
        label.main(argv)
        assert server.keys[0] == f"Bearer {KEY}"
        assert max(server.answered.values()) == 1
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows][:2] == ["Tell me about the fox.", "Tell me about the dog."]
    for row in rows:
        assert [(pair["first"], pair["second"]) for pair in row["pairs"]] == [(0, 1), (0, 2), (1, 2)]
        for pair in row["pairs"]:
            first, second = (row["responses"][pair[end]] for end in ("first", "second"))
            # (0.9 + 1 - 0.2) / 2 = 0.85 for the earlier in the alphabet
            expected = 0.5 if first == second else 0.85 if first < second else 0.15
            assert pair["probability"] == pytest.approx(expected)
        provenance = row["provenance"]
        assert (provenance["judge"], len(provenance["prompt_hash"])) == ("toy", 16)
        assert provenance["sampling"] == {
            "max_new_tokens": 6,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "seed": 42,
        }
        assert len(provenance["policy"]["sha256"]) == 64
        assert len(provenance["stopped"]) == 3
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert (manifest["results"]["prompts"], manifest["results"]["pairs"]) == (6, 18)
    assert sum(manifest["results"]["statuses"].values()) == 18
    assert manifest["judge"]["judge"] == "toy"
    assert manifest["judge"]["models"] == ["toy-2026"]  # as the endpoint names it
    loaded = load_rankings([DatasetEntry(path=str(run))], on_bad_row="stop", seed=0)
    assert len(loaded.rows) == 6
    for file in run.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_stopped_by_failures_it_writes_no_labels_and_goes_on(tmp_path: Path, tiny_model_dir: Path) -> None:
    broken = [True]
    with ChatServer(lambda p, n: failure(500) if broken[0] and n > 6 else alphabetical(p)) as server:
        argv = write_recipe(tmp_path, tiny_model_dir, openai(server))
        with pytest.raises(JudgeError, match="No labels were written"):
            label.main(argv)
        run = tmp_path / "run"
        assert not (run / "labels.jsonl").exists()
        assert json.loads((run / "manifest.json").read_text())["status"] == "running"
        broken[0] = False
        label.main(argv)
        assert max(server.answered.values()) == 1
        argv = write_recipe(tmp_path, tiny_model_dir, openai(server), output_dir=str(tmp_path / "whole"))
        label.main(argv)
    assert (tmp_path / "run" / "labels.jsonl").read_text() == (tmp_path / "whole" / "labels.jsonl").read_text()


@pytest.mark.parametrize(
    ("judge", "keys", "words"),
    [
        ({"kind": "rules", "function": "no_such_module_here:f"}, {}, "no module 'no_such_module_here'"),
        ({"kind": "openai", "model": "toy", "base_url": "http://127.0.0.1:9/v1", "prompt": "absent.txt"}, {}, "absent"),
        ({"kind": "rules", "function": "operator:add"}, {"max_new_tokens": 250}, "model's context of 256"),
        ({"kind": "openai", "model": "toy", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}, {}, "Is it runn"),
    ],
)
def test_what_cannot_work_is_said_and_writes_no_labels(
    tmp_path: Path, tiny_model_dir: Path, judge: dict[str, Any], keys: dict[str, Any], words: str
) -> None:
    argv = write_recipe(tmp_path, tiny_model_dir, judge, **keys)
    with pytest.raises(AlignmentError, match=words):
        label.main(argv)
    assert not (tmp_path / "run" / "labels.jsonl").exists()
