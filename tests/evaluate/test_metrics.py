import math

import pytest
import torch
from torch import nn

from alignment.errors import DataError
from alignment.evaluate.metrics import kl, lengths, perplexity, token_logps, variety
from alignment.evaluate.statistics import Bootstrap
from tests.models import make_model, make_tokenizer

HOW = Bootstrap(samples=200)


class Uniform(nn.Module):
    """Gives every one of 8 tokens the same probability, whatever came before."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask, use_cache):
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 8)})


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer())


def test_logps_are_those_of_the_answer_s_tokens_one_sequence_at_a_time(model):
    prompts, answers = [[5, 6, 7], [9], [3, 4]], [[8, 1], [10, 11, 12, 1], [7]]
    found = token_logps(model, prompts, answers, temperature=0.7, batch_size=2)
    for prompt, answer, logps in zip(prompts, answers, found, strict=True):
        with torch.no_grad():
            probabilities = (model(torch.tensor([prompt + answer])).logits[0].double() / 0.7).softmax(-1)
        expected = [math.log(probabilities[len(prompt) + t - 1, token]) for t, token in enumerate(answer)]
        assert logps.tolist() == pytest.approx(expected, rel=1e-5)


def test_kl_by_hand():
    # Answer 1: log p - log p_ref = 0.5 and -0.2, sum 0.3. Answer 2: 1.0. Mean (0.3 + 1.0) / 2 = 0.65.
    logps = [torch.tensor([-1.0, -2.0]), torch.tensor([-0.5])]
    ref_logps = [torch.tensor([-1.5, -1.8]), torch.tensor([-1.5])]
    found = kl(logps, ref_logps, [0, 1], HOW)
    assert found["value"] == pytest.approx(0.65, rel=1e-6)
    assert found["per_token"] == pytest.approx(1.3 / 3, rel=1e-6)
    # k3 per token is e^-d - 1 + d: 0.106531, 0.021403 and 0.367879
    assert found["k3"] == pytest.approx((0.106531 + 0.021403 + 0.367879) / 2, abs=1e-6)


def test_kl_of_the_reference_itself_is_zero(model):
    logps = token_logps(model, [[5, 6]], [[7, 8]], temperature=1.0, batch_size=1)
    assert kl(logps, logps, [0], HOW)["value"] == 0.0


def test_sampled_kl_agrees_with_the_sum_over_the_vocabulary():
    # One-token answers: KL is a sum over the vocabulary, and its estimate the mean over many samples.
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(20, generator=generator).double().log_softmax(-1)
    q = torch.randn(20, generator=generator).double().log_softmax(-1)
    tokens = torch.multinomial(p.exp(), 20_000, replacement=True, generator=generator)
    found = kl([p[t].view(1) for t in tokens], [q[t].view(1) for t in tokens], range(20_000), HOW)
    exact = float((p.exp() * (p - q)).sum())
    standard_error = float((p - q)[tokens].std()) / math.sqrt(20_000)
    assert abs(found["value"] - exact) < 4 * standard_error
    assert found["low"] < exact < found["high"]


def test_lengths_count_the_stop_token():
    found = lengths([[1, 2, 3], [1]], [True, False], [0, 1], HOW)
    assert found["value"] == 2.0  # (3 + 1) / 2
    assert found["stopped"] == 0.5


def test_one_answer_to_all_prompts_shows():
    found = variety(["the same words", "the same words ", "the same words", "others"])
    assert (found["value"], found["unique"], found["n"]) == (0.5, 2, 4)
    assert found["distinct_1"] == pytest.approx(4 / 10, rel=1e-12)  # the, same, words, others of 10 words
    assert found["distinct_2"] == pytest.approx(2 / 6, rel=1e-12)
    assert variety([""])["distinct_1"] is None


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    found = perplexity(Uniform(), list(range(8)) * 3, bos=[])
    assert found["value"] == pytest.approx(8.0, rel=1e-6)
    assert found["tokens"] == 23  # the first token of a window without BOS has nothing before it


def test_perplexity_weighs_tokens_over_windows(model):
    ids = torch.randint(3, 200, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    found = perplexity(model, ids, bos=[2])
    total = 0.0
    for piece in ([2, *ids[:255]], [2, *ids[255:]]):  # the context is 256, BOS takes one place
        with torch.no_grad():
            logps = model(torch.tensor([piece])).logits[0].double().log_softmax(-1)
        total -= sum(float(logps[t - 1, piece[t]]) for t in range(1, len(piece)))
    assert found["value"] == pytest.approx(math.exp(total / 300), rel=1e-5)
    assert (found["tokens"], found["window"]) == (300, 256)


def test_perplexity_without_text_is_refused():
    with pytest.raises(DataError, match="hold 1 tokens of text"):
        perplexity(Uniform(), [4], bos=[])
