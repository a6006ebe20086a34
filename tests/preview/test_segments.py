"""Segments: joined they are the decoded row, whatever the tokens split."""

import pytest

from alignment.preview.rows import Tokens
from alignment.preview.segments import pieces, segments
from tests.models import make_tokenizer


def test_segments_of_bytes_that_are_split_over_tokens_join_to_the_decoded_row():
    tokenizer = make_tokenizer()
    ids = tokenizer("a é 猫 😀!", add_special_tokens=False)["input_ids"]
    for end in range(1, len(ids)):
        tokens = Tokens(ids, [False] * end + [True] * (len(ids) - end))
        found = segments(tokenizer, tokens)
        assert "".join(part["text"] for part in found) == tokenizer.decode(ids) == "a é 猫 😀!"
        assert [part["trained"] for part in found] == [False, True]


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "opt", "phi3"])
def test_segments_keep_the_spaces_of_the_whole(shared, kind):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "kinds" / kind)
    ids = tokenizer("Hello there , my friend !")["input_ids"]
    found = segments(tokenizer, Tokens(ids, [place % 2 == 0 for place in range(len(ids))]))
    assert "".join(part["text"] for part in found) == tokenizer.decode(ids)


def test_pieces_part_control_tokens_and_what_is_cut():
    tokenizer = make_tokenizer()  # pad 0, <|im_end|> 1, <|im_start|> 2
    a, b, c = (tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in "abc")
    found = pieces(tokenizer, Tokens([2, 2, a, b, 1], [False, False, False, True, True], [c, 1]), [1])
    told = [(piece.text, piece.trained, piece.special, piece.stop, piece.cut) for piece in found]
    assert told == [
        ("<|im_start|>", False, True, False, False),
        ("<|im_start|>", False, True, False, False),
        ("a", False, False, False, False),
        ("b", True, False, False, False),
        ("<|im_end|>", True, True, True, False),
        ("c", False, False, False, True),
        ("<|im_end|>", False, True, True, True),
    ]
