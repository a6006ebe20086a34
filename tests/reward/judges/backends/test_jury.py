"""Several judges as one: weighted means by hand, and failures that are no labels."""

import dataclasses
import json

import pytest

from alignment.calls.rejecting import RejectingJudge
from alignment.config.schema.judges import judge_entry
from alignment.evaluate.judging import Comparison, Listing, Rating, Verdict
from recipes import label
from reward.judges.backends.jury import Jury
from tests.calls.chat_server import ChatServer, completion
from tests.reward.judges.entries import judge_faults

QUESTION = Comparison("2+2?", "4", "5")
REFUSED = Verdict(None, "refusal", "no")


@dataclasses.dataclass
class Member:
    name: str
    verdict: Verdict
    prompt_hash: str = "hash"
    mode: str = "pairwise"

    def ask(self, question):
        return self.verdict


def jury(*verdicts, weights=None, **keys):
    weights = weights or [1.0] * len(verdicts)
    names = [f"judge {place}" for place in range(len(verdicts))]
    members = [
        judge_entry(kind="rules", name=name, function="a:b", weight=weight)
        for name, weight in zip(names, weights, strict=True)
    ]
    entry = judge_entry(kind="jury", members=members, **keys)
    return Jury(entry, [Member(name, verdict) for name, verdict in zip(names, verdicts, strict=True)])


def test_probabilities_are_averaged_by_weight():
    verdict = jury(Verdict(0.9, "ok"), Verdict(0.5, "tie"), Verdict(0.2, "ok"), weights=[2.0, 1.0, 1.0]).ask(QUESTION)
    assert verdict.probability == pytest.approx(0.625)  # (2·0.9 + 0.5 + 0.2) / 4
    assert [told["probability"] for told in verdict.details["members"]] == [0.9, 0.5, 0.2]
    torn = jury(*[Verdict(0.5, "tie")] * 3, weights=[0.3, 0.7, 1.1]).ask(QUESTION)
    assert (torn.probability, torn.status) == (0.5, "tie")
    clamped = jury(Verdict(1.0, "ok"), Verdict(0.9, "ok"), clamp=[0.4, 0.6]).ask(QUESTION)
    assert (clamped.probability, clamped.details["unclamped"]) == (0.6, pytest.approx(0.95))


def test_one_failure_fails_the_jury_or_is_left_out():
    said = (Verdict(0.9, "ok"), REFUSED, Verdict(0.5, "tie"))
    failed = jury(*said).ask(QUESTION)
    assert (failed.probability, failed.status, failed.raw) == (None, "refusal", "judge 1: no")
    rest = jury(*said, weights=[1.0, 5.0, 3.0], on_member_failure="leave_out").ask(QUESTION)
    assert rest.probability == pytest.approx(0.6)  # (0.9 + 3·0.5) / 4
    nobody = jury(REFUSED, Verdict(None, "abstain"), on_member_failure="leave_out").ask(QUESTION)
    assert (nobody.probability, nobody.status) == (None, "refusal")


def test_scores_are_averaged_and_so_are_their_distributions():
    listed = [Verdict(None, "ok", scores=(2.0, 1.0, 0.0)), Verdict(None, "ok", scores=(0.0, 2.0, 1.0))]
    verdict = jury(*listed, weights=[3.0, 1.0], asks="listwise").ask(Listing("p", ("a", "b", "c")))
    assert verdict.scores == pytest.approx((1.5, 1.25, 0.25))  # (3·2 + 0) / 4, (3·1 + 2) / 4, (0 + 1) / 4
    rated = [
        Verdict(None, "ok", details={"distribution": {"8": 0.5, "6": 0.5}}, scores=(7.0,)),
        Verdict(None, "ok", scores=(4.0,)),
    ]
    verdict = jury(*rated, asks="pointwise").ask(Rating("p", "a"))
    assert verdict.scores == (5.5,)
    assert verdict.details["distribution"] == {"5": 0.5, "6": 0.5}  # (6 + 4) / 2 and (8 + 4) / 2


def test_weights_members_and_what_a_failure_means_are_part_of_the_hash():
    said = (Verdict(0.9, "ok"), Verdict(0.8, "ok"))
    hashes = {
        jury(*said).prompt_hash,
        jury(*said, weights=[1.0, 2.0]).prompt_hash,
        jury(*said, on_member_failure="leave_out").prompt_hash,
    }
    assert len(hashes) == 3
    assert jury(*said).prompt_hash == jury(*said).prompt_hash


def test_only_the_member_that_failed_is_asked_anew():
    rejected = []

    class Store:
        def reject(self, question, judge, calls):
            rejected.append(judge)

    RejectingJudge(jury(Verdict(0.9, "ok"), REFUSED), Store()).ask(QUESTION)
    assert rejected == ["judge 1"]


def test_a_jury_labels_and_a_member_that_was_unreadable_is_asked_again(tmp_path):
    sick = [True]

    def behave(prompt, n):
        return completion("I cannot tell." if sick[0] and "second judge" in prompt else "A", p_first=0.8)

    prompt = tmp_path / "second.txt"
    prompt.write_text("You are the second judge. {prompt} {first} {second} Reply A or B.")
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "2+2?", "responses": ["4", "5"], "ranks": [1, 2]}))
    with ChatServer(behave) as server:
        chat = {"kind": "openai", "model": "toy", "base_url": server.url, "api_key_env": "MY_KEY", "repair": False}
        members = [{**chat, "name": "one"}, {**chat, "name": "two", "prompt": str(prompt)}]
        recipe = {
            "stage": "label",
            "responses": "given",
            "output_dir": str(tmp_path / "run"),
            "datasets": [{"path": str(tmp_path / "data.jsonl")}],
            "judge": {"kind": "jury", "name": "both", "members": members},
        }
        (tmp_path / "label.yaml").write_text(json.dumps(recipe))
        argv = ["--config", str(tmp_path / "label.yaml"), "--max_failure_share", "0.9"]
        with pytest.raises(Exception, match="2 of 2 questions failed"):
            label.main(argv)
        assert len(server.prompts) == 4  # both members in both orders
        sick[0] = False
        label.main(argv)
        assert len(server.prompts) == 6  # the second anew
    (row,) = map(json.loads, (tmp_path / "run" / "labels.jsonl").read_text().splitlines())
    assert row["pairs"][0]["probability"] == pytest.approx(0.5)  # 0.8 for whatever is first
    assert row["provenance"]["judge"] == "both"


INNER = {"kind": "jury", "name": "inner", "members": [{"kind": "rules", "function": f"a:{n}"} for n in "de"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"members": [{"kind": "rules", "function": "a:b"}]}, "has one judge; a jury has two or more"),
        ({"members": []}, "a judge of kind jury needs members"),
        ({"members": [{"kind": "rules", "function": "a:b"}] * 2}, "is called a:b, as members"),
        ({"asks": "listwise"}, "the jury's asks is listwise"),
        ({"members": [INNER, {"kind": "rules", "function": "a:b"}]}, "is a jury itself"),
        ({"prompt": "x.txt"}, "does not belong to a judge of kind jury"),
    ],
)
def test_an_impossible_jury_is_reported(change, words):
    members = [{"kind": "rules", "function": "a:b"}, {"kind": "rules", "function": "a:c"}]
    entry = {"kind": "jury", "members": members, **change}
    assert any(words in text for text in judge_faults(entry))
