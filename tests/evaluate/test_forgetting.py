"""Forgetting: ratios of perplexities and differences of task scores, with intervals over documents and rows."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from alignment.data.rows import Pair, Ranking
from alignment.data.template import Template
from alignment.evaluate.forgetting import Kept, Outside, forgotten, measure_outside
from alignment.evaluate.metrics import common_texts, text_losses
from alignment.evaluate.statistics import Bootstrap
from tests.models import make_model, make_tokenizer

HOW = Bootstrap(0.95, 500, 0)


def test_the_ratio_of_perplexities_and_its_interval():
    # nats, tokens; the candidate loses 0.1 nats a token more on all documents
    base = np.array([[20.0, 10.0], [60.0, 20.0], [25.0, 10.0], [45.0, 15.0]])
    worse = base + np.stack([base[:, 1] * 0.1, np.zeros(4)], axis=1)
    rows = [1.0, 1.0, 0.0, 1.0] * 10
    found = forgotten(
        Kept({"a": worse, "b": base}, {"task": [0.0] * 40}), Kept({"a": base, "b": base}, {"task": rows}), HOW
    )
    assert found["a"]["perplexity_ratio"]["value"] == pytest.approx(math.exp(0.1))
    assert found["a"]["perplexity"]["value"] == pytest.approx(math.exp((20 + 60 + 25 + 45) / 55 + 0.1))
    assert found["a"]["baseline_perplexity"]["value"] == pytest.approx(math.exp(150 / 55))
    low, high = found["a"]["baseline_perplexity"]["low"], found["a"]["baseline_perplexity"]["high"]
    assert math.exp(2.0) <= low < math.exp(150 / 55) < high <= math.exp(3.0)  # the least and the most of one document
    assert found["b"]["perplexity_ratio"]["value"] == 1
    assert not found["b"]["forgotten"]
    assert found["task"]["score_difference"]["value"] == pytest.approx(-0.75)
    assert found["task"]["baseline_score"]["value"] == pytest.approx(0.75)
    assert found["task"]["forgotten"]


def test_documents_that_all_lose_something_else_are_forgotten():
    base = np.array([[20.0, 10.0], [60.0, 20.0], [25.0, 10.0], [45.0, 15.0]])
    worse = base + np.array([[1.0, 0], [3.0, 0], [0.5, 0], [2.0, 0]])
    (found,) = forgotten(Kept({"a": worse}, {}), Kept({"a": base}, {}), HOW).values()
    assert found["perplexity_ratio"]["low"] > 1
    assert found["forgotten"]
    (back,) = forgotten(Kept({"a": base}, {}), Kept({"a": worse}, {}), HOW).values()
    assert not back["forgotten"]


def test_a_model_is_measured_text_by_text():
    tokenizer = make_tokenizer(chat_template=None)
    model = make_model(tokenizer)
    texts = ["the quick brown fox", "a small cat and a big red ball"]
    found = text_losses(model, tokenizer, texts)
    for text, (nats, tokens) in zip(texts, found, strict=True):
        ids = tokenizer(text).input_ids
        logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        assert nats == pytest.approx(-sum(logps[t - 1, ids[t]].item() for t in range(1, len(ids))), rel=1e-5)
        assert tokens == len(ids) - 1


def test_policies_of_all_tokenizers_read_the_same_letters():
    tokenizer = make_tokenizer(chat_template=None)
    texts = ["the quick brown fox", "a small cat and a big red ball"]
    first, second = (len(tokenizer(text).input_ids) for text in texts)
    assert common_texts(tokenizer, texts, first + second) == texts
    assert common_texts(tokenizer, texts, first + second - 1) == texts[:1]  # whole texts alone
    (cut,) = common_texts(tokenizer, texts, first - 1)
    assert texts[0].startswith(cut)
    assert len(tokenizer(cut).input_ids) <= first - 1 < len(tokenizer(texts[0][: len(cut) + 1]).input_ids)
    letters = make_tokenizer(vocab_size=259, chat_template=None)  # a token for each byte
    found = [text_losses(make_model(each), each, [cut]) for each in (tokenizer, letters)]
    assert found[0][0, 1] < found[1][0, 1] == len(cut.encode()) - 1


def test_a_text_without_a_predicted_token_keeps_its_place():
    tokenizer = make_tokenizer(chat_template=None)
    found = text_losses(make_model(tokenizer), tokenizer, ["", "a small cat", "a red ball"])
    assert found[0].tolist() == [0, 0]
    assert len(found) == 3


class Prefers(nn.Module):
    """Gives one token more probability than all others."""

    def __init__(self, token: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        with torch.no_grad():
            self.weight[token] = 5.0

    def forward(self, input_ids, **_):
        class Out:
            logits = self.weight.expand(*input_ids.shape, -1)

        return Out


def test_a_task_is_right_where_the_chosen_answer_is_likelier():
    tokenizer = make_tokenizer(chat_template=None)
    template = Template(tokenizer)
    fox = tokenizer("f", add_special_tokens=False).input_ids[0]
    rows = [Ranking("x", ["f", "z"], [Pair(0, 1, 1.0)]), Ranking("x", ["f", "z"], [Pair(0, 1, 0.0)])]
    model = Prefers(fox, len(tokenizer))
    kept = measure_outside(model, template, Outside({}, {"t": rows}), batch_size=2)
    assert kept.right == {"t": [1.0, 0.0]}
