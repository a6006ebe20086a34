"""Parts of a message's content: kinds of text are read, others are refused with what to write instead."""

import pytest

from alignment.data import load_demonstrations
from tests.data import written
from tests.data.written import A, U


def test_parts_of_text_of_every_api_are_joined(tmp_path):
    question = [{"type": "input_text", "text": "Why"}, {"type": "text", "text": "?"}]
    answer = [{"type": "output_text", "text": "Because.", "annotations": [], "logprobs": []}]
    row = {"messages": [{**U, "content": question}, {**A, "content": answer}]}
    (found,) = written.load(tmp_path, row, loader=load_demonstrations).rows
    assert (found.prompt, found.completion) == ([U], "Because.")


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ({"type": "tool_use", "id": "1", "name": "f", "input": {}}, "write the call as tool_calls of the message"),
        ({"type": "tool_result", "tool_use_id": "1", "content": "3"}, "write the result as a message of the role tool"),
        ({"type": "thinking", "thinking": "Hm."}, "give the reasoning as reasoning_content"),
        ({"type": "refusal", "refusal": "No."}, "write the refusal as"),
        ({"type": "image_url", "image_url": {"url": "x"}}, "only text is supported"),
        ({"type": ["text"], "text": "a"}, "only text is supported"),
        ({"text": "a"}, 'write each part as {"type": "text", "text": …}'),
        ("a", 'write each part as {"type": "text", "text": …}'),
    ],
)
def test_other_parts_are_refused_with_what_to_write_instead(tmp_path, part, remedy):
    for place in (0, 1):
        messages = [dict(U), dict(A)]
        messages[place]["content"] = [{"type": "text", "text": "x"}, part]
        message = written.refused(tmp_path, {"messages": messages}, loader=load_demonstrations)
        assert f"d.jsonl:1: 'messages[{place}]' 'content' has a part that is not text" in message
        assert remedy in message
