"""The label stage end to end: a real model, a real endpoint on loopback, real files."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_rankings
from alignment.data.sampled import HASHES
from alignment.data.template import Template
from alignment.errors import AlignmentError, BudgetError, DataError, JudgeError, RecipeError
from alignment.policy.weights import weights_hash
from alignment.train.preference_pairs import tokenise_pairs
from recipes import label
from reward.models.batches import encode_rankings
from tests.calls.chat_server import ChatServer, Reply, completion, failure, fenced
from tests.models import save_tiny_model

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


def _require_sampled_tokens(run: Path, model: Path) -> None:
    """Training reads the very tokens that were sampled, which are not those of the texts."""
    from transformers import AutoTokenizer

    template = Template(AutoTokenizer.from_pretrained(model))
    entries = [DatasetEntry(path=str(run))]
    rankings = load_rankings(entries, on_bad_row="stop", seed=0).rows
    records = [ranking.provenance["sampled_tokens"] for ranking in rankings]
    lineage = json.loads((run / "manifest.json").read_text())["lineage"]
    for ranking, (record,) in zip(rankings, records, strict=True):
        assert {key: record[key] for key in HASHES[:2]} == {key: lineage[key] for key in HASHES[:2]}
        assert record["prompt_ids"] == template.prompt_ids(ranking.prompt)
    kept = [ids for (record,) in records for ids in record["response_ids"]]
    rendered = [
        template.answer_ids(r.prompt, text, stop=r.stopped(i)) for r in rankings for i, text in enumerate(r.responses)
    ]
    assert kept != rendered
    encoded = encode_rankings(rankings, template, max_length=None).rows
    assert [ids for row in encoded for ids in row.input_ids] == [
        [*record["prompt_ids"], *ids] for (record,) in records for ids in record["response_ids"]
    ]
    trained = [
        ids
        for row in tokenise_pairs(rankings, template, limit=99).rows
        for ids in (row["chosen_ids"], row["rejected_ids"])
    ]
    assert trained
    assert all(ids in kept for ids in trained)


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
    _require_sampled_tokens(run, tiny_model_dir)
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


def test_a_proxy_changes_what_is_sampled_and_is_recorded(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    tuned = save_tiny_model(tmp_path / "tuned", seed=9, initializer_range=0.3)
    pair = {"tuned": str(tuned), "untuned": str(tiny_model_dir), "alpha": 2.0}
    answers = []
    for name, keys in (("plain", {}), ("proxy", {"proxy": pair})):
        with ChatServer(lambda prompt, n: alphabetical(prompt)) as server:
            label.main(write_recipe(tmp_path, tiny_model_dir, openai(server), output_dir=str(tmp_path / name), **keys))
        rows = [json.loads(line) for line in (tmp_path / name / "labels.jsonl").read_text().splitlines()]
        answers.append([row["responses"] for row in rows])
    assert answers[0] != answers[1]
    assert rows[0]["provenance"]["policy"]["proxy"] == {
        "tuned": [weights_hash(str(tuned))],
        "untuned": [weights_hash(str(tiny_model_dir))],
        "alpha": 2.0,
    }
    assert len(load_rankings([DatasetEntry(path=str(tmp_path / "proxy"))], on_bad_row="stop", seed=0).rows) == 6


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
def test_an_impossible_recipe_is_reported_and_writes_no_labels(
    tmp_path: Path, tiny_model_dir: Path, judge: dict[str, Any], keys: dict[str, Any], words: str
) -> None:
    argv = write_recipe(tmp_path, tiny_model_dir, judge, **keys)
    with pytest.raises(AlignmentError, match=words):
        label.main(argv)
    assert not (tmp_path / "run" / "labels.jsonl").exists()


def given(folder: Path, rows: int = 4) -> list[dict[str, str]]:
    data = [{"prompt": f"question {i}", "responses": ["aa", "b", "aa"], "ranks": [1, 2, 1]} for i in range(rows)]
    (folder / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    return [{"path": str(folder / "given.jsonl")}]


def write_given(folder: Path, judge: dict[str, Any], **keys: Any) -> list[str]:
    recipe = {
        "stage": "label",
        "responses": "given",
        "output_dir": str(folder / "run"),
        "datasets": given(folder),
        "judge": judge,
        **keys,
    }
    (folder / "label.yaml").write_text(json.dumps(recipe))
    return ["--config", str(folder / "label.yaml")]


def test_answers_that_are_given_are_judged_without_a_policy(tmp_path: Path) -> None:
    with ChatServer(lambda prompt, n: alphabetical(prompt)) as server:
        label.main(write_given(tmp_path, openai(server)))
        assert len(server.prompts) == 4 * 2  # "aa" against "b" in both orders; the doubled answer is not asked about
    rows = [json.loads(line) for line in (tmp_path / "run" / "labels.jsonl").read_text().splitlines()]
    assert [pair["status"] for pair in rows[0]["pairs"]] == ["ok", "tie", "ok"]
    assert rows[0]["pairs"][0]["probability"] == pytest.approx(0.85)
    first, swapped = rows[0]["pairs"][0]["verdicts"]
    assert (first["shown"], first["probability"]) == ("first", pytest.approx(0.9))
    assert (swapped["shown"], swapped["probability"]) == ("swapped", pytest.approx(0.2))
    assert first["mass"] == pytest.approx(1.0)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["results"]["usage"]["calls"] == 8


def test_answers_without_comparisons_are_judged_and_not_trained_on(tmp_path: Path) -> None:
    data = tmp_path / "answers.jsonl"
    data.write_text(json.dumps({"prompt": "Name a colour.", "responses": ["aa", "b"]}) + "\n")
    keys = {"datasets": [{"path": str(data)}]}
    with ChatServer(lambda prompt, n: alphabetical(prompt)) as server:
        label.main(write_given(tmp_path, openai(server), **keys))
    row = json.loads((tmp_path / "run" / "labels.jsonl").read_text())
    assert row["pairs"][0]["probability"] == pytest.approx(0.85)  # (0.9 + 1 - 0.2) / 2
    entries = [DatasetEntry(path=str(data))]
    for read in (load_rankings, load_demonstrations):
        with pytest.raises(DataError, match=r"answers.jsonl:1: (the format answers holds no comp|holds a prompt with)"):
            read(entries, on_bad_row="stop", seed=0)


def test_only_the_failed_criterion_of_a_rubric_is_called_again(tmp_path: Path) -> None:
    criteria = [{"name": "truth", "description": "TRUE?"}, {"name": "brevity", "description": "BRIEF?"}]
    (tmp_path / "rubric.yaml").write_text(json.dumps({"criteria": criteria}))
    judge = {"kind": "openai", "model": "toy", "asks": "pointwise", "rubric": str(tmp_path / "rubric.yaml")}
    failing = True

    def behave(prompt: str, n: int) -> Reply:
        return completion("who knows" if failing and "BRIEF?" in prompt else "7")

    with ChatServer(behave) as server:
        judge |= {"base_url": server.url, "max_retries": 0, "logprobs": False, "repair": False}
        arguments = write_given(tmp_path, judge)
        with pytest.raises(JudgeError, match="questions failed"):
            label.main(arguments)
        answers, failing = len(server.prompts) // 2, False
        label.main(arguments)
        asked = ["BRIEF?" in prompt for prompt in server.prompts]
        assert asked[2 * answers :] == [True] * answers


def test_a_dry_run_needs_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    label.main([*write_given(tmp_path, {"kind": "openai", "model": "toy"}), "--dry-run"])
    assert "8 calls, about " in capsys.readouterr().out


def test_a_dry_run_makes_no_calls_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = {"kind": "openai", "model": "toy", "base_url": "http://127.0.0.1:9/v1", "max_tokens": 10}
    judge |= {"prices": {"prompt": 1000, "completion": 2000}}
    label.main([*write_given(tmp_path, judge), "--dry-run"])
    said = capsys.readouterr().out
    assert "4 prompts, 8 questions to toy" in said
    assert "8 calls, about " in said
    assert "at most 80 of replies: at most " in said  # 8 calls of max_tokens 10
    assert not (tmp_path / "run").exists()


def test_the_budget_stops_the_run_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with ChatServer(lambda prompt, n: alphabetical(prompt)) as server:
        with pytest.raises(BudgetError, match=r"8 questions are not all answered: the budget of 5 calls"):
            label.main([*write_given(tmp_path, openai(server)), "--max_calls", "5"])
        assert len(server.prompts) == 5
        assert not (tmp_path / "run" / "labels.jsonl").exists()
        label.main([*write_given(tmp_path, openai(server)), "--max_calls", "8"])
        assert max(server.answered.values()) == 1
        assert len(server.prompts) == 8
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["results"]["usage"]["calls"] == 8


def test_labels_are_read_anew_by_another_parser_without_a_call(tmp_path: Path, capsys: Any) -> None:
    with ChatServer(lambda prompt, n: alphabetical(prompt)) as server:
        argv = write_given(tmp_path, openai(server))
        label.main(argv)
        calls = len(server.prompts)
        before = (tmp_path / "run" / "labels.jsonl").read_text()
        label.main([*argv, "--reparse"])
        assert (tmp_path / "run" / "labels.jsonl").read_text() == before
        assert len(server.prompts) == calls
        label.main([*argv, "--judge.clamp", "[0.4, 0.6]", "--reparse"])
        assert len(server.prompts) == calls
        clamped = (tmp_path / "run" / "labels.jsonl").read_text()
        pair = json.loads(clamped.splitlines()[0])["pairs"][0]
        # 0.9 becomes 0.6 and 0.2 becomes 0.4: (0.6 + 1 - 0.4) / 2
        assert pair["probability"] == pytest.approx(0.6)
        assert [asked["probability"] for asked in pair["verdicts"]] == [0.6, 0.4]
        with pytest.raises(AlignmentError, match="needs 8 calls that were never made"):
            label.main([*argv, "--judge.max_tokens", "7", "--reparse"])
        assert (tmp_path / "run" / "labels.jsonl").read_text() == clamped


def test_failed_calls_hide_no_call_that_was_never_made(tmp_path: Path) -> None:
    replies = itertools.cycle([completion("I like both."), failure(500), completion("A")])
    with ChatServer(lambda prompt, n: next(replies)) as server:
        judge = openai(server) | {"logprobs": False, "repair": False}
        argv = [*write_given(tmp_path, judge), "--max_failure_share", "1.0"]
        label.main(argv)
        before = (tmp_path / "run" / "labels.jsonl").read_text()
        label.main([*argv, "--reparse"])
        assert (tmp_path / "run" / "labels.jsonl").read_text() == before
        with pytest.raises(AlignmentError, match=r"needs \d calls that were never made"):
            label.main([*argv, "--judge.asks", "listwise", "--reparse"])
    assert (tmp_path / "run" / "labels.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"responses": "sampled"}, "model_name_or_path: the required key is missing"),
        ({"temperature": 0.5}, "temperature: has no effect with responses: given"),
        ({"max_cost": 3}, "max_cost: needs judge.prices"),
        ({"dry_run": True, "reparse": True}, "dry_run: excludes reparse"),
    ],
)
def test_keys_that_do_not_go_together_are_reported(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        label.main(write_given(tmp_path, {"kind": "openai", "model": "toy"}, **keys))


def test_reparse_needs_a_finished_run(tmp_path: Path) -> None:
    argv = write_given(tmp_path, {"kind": "rules", "function": "tests.evaluate.rules:longer"})
    with pytest.raises(AlignmentError, match="holds no finished run of stage label"):
        label.main([*argv, "--reparse"])
