"""Self-BLEU is that of nltk's BLEU."""

import random
import statistics

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from alignment.synthesize.bleu import self_bleu


@pytest.mark.parametrize("seed", range(5))
def test_self_bleu_is_the_mean_of_nltks_bleu(seed):
    chance = random.Random(seed)
    texts = [chance.choices("abcdefg", k=chance.randint(1, 12)) for _ in range(20)]
    texts += [texts[0], ["z"], ["z", "y"]]
    smooth = SmoothingFunction().method1
    expected = [
        sentence_bleu([*texts[:place], *texts[place + 1 :]], text, smoothing_function=smooth)
        for place, text in enumerate(texts)
    ]
    assert self_bleu(texts) == pytest.approx(statistics.fmean(expected), rel=1e-12)


def test_self_bleu_of_equal_texts_is_one_and_of_one_text_unknown():
    assert self_bleu([["a", "b", "c", "d"]] * 3) == pytest.approx(1.0)
    assert self_bleu([["a"]]) is None
