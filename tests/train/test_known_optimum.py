"""PPO reaches the best policy where that is known in closed form, and only where theory says that it does.

Of E[r] - β KL(π ‖ π_ref) it is π*(y|x) ∝ π_ref(y|x) exp(r(x, y) / β), since that is β (log Z - KL(π ‖ π*)). With six
tokens and answers of at most two there are 1 + 5·6 = 31 answers: distances to π* are sums over all, never sampled.
"""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from alignment.data.template import Template
from tests.models import make_model
from tests.train.ppo_runs import make_trainer

VOCABULARY = ["<eos>", "x", "y", "a", "b", "c"]
EOS = VOCABULARY.index("<eos>")
PROMPTS = ["x y", "y x"]  # of two tokens: behind a single one, that one again would leave attention as it was
# Nats of KL to the optimum, begun at 0.15 to 2.2. On seeds 1, 2, 3 and 42 there are 0.002 to 0.008 left, the noise of a
# finite batch; 0.00001 with k3 in the loss, whose rare large gradients leave 0.02 on seed 2.
TOLERANCE = 0.02
FAR = 0.06  # from the other optima, 0.08 to 0.20 there


class TwoTastes:
    """Likes an `a` first behind `x y`, a `b` behind `y x`, a `c` second behind both; dislikes silence."""

    def score(self, prompts, answers, *, stopped=None):
        return [self.of(prompt, answer.split()) for prompt, answer in zip(prompts, answers, strict=True)]

    def of(self, prompt, words):
        liked = "a" if prompt == "x y" else "b"
        return 1.0 * (words[:1] == [liked]) + 0.5 * (words[1:] == ["c"]) - 0.5 * (not words)


@pytest.fixture(scope="module")
def bandit(tmp_path_factory):
    path = tmp_path_factory.mktemp("optimum") / "base"
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<eos>", eos_token="<eos>")
    make_model(tokenizer, hidden_size=16, layers=1, initializer_range=0.15, pad_token_id=None).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def all_answers(model, prompt_ids, length):
    """Every answer of at most `length` tokens with its log-probability, float64; the stop token ends one early."""
    found, open_answers = {}, {(): 0.0}
    for _ in range(length):
        longer = {}
        for answer, logp in open_answers.items():
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt_ids, *answer]])).logits[0, -1].double()
            for token, more in enumerate(logits.log_softmax(-1).tolist()):
                (found if token == EOS else longer)[(*answer, token)] = logp + more
        open_answers = longer
    return found | open_answers


def probabilities(base, policy, length):
    """For each prompt: probabilities of all answers under the policy and the reference, and their rewards, float64."""
    reference, scorer = AutoModelForCausalLM.from_pretrained(base), TwoTastes()
    template = Template(AutoTokenizer.from_pretrained(base))
    found = []
    for prompt in PROMPTS:
        ids = template.prompt_ids(prompt)
        logp, ref_logp = (all_answers(model, ids, length) for model in (policy, reference))
        texts = [template.answer_text(ids, list(answer)) for answer in logp]
        ours, theirs = (torch.tensor([each[y] for y in logp], dtype=torch.float64).exp() for each in (logp, ref_logp))
        assert float(ours.sum()) == pytest.approx(1.0)
        found.append((ours, theirs, torch.tensor(scorer.score([prompt] * len(texts), texts), dtype=torch.float64)))
    return found


def kl(p, q):
    return float((p * (p / q).log()).sum())


def best(reference, rewards, beta):
    """π*, of E[r] - β KL(π ‖ π_ref)."""
    return (reference.log() + rewards / beta).softmax(-1)


def best_forward(reference, rewards, beta):
    """The optimum of E[r] - β KL(π_ref ‖ π), answers of one token: r + β π_ref / π = λ, so π = β π_ref / (λ - r)."""
    low, high = float(rewards.max()), float(rewards.max()) + beta  # where π sums to more than one, and to less
    for _ in range(100):
        middle = (low + high) / 2
        too_much = float((beta * reference / (middle - rewards)).sum()) > 1
        low, high = (middle, high) if too_much else (low, middle)
    return beta * reference / (high - rewards)


def distance(found, optimum, beta):
    """KL(π ‖ optimum), the larger of the two prompts'."""
    return max(kl(ours, optimum(reference, rewards, beta)) for ours, reference, rewards in found)


def train(base, out, *, length, updates=40, batch=256, **keys):
    """Train by the defaults' algorithm, and say what became of it; a full model can be any of these distributions."""
    trainer = make_trainer(
        base, out, scorer=TwoTastes(), prompts=PROMPTS, many_stops=False, updates=updates, per_device=batch,
        peft_method="full", max_new_tokens=length, rollout_batch_size=batch, total_episodes=batch * updates,
        num_mini_batches=1, value_learning_rate=0.05, arguments={"learning_rate": 0.02}, **keys,
    )  # fmt: skip
    trainer.train()
    return probabilities(base, trainer.roles.policy_lm.eval(), length)


def untrained(found):
    return [(reference, reference, rewards) for _, reference, rewards in found]


def test_ppo_reaches_the_best_policy_of_its_own_kl_coefficient_and_no_other(bandit, tmp_path):
    for own, other in ((0.5, 1.0), (1.0, 0.5)):
        found = train(bandit, tmp_path / str(own), length=2, kl_coef=own)
        assert distance(untrained(found), best, own) > 0.1
        assert distance(found, best, own) < TOLERANCE
        assert distance(found, best, other) > FAR


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "optimum", "other"),
    [
        ({}, best, best_forward),  # k1 in the reward
        # scores keep their unit only unwhitened, and beside another term of the loss their unit counts
        ({"kl_placement": "loss", "kl_estimator": "k2", "whiten_advantages": False}, best, best_forward),
        ({"kl_placement": "loss", "kl_estimator": "k3", "whiten_advantages": False}, best_forward, best),
    ],
)
def test_each_kl_leads_to_its_own_optimum(bandit, tmp_path, keys, optimum, other):
    found = train(bandit, tmp_path, length=1, batch=128, kl_coef=0.25, **keys)
    assert distance(found, optimum, 0.25) < TOLERANCE
    assert distance(found, other, 0.25) > FAR


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"kl_coef": 0.0},
        # E[k ∇logπ] = ∇E[k] - E[∇k]: near the reference both are ∇KL for k2 and k3, so what is left holds nothing back
        {"kl_estimator": "k2"},
        {"kl_estimator": "k3"},
        {"kl_estimator": "k1", "kl_placement": "loss", "whiten_advantages": False},  # its gradient, E[∇logπ], is zero
    ],
)
def test_a_kl_without_the_true_gradient_holds_nothing(bandit, tmp_path, keys):
    found = train(bandit, tmp_path, length=1, batch=64, updates=20, **{"kl_coef": 1.0, **keys})
    assert distance(found, best, 1.0) > 2 * distance(untrained(found), best, 1.0)
