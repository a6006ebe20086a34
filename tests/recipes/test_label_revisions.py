"""Critique, then revise: pairs and demonstrations beside the labels, paid once, counted before."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_rankings
from alignment.errors import BudgetError, JudgeError, RecipeError
from recipes import label
from tests.calls.chat_server import ChatServer, Reply, completion, failure

ANSWERS = ["Hit him.", "Talk to him."]


def write(folder: Path, server: ChatServer | None, *, rounds: int = 1, **keys: Any) -> list[str]:
    rows = [{"prompt": f"My brother took toy {place}.", "responses": ANSWERS, "ranks": [2, 1]} for place in range(3)]
    (folder / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    principle = {"principle": "Be peaceful.", "critique": "Name what is violent.", "revision": "Remove violence."}
    (folder / "constitution.yaml").write_text(json.dumps({"principles": [principle]}))
    judge = {"kind": "openai", "model": "toy", "api_key_env": "MY_KEY", "max_retries": 0, "max_tokens": 10}
    judge |= {"base_url": server.url if server else "http://127.0.0.1:9/v1"}
    judge |= {"constitution": str(folder / "constitution.yaml")}
    recipe = {
        "stage": "label",
        "responses": "given",
        "output_dir": str(folder / "run"),
        "datasets": [{"path": str(folder / "given.jsonl")}],
        "judge": judge,
        "revisions": {"rounds": rounds, "max_tokens": 50},
        **keys,
    }
    (folder / "label.yaml").write_text(json.dumps(recipe))
    return ["--config", str(folder / "label.yaml")]


def step(prompt: str) -> str:
    return "critique" if "critique alone" in prompt else "revision" if "revised answer alone" in prompt else "verdict"


def answering(prompt: str, n: int) -> Reply:
    if step(prompt) == "critique":
        assert "Name what is violent." in prompt
        return completion("It is violent.")
    if step(prompt) == "revision":
        assert "Remove violence." in prompt
        assert "It is violent." in prompt
        # What is at peace already stays; else words are added, so that a second round finds them.
        return completion(
            "Talk to him." if "Talk to him." in prompt else "Peace!" if "Be kind." in prompt else "Be kind."
        )
    return completion("A", p_first=0.9)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "revisions.jsonl").read_text().splitlines()]


def test_revisions_are_pairs_and_demonstrations(tmp_path: Path) -> None:
    with ChatServer(answering) as server:
        label.main(write(tmp_path, server))
        steps = [step(prompt) for prompt in server.prompts]
        # 3 prompts, 2 answers: a critique and a revision each, beside 3 pairs in both orders
        assert {kind: steps.count(kind) for kind in set(steps)} == {"critique": 6, "revision": 6, "verdict": 6}
        assert not any("logprobs" in r for r in server.requests if step(r["messages"][0]["content"]) != "verdict")
        assert {r["max_tokens"] for r in server.requests if step(r["messages"][0]["content"]) != "verdict"} == {50}
    rows = rows_of(tmp_path)
    assert [row["responses"] for row in rows] == [["Be kind.", "Hit him."]] * 3  # "Talk to him." was left as it is
    provenance = rows[0]["provenance"]
    assert (provenance["made_by"], provenance["judge"], len(provenance["prompt_hash"])) == ("revision", "toy", 16)
    assert (provenance["principles"], provenance["critiques"]) == ([["principle 1"]], ["It is violent."])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["results"]["revisions"] == {"ok": 3, "unchanged": 3}
    assert manifest["results"]["usage"]["calls"] == 18
    entry = [DatasetEntry(path=str(tmp_path / "run" / "revisions.jsonl"))]
    pairs = load_rankings(entry, on_bad_row="stop", seed=0).rows
    assert [(row.responses[0], row.pairs[0].probability) for row in pairs] == [("Be kind.", 1.0)] * 3
    shown = load_demonstrations(entry, on_bad_row="stop", seed=0).rows
    assert sorted((row.prompt, row.completion) for row in shown) == [
        (f"My brother took toy {place}.", "Be kind.") for place in range(3)
    ]
    folder = load_rankings([DatasetEntry(path=str(tmp_path / "run"))], on_bad_row="stop", seed=0)
    assert len(folder.rows) == 3  # of labels.jsonl alone


def test_a_round_starts_from_the_last_revision(tmp_path: Path) -> None:
    with ChatServer(answering) as server:
        label.main(write(tmp_path, server, rounds=2))
    rows = rows_of(tmp_path)
    assert [row["responses"] for row in rows] == [["Peace!", "Hit him."]] * 3
    assert len(rows[0]["provenance"]["critiques"]) == 2


def test_a_dry_run_counts_the_most_that_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = write(tmp_path, None, rounds=2)
    label.main([*argv, "--dry-run"])
    said = capsys.readouterr().out
    assert "3 prompts, 6 questions to toy, 6 answers to revise" in said
    # 6 verdicts of 10 tokens; 6 answers times 2 rounds times 2 calls of 50 tokens
    assert "30 calls, about " in said
    assert f"at most {6 * 10 + 24 * 50} of replies" in said
    with ChatServer(answering) as server:
        label.main(write(tmp_path, server, rounds=2))
        assert len(server.prompts) == 30 - 6  # the second round asks the same of the 3 answers that the first left


def test_paid_calls_are_not_repeated_and_failures_give_no_rows(tmp_path: Path) -> None:
    sick = [True]

    def behave(prompt: str, n: int) -> Reply:
        if sick[0] and step(prompt) == "revision" and "toy 1" in prompt:
            return failure(500)
        if step(prompt) == "critique" and "toy 2" in prompt:
            return completion("I'm sorry, I can't help with that.")
        return answering(prompt, n)

    with ChatServer(behave) as server:
        argv = write(tmp_path, server)
        with pytest.raises(BudgetError, match="not all answered: the budget of 9 calls"):
            label.main([*argv, "--max_calls", "9"])
        assert not (tmp_path / "run" / "revisions.jsonl").exists()
        label.main([*argv, "--max_failure_share", "0.9"])
        assert max(server.answered.values()) <= 2
        again = [prompt for prompt, count in server.answered.items() if count == 2]
        assert all(step(prompt) == "critique" and "toy 2" in prompt for prompt in again)  # refused, so no answer
        before = (tmp_path / "run" / "revisions.jsonl").read_text()
        calls = len(server.prompts)
        label.main([*argv, "--reparse"])
        assert len(server.prompts) == calls
    assert (tmp_path / "run" / "revisions.jsonl").read_text() == before
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["results"]["revisions"] == {"api_error": 2, "ok": 1, "refusal": 2, "unchanged": 1}


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ({"kind": "openai", "model": "toy"}, "revisions: needs judge.constitution"),
        ({"kind": "rules", "function": "a:b"}, "revisions: needs a judge that generates text"),
    ],
)
def test_a_judge_that_cannot_revise_is_reported(tmp_path: Path, judge: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        label.main(write(tmp_path, None, judge=judge, revisions={}))


def test_a_revision_that_failed_is_asked_anew_without_its_critique(tmp_path: Path) -> None:
    failing = True

    def answer(prompt: str, n: int) -> Reply:
        return completion("") if failing and step(prompt) == "revision" else answering(prompt, n)

    with ChatServer(answer) as server:
        arguments = write(tmp_path, server)
        with pytest.raises(JudgeError, match="6 of 6 questions failed"):
            label.main(arguments)
        failing, before = False, len(server.prompts)
        label.main(arguments)
        assert [step(prompt) for prompt in server.prompts[before:]] == ["revision"] * 6
