"""Answers that spell control tokens and nothing else are refused in every stage: nothing of them can be learned."""

import pytest

from alignment.data import load_demonstrations, load_rankings
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from reward.models.batches import encode_rankings
from tests.data import written
from tests.data.written import A, U
from tests.models import make_tokenizer

REFUSED = r"d\.jsonl:1.*(an answer has no words, only control tokens: |empty but for the stop token)"
BARE = ["<|im_start|>", "<|im_start|><|im_end|>", " <|pad|>\n", "<|pad|> <|im_start|>", " <|im_end|>\n"]
GOOD = {"messages": [U, A]}


@pytest.fixture(scope="module")
def template():
    return Template(make_tokenizer())


def demonstrated(tmp_path, template, *rows, on_bad_row="stop"):
    read = written.load(tmp_path, *rows, loader=load_demonstrations, on_bad_row=on_bad_row).rows
    return tokenise_demonstrations(read, template, limit=1000, on_bad_row=on_bad_row)


@pytest.mark.parametrize("text", BARE)
def test_sft_refuses_it_in_every_layout_and_turn(tmp_path, template, text):
    bare = {"role": "assistant", "content": text}
    thought = {**bare, "content": f"<think>\nhm\n</think>\n\n{text}"}
    for row in (
        {"messages": [U, bare]},
        {"messages": [U, bare, U, A]},
        {"messages": [U, thought]},
        {"prompt": "Q", "completion": text},
        {"text": text},
    ):
        with pytest.raises(DataError, match=REFUSED):
            demonstrated(tmp_path, template, row)


@pytest.mark.parametrize("text", BARE)
@pytest.mark.parametrize("prompt", ["Q", [U]])
def test_preferences_refuse_it_on_both_sides(tmp_path, template, text, prompt):
    for better, worse in ((text, "No."), ("Yes.", text)):
        row = {"prompt": prompt, "chosen": better, "rejected": worse}
        rankings = written.load(tmp_path, row, loader=load_rankings).rows
        with pytest.raises(DataError, match=REFUSED):
            tokenise_pairs(rankings, template, limit=1000)
        with pytest.raises(DataError, match=REFUSED):
            encode_rankings(rankings, template, max_length=None)


def test_skip_leaves_it_out_and_names_its_line(tmp_path, template):
    bare = {"messages": [U, {"role": "assistant", "content": "<|im_start|>"}]}
    found = demonstrated(tmp_path, template, bare, GOOD, on_bad_row="skip")
    assert len(found.rows) == 1
    assert "d.jsonl:1: an answer has no words, only control tokens: '<|im_start|>'" in found.skipped[0]


def test_an_answer_that_has_words_beside_them_is_trained_as_text(tmp_path, template):
    answer = {"role": "assistant", "content": "Write <|im_start|>."}
    (row,) = demonstrated(tmp_path, template, {"messages": [U, answer]}).rows
    control = template.tokenizer.convert_tokens_to_ids("<|im_start|>")
    trained = [token for token in row["labels"] if token != -100]
    assert control not in trained
    assert template.tokenizer.decode(trained) == "Write <|im_start|>.<|im_end|>"


def test_a_sampled_answer_without_words_is_scored_too(template):
    for prompt in ("Q", [U]):
        ids = template.sampled_ids(prompt, "<|im_start|>")
        assert ids[-1] == template.stop_token_ids[0]
