"""The numbers that LLMBar's authors published for recorded verdicts come out again, to the digit."""

import json

import pytest

from reward.audit.audit import audit
from reward.audit.items import read_labels

# Accuracy is `correct_average`: the mean of both orders' accuracies. Agreement is `equal`: both orders name one winner.
PUBLISHED = {
    "GPT-4/Vanilla_NoRules": (0.935, 0.97),
    "GPT-4/Vanilla": (0.955, 0.95),
    "ChatGPT/Vanilla_NoRules": (0.79, 0.68),
    "ChatGPT/Vanilla": (0.815, 0.71),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_accuracy_and_agreement_of_the_orders(shared, name):
    accuracy, agreement = PUBLISHED[name]
    folder = shared / "data" / "llmbar-natural" / "evaluators" / name
    (judge,), people = read_labels([folder])
    found = audit(judge, people)
    assert judge.name == name
    assert found["against"]["accuracy_one_order"]["value"] == pytest.approx(accuracy, abs=1e-12)
    assert found["against"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-12)
    assert found["measures"]["consistency"]["value"] == pytest.approx(agreement, abs=1e-12)
    assert found["measures"]["coverage"]["value"] == 1.0
    recorded = json.loads((folder / "statistics.json").read_text())
    right_both = int(recorded["correct_both"].split(" / ")[0])
    both = found["against"]["both_orders_correct"]["value"]
    assert both == pytest.approx(right_both / len(judge.items), abs=1e-12)
    same = int(recorded["equal"].split(" / ")[0])
    assert found["against"]["accuracy_when_consistent"]["value"] == pytest.approx(right_both / same, abs=1e-12)


def test_a_folder_gives_every_judge_in_it(shared):
    judges, people = read_labels([shared / "data" / "llmbar-natural"])
    assert sorted(judge.name for judge in judges) == sorted(PUBLISHED)
    assert len(people.votes) == 100
    assert all(list(votes) == ["gold"] for votes in people.votes.values())
