"""A label run that failed before any answer takes a corrected recipe; answers that are there are kept."""

import json

import pytest

from alignment.errors import AlignmentError, JudgeError
from recipes import label
from tests.calls.chat_server import ChatServer, completion, failure, fenced


def run(folder, server, **judge):
    rows = [{"prompt": f"q{n}", "responses": ["long answer", "short"], "ranks": [1, 2]} for n in range(3)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = {
        "kind": "openai",
        "model": "toy",
        "base_url": server.url,
        "api_key_env": "MY_KEY",
        "max_retries": 0,
        **judge,
    }
    recipe = {"stage": "label", "responses": "given", "output_dir": str(folder / "run"), "judge": judge}
    recipe["datasets"] = [{"path": str(folder / "data.jsonl")}]
    (folder / "label.yaml").write_text(json.dumps(recipe))
    label.main(["--config", str(folder / "label.yaml")])
    return [json.loads(line) for line in (folder / "run" / "labels.jsonl").read_text().splitlines()]


def honest(prompt, n):
    return completion("A" if "long" in fenced(prompt)["answer-A"] else "B")


@pytest.mark.parametrize("reply", [failure(401), failure(500), completion("A")])
def test_a_run_that_failed_before_any_answer_takes_a_corrected_recipe(tmp_path, reply):
    """The last reply is an answer of an endpoint without log-probabilities, which the recipe asked for."""
    replies = [reply]
    with ChatServer(lambda prompt, n: replies[0] if replies else honest(prompt, n)) as server:
        with pytest.raises(JudgeError):
            run(tmp_path, server)
        assert (tmp_path / "run" / "calls.sqlite").exists()
        replies.clear()
        rows = run(tmp_path, server, logprobs=False)
    assert [pair["probability"] for row in rows for pair in row["pairs"]] == [1.0] * 3


def test_paid_replies_are_kept_and_only_differences_are_reported(tmp_path):
    replies = [completion("A"), *[failure(401)] * 20]
    with ChatServer(lambda prompt, n: replies[min(n, len(replies)) - 1]) as server:
        with pytest.raises(JudgeError):
            run(tmp_path, server, logprobs=False)
        with pytest.raises(AlignmentError) as caught:
            run(tmp_path, server, logprobs=False, temperature=0.5)
    assert "(judge.temperature was 0.0, is 0.5); restore the recipe to resume it, or name another" in str(caught.value)
    assert "overwrite" not in str(caught.value)
    assert len(str(caught.value)) < 500
