"""Orders, criteria, principles, reasoning and JSON: what is asked and what is read, through a real endpoint."""

import json
import math
import re

import pytest

from alignment.config.schema.judges import judge_entry
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Listing, Rating
from reward.judges import build_judge
from reward.judges.constitution import Constitution
from tests.calls.chat_server import ChatServer, Reply, completion
from tests.reward.judges.entries import judge_faults

QUESTION = Comparison("2+2?", "4", "5")
LISTING = Listing("2+2?", ("five", "4", "four"), order=(2, 0, 1))


def asking(server, **keys):
    keys = {"logprobs": False, **keys}
    return build_judge(judge_entry(kind="openai", model="toy", base_url=server.url, api_key_env="MY_KEY", **keys))


def with_top(text, top):
    """A reply of one token with these probabilities."""
    top = [{"token": token, "logprob": math.log(p)} for token, p in top.items()]
    content = [{"token": text, "logprob": 0.0, "top_logprobs": top}]
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}, "logprobs": {"content": content}}
    return Reply(json.dumps({"model": "toy", "choices": [choice]}).encode())


def test_an_order_becomes_the_number_of_answers_below():
    with ChatServer(lambda p, n: completion("B > C > A")) as server:
        verdict = asking(server, asks="listwise").ask(LISTING)
        assert "Answer C:\n<answer-C-" in server.prompts[0]
    assert (verdict.scores, verdict.status) == ((0.0, 2.0, 1.0), "ok")  # A last, B above two, C above one


@pytest.mark.parametrize(
    "reply", ["B > C", "B > C > A > D", "B > B > A", "best: B", "An answer says\nA > B > C\nand lies."]
)
def test_an_invalid_order_is_asked_for_once_more_and_then_gives_no_verdict(reply):
    with ChatServer(lambda p, n: completion(reply)) as server:
        verdict = asking(server, asks="listwise").ask(LISTING)
        assert len(server.requests) == 2
        repair = server.requests[1]["messages"]
        assert repair[1] == {"role": "assistant", "content": reply}
        assert "names each of A, B, C once" in repair[2]["content"]
    assert (verdict.scores, verdict.status) == (None, "parse_error")


def test_a_repaired_reply_counts():
    with ChatServer(lambda p, n: completion("Hm." if n == 1 else "B")) as server:
        verdict = asking(server).ask(QUESTION)
    assert (verdict.probability, verdict.details["first_reply"]) == (0.0, "Hm.")


def test_criteria_are_asked_one_by_one_and_averaged_by_weight(tmp_path):
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text(
        "criteria:\n- {name: truth, description: True., weight: 3}\n- {name: form, description: Short.}\n"
    )

    def behave(prompt, n):
        # truth: 0.75·8 + 0.25·4 = 7 of what is on the scale; form: 3, surely
        return with_top("8", {"8": 0.6, "4": 0.2, "x": 0.2}) if "truth: True." in prompt else with_top("3", {"3": 1.0})

    with ChatServer(behave) as server:
        judge = asking(server, asks="pointwise", rubric=str(rubric), logprobs=True)
        verdict = judge.ask(Rating("2+2?", "4"))
        strict = asking(server, asks="pointwise", rubric=str(rubric), logprobs=True, min_mass=0.9)
        assert strict.ask(Rating("2+2?", "4")).status == "parse_error"
    assert verdict.scores == (pytest.approx(6.0),)  # (3·7 + 3) / 4
    assert verdict.details["criteria"] == {"truth": pytest.approx(7.0), "form": pytest.approx(3.0)}
    assert verdict.details["mass"] == pytest.approx(0.8)
    # (3·8 + 3) / 4 = 6.75 with 0.75 and (3·4 + 3) / 4 = 3.75 with 0.25
    assert verdict.details["distribution"] == {"3.75": pytest.approx(0.25), "6.75": pytest.approx(0.75)}


def test_a_criterion_off_its_scale_leaves_no_score(tmp_path):
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text("criteria:\n- {name: truth, description: True.}\n")
    with ChatServer(lambda p, n: completion("0")) as server:  # a rubric's scale begins at 1
        verdict = asking(server, asks="pointwise", rubric=str(rubric)).ask(Rating("2+2?", "4"))
    assert (verdict.scores, verdict.status, verdict.details["criterion"]) == (None, "parse_error", "truth")


def test_both_orders_are_judged_by_the_same_principle_and_repeats_by_others(tmp_path):
    file = tmp_path / "constitution.yaml"
    file.write_text(json.dumps({"principles": [f"Principle number {place}." for place in range(50)]}))
    with ChatServer(lambda p, n: completion("A")) as server:
        judge = asking(server, constitution=str(file))
        for repeat in range(4):
            question = Comparison("2+2?", "4", "5", repeat)
            first, swapped = judge.ask(question), judge.ask(question.swapped())
            assert first.details["principles"] == swapped.details["principles"]
        shown = [re.findall(r"Principle number \d+\.", prompt) for prompt in server.prompts]
    assert all(len(found) == 1 for found in shown)
    assert [found == other for found, other in zip(shown[::2], shown[1::2], strict=True)] == [True] * 4
    assert len({found[0] for found in shown}) > 1
    assert (
        judge.prompt_hash
        != build_judge(
            judge_entry(kind="openai", model="toy", base_url=server.url, api_key_env="MY_KEY"), NoCalls()
        ).prompt_hash
    )


class NoCalls:
    makes_no_calls = True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("[]", "has no list of principles"),
        ("principles: [{name: x}]", "principle 1 is neither text nor"),
        ("principles: [ok, {principle: x, colour: y}]", "principle 2 has the key colour"),
        ("principles: [{principle: 3}]", "`principle` must be text"),
        ("principles: [ok, '  ']", "principle 2: `principle` is empty"),
        ("principles: [{principle: ok, critique: ''}]", "principle 1: `critique` is empty"),
    ],
)
def test_an_invalid_constitution_is_reported(tmp_path, text, words):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(JudgeError, match=words):
        Constitution.load(str(tmp_path / "c.yaml"))


def test_no_more_principles_are_drawn_than_there_are(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("principles: [be kind, be brief]\n")
    Constitution.load(str(tmp_path / "c.yaml"), count=2)
    with pytest.raises(JudgeError, match=r"num_principles is 3, and .* has 2"):
        Constitution.load(str(tmp_path / "c.yaml"), count=3)


def test_replies_follow_a_schema_if_the_recipe_sets_it():
    replies = {
        "pairwise": '{"reasoning": "A says Verdict: A", "verdict": "B"}',
        "listwise": '{"reasoning": "A > B > C", "ranking": ["C", "A", "B"]}',
        "pointwise": '{"reasoning": "score: 1", "score": 7}',
    }
    schemas = {}
    for asks, reply in replies.items():
        with ChatServer(lambda p, n, reply=reply: completion(reply)) as server:
            judge = asking(server, asks=asks, response_format="json_schema", reasoning=True)
            question = {"pairwise": QUESTION, "listwise": LISTING, "pointwise": Rating("2+2?", "4")}[asks]
            verdict = judge.ask(question)
            form = server.requests[0]["response_format"]["json_schema"]
        schemas[asks] = form["schema"]["properties"]
        assert (form["strict"], form["schema"]["required"][0]) == (True, "reasoning")
        found = verdict.probability if asks == "pairwise" else verdict.scores
        assert found == {"pairwise": 0.0, "listwise": (1.0, 0.0, 2.0), "pointwise": (7.0,)}[asks]
    assert schemas["pairwise"]["verdict"]["enum"] == ["A", "B"]
    assert schemas["listwise"]["ranking"]["items"]["enum"] == ["A", "B", "C"]
    assert schemas["pointwise"]["score"]["enum"] == list(range(11))


def test_reasoning_ends_in_the_verdict_and_what_it_quotes_does_not_count():
    said = 'Answer A claims "Verdict: A". That is no merit.\nVerdict: B'
    with ChatServer(lambda p, n: completion(said)) as server:
        verdict = asking(server, reasoning=True).ask(QUESTION)
        assert server.requests[0]["max_tokens"] == 512
    assert verdict.probability == 0.0


def test_too_little_mass_gives_no_verdict():
    with ChatServer(lambda p, n: with_top("A", {"A": 0.3, "B": 0.1, "Both": 0.6})) as server:
        verdict = asking(server, logprobs=True).ask(QUESTION)
        assert (verdict.probability, verdict.details["mass"]) == (pytest.approx(0.75), pytest.approx(0.4))
        held = asking(server, logprobs=True, min_mass=0.5).ask(QUESTION)
    assert (held.probability, held.status) == (None, "parse_error")
    assert "less than min_mass" in held.raw


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rubric": "r.yaml"}, "needs asks: pointwise"),
        ({"constitution": "c.yaml", "asks": "listwise"}, "has no effect with asks: listwise"),
        ({"num_principles": 2}, "has no effect without constitution"),
        ({"clamp": [0.6, 0.4]}, "the lower one first"),
        ({"samples": 3}, "needs temperature above 0"),
        ({"endpoint": "systemone", "reasoning": True}, "excludes endpoint: systemone"),
        ({"logprobs": False, "min_mass": 0.5}, "has no effect without log-probabilities"),
        ({"function": "a:b"}, "does not belong to a judge of kind openai"),
    ],
)
def test_keys_that_do_not_go_together_are_reported(keys, words):
    assert any(words in text for text in judge_faults({"kind": "openai", "model": "toy", **keys}))
