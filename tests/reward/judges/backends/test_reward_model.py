"""A reward model compares by the difference of its scores."""

import math

import pytest

from alignment.calls.asking import ask_all
from alignment.config.schema.judges import judge_entry
from alignment.evaluate.judging import Comparison, Rating
from reward.judges import build_judge
from reward.judges.backends.reward_model import RewardModelJudge
from reward.models.scoring import RewardScorer


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model_dir):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = tmp_path_factory.mktemp("reward")
    AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1, pad_token_id=0).save_pretrained(
        path
    )
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(path)
    return path


def judge_of(model, **keys) -> RewardModelJudge:
    return build_judge(judge_entry(kind="reward_model", model_name_or_path=str(model), **keys))


def test_the_probability_is_the_logistic_of_the_gap_asked_alone_or_by_many_threads(model):
    questions = [Comparison("Tell me about the fox.", "a red fox", f"dog {place}") for place in range(8)]
    scorer = RewardScorer.load(str(model), device="cpu")
    judge = judge_of(model)
    said = {question: verdict for batch in ask_all(judge, questions, max_concurrency=4) for question, verdict in batch}
    for question in questions:
        first, second = scorer.score([question.prompt] * 2, [question.first, question.second])
        expected = 1 / (1 + math.exp(second - first))
        assert said[question].probability == pytest.approx(expected, abs=1e-6)
        assert judge.ask(question.swapped()).probability == pytest.approx(1 - expected, abs=1e-6)
        assert said[question].details["scores"] == pytest.approx([first, second], abs=1e-6)
    assert judge.ask(Comparison("p", "same", "same")).status == "tie"
    rating = judge_of(model, asks="pointwise").ask(Rating("Tell me about the fox.", "a red fox"))
    assert rating.scores == pytest.approx((scorer.score(["Tell me about the fox."], ["a red fox"])[0],), abs=1e-6)


def test_a_text_that_it_cannot_encode_gives_no_label(model):
    judge = judge_of(model)
    verdict = judge.ask(Comparison("p", "word " * 500, "short"))
    assert (verdict.probability, verdict.status) == (None, "truncated")
    assert "answers[0]" in verdict.raw
    judge.batcher.model.members[0].model.score.weight.data.fill_(math.nan)
    verdict = judge.ask(Comparison("p", "long", "short"))
    assert (verdict.probability, verdict.status) == (None, "api_error")
    assert "the reward model returned nan, which is not a finite number" in verdict.raw
