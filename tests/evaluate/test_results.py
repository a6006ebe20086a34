import pytest
import torch

from alignment.config.schema import EvaluateRecipe
from alignment.evaluate.judging import Verdict
from alignment.evaluate.policies import Measured
from alignment.evaluate.results import judge_candidates, pick_examples, reward_agreement, summarise


class Longer:
    """Prefers the longer answer; equal lengths tie."""

    name = "longer"
    prompt_hash = "0"

    def __init__(self):
        self.asked = 0

    def ask(self, comparison):
        self.asked += 1
        first, second = len(comparison.first), len(comparison.second)
        return Verdict(0.5, "tie") if first == second else Verdict(float(first > second), "ok")


def recipe_of(num_generations):
    return EvaluateRecipe(
        stage="evaluate",
        output_dir="unused",
        model_name_or_path="unused",
        candidates=[{"name": "ppo", "model_name_or_path": "unused"}],
        datasets=[{"path": "unused"}],
        judges=[{"kind": "rules", "function": "a:b"}],
        num_generations=num_generations,
        bootstrap_samples=100,
    )


def policy(name, texts, logp=-1.0):
    ids = [[7] * len(text) for text in texts]
    logps = [torch.full((len(i),), logp) for i in ids]
    return Measured(name, name, texts, ids, [True] * len(texts), [[5]] * len(texts), logps, {})


@pytest.mark.parametrize(
    ("num_generations", "expected", "pairs"),
    [
        (2, 1 / 3, 3),  # pairs (0,1) right, (2,3) wrong, (4,5) wrong
        (3, 0.5, 2),  # pairs (0,1) right, (3,4) wrong; the third answer of a prompt has no partner
        (6, 1 / 3, 3),  # one prompt: (0,1), (2,3), (4,5)
    ],
)
def test_the_reward_model_is_held_to_pairs_of_one_prompt(num_generations, expected, pairs):
    texts = ["a", "bb", "ccc", "d", "ee", "f"]  # the longer one is right
    scores = {"sft": [0.0, 1.0, 0.0, 2.5, 2.0, 3.0]}
    clusters = [i // num_generations for i in range(6)]
    found = reward_agreement(recipe_of(num_generations), [Longer()], ["p"] * 6, clusters, policy("sft", texts), scores)
    assert found["longer"]["value"] == pytest.approx(expected, rel=1e-12)
    assert found["longer"]["n"] == pairs


def test_one_answer_a_prompt_gives_no_pairs_and_asks_nothing():
    judge = Longer()
    scores = {"sft": [0.0, 1.0]}
    assert reward_agreement(recipe_of(1), [judge], ["p", "q"], [0, 1], policy("sft", ["a", "bb"]), scores) == {}
    assert judge.asked == 0


def test_the_progress_of_a_judge_is_reported(capsys):
    baseline, candidate = policy("sft", ["a", "bb", "same"]), policy("ppo", ["aaa", "b", " same "])
    judge_candidates(recipe_of(1), [Longer()], ["p", "q", "r"], baseline, [candidate])
    assert "evaluate: ppo against sft by longer 2/2 pairs (100%), took" in capsys.readouterr().err


def test_results_stand_under_plain_names():
    recipe, baseline, candidate = recipe_of(1), policy("sft", ["a", "bb"]), policy("ppo", ["aaa", "b"], logp=-0.5)
    candidate.ref_logps = [logps - 0.25 for logps in candidate.logps]
    verdicts = judge_candidates(recipe, [Longer()], ["p", "q"], baseline, [candidate])
    scores = {"sft": [0.0, 1.0], "ppo": [2.0, 4.0]}
    found = summarise(recipe, [0, 1], baseline, [candidate], verdicts, scores, {"longer": None})
    assert found["win_rate"]["ppo"]["longer"]["value"] == 0.5  # one won, one lost
    assert found["kl"]["ppo"] == pytest.approx(0.5, rel=1e-6)  # 0.25 a token; (3 + 1) / 2 tokens an answer
    assert found["answer_tokens"] == {"sft": 1.5, "ppo": 2.0}
    assert found["distinct_answers"] == {"sft": 1.0, "ppo": 1.0}
    assert found["reward_score"] == {"sft": 0.5, "ppo": 3.0}
    assert "reward_agreement" not in found  # the judge decided no pair
    assert "perplexity" not in found  # not asked for


def test_examples_are_drawn_by_the_seed_from_different_prompts():
    rows = [{"prompt": i // 2} for i in range(40)]
    chosen = pick_examples(rows, 2, 5, seed=1)
    assert len({row["prompt"] for row in chosen}) == 5
    assert pick_examples(rows, 2, 5, seed=1) == chosen
    assert pick_examples(rows, 2, 5, seed=2) != chosen
    assert len(pick_examples(rows, 2, 100, seed=1)) == 20
