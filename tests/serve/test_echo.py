"""The tokens of an echo and of an answer are the parts of the text at their offsets, whatever the tokenizer."""

import pytest

from tests.serve.running import Running

FACE = [243, 162, 156, 133]  # ids of the bytes of 🙂


@pytest.fixture(scope="module")
def stories(shared):
    with Running({"stories": shared / "models/stories260K"}) as server:
        yield server


def parts(choice):
    """Return each token of a choice with the text from its offset to the next token's."""
    found = choice.logprobs
    ends = [*found.text_offset[1:], len(choice.text)]
    return [
        (token, choice.text[start:end]) for token, start, end in zip(found.tokens, found.text_offset, ends, strict=True)
    ]


def echo(server, prompt, **more):
    asked = {"model": "stories", "max_tokens": 0, "echo": True, "logprobs": 0} | more
    return server.client.completions.create(prompt=prompt, **asked).choices[0]


@pytest.mark.parametrize("prompt", ["Once upon a time", " Once", "The end. "])
def test_the_tokens_of_a_text_join_to_it(stories, prompt):
    reply = echo(stories, prompt)
    assert reply.text == prompt
    assert [token for token, _ in parts(reply)] == [text for _, text in parts(reply)]
    assert reply.logprobs.tokens[:1] == [""]  # BOS, which the text leaves out
    assert "".join(reply.logprobs.tokens) == prompt


def test_an_answer_to_nothing_begins_without_a_space(stories):
    reply = echo(stories, "", max_tokens=6, temperature=0)
    assert reply.text[:1].isalpha()
    assert "".join(reply.logprobs.tokens) == reply.text
    alone = echo(stories, "", max_tokens=6, temperature=0, echo=False)
    assert alone.logprobs.tokens == reply.logprobs.tokens[1:]


def test_bytes_that_are_no_character_have_offsets_of_their_own(stories):
    piece = "bytes:\\xf0"
    reply = echo(stories, [[1, FACE[0], 411, *FACE, 411]])
    assert parts(reply) == [
        ("", ""), (piece, "\N{REPLACEMENT CHARACTER}"), ("e", "e"),
        (piece, ""), ("bytes:\\x9f", ""), ("bytes:\\x99", ""), ("bytes:\\x82", "🙂"), ("e", "e"),
    ]  # fmt: skip
    sampled = stories.client.completions.create(
        model="stories", prompt="a", max_tokens=3, logprobs=0, logit_bias={str(FACE[0]): 100}, temperature=0
    ).choices[0]
    assert [text for _, text in parts(sampled)] == ["\N{REPLACEMENT CHARACTER}"] * 3
