"""Text while tokens arrive: together it is the text of the whole answer, and no part of a character is shown."""

import pytest

from alignment.data.answer_stream import AnswerStream
from alignment.data.template import Template
from tests.data.kinds import SHARED, TEMPLATELESS
from tests.models import make_tokenizer

TEXT = "Once upon a time, there's a café — 日本語 🙂👩‍👩‍👧!  Two  spaces.\n\n\tTab , and .punct's I 'm end "


def stream(tokenizer, prompt, ids):
    answer = AnswerStream(tokenizer, prompt)
    return [answer.add([token]) for token in ids] + [answer.end()]


def token_parts(tokenizer, prompt, ids):
    """Return the part of the text of each token."""
    answer, parts = AnswerStream(tokenizer, prompt), []
    for token in ids:
        answer.add([token])
        parts += answer.parts()
    answer.end()
    return parts + answer.parts()


@pytest.mark.parametrize("cut", [0, 3])
@pytest.mark.parametrize("before", ["x", "Hello there", TEXT * 3])
@pytest.mark.parametrize("kind", ["chatml", *SHARED, *TEMPLATELESS])
def test_the_parts_are_the_whole(tokenizers, kind, before, cut):
    tokenizer = tokenizers(kind)
    template = Template(tokenizer, eos_token=None if tokenizer.eos_token else tokenizer.convert_ids_to_tokens(0))
    prompt = [*template.prompt_ids(before), *template.stop_token_ids[:1]]
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][cut:]
    whole = template.answer_text(prompt, ids)
    parts = stream(tokenizer, prompt, ids)
    assert "".join(parts) == whole
    assert cut or "\N{REPLACEMENT CHARACTER}" not in whole
    at_once = AnswerStream(tokenizer, prompt)
    assert at_once.add(ids) + at_once.end() == whole
    each = token_parts(tokenizer, prompt, ids)
    assert len(each) == len(ids)
    assert "".join(each) == whole


def test_a_character_of_several_tokens_comes_whole():
    tokenizer = make_tokenizer()
    ids = tokenizer("a🙂b")["input_ids"]
    assert len(ids) == 6
    assert stream(tokenizer, [40], ids) == ["a", "", "", "", "🙂", "b", ""]
    assert token_parts(tokenizer, [40], ids) == ["a", "", "", "", "🙂", "b"]
    assert token_parts(tokenizer, [40], [ids[1], *ids[-2:]])[-1] == "b"  # ids[1] alone is no character


def test_bytes_that_never_become_a_character_are_shown_in_the_end():
    tokenizer = make_tokenizer()
    broken = tokenizer("🙂")["input_ids"][:2]
    assert stream(tokenizer, [40], broken)[-1] == "\N{REPLACEMENT CHARACTER}"
    parts = stream(tokenizer, [40], broken[:1] * 40)
    assert any(parts[:20])
    assert "".join(parts) == tokenizer.decode(broken[:1] * 40)
