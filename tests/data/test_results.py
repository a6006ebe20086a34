"""Results of tools that data sets wrap in tags are written once, with the tokens of the template's own tags."""

import pytest

from alignment.data.results import unwrapped
from alignment.data.template import Template
from tests.data.kinds import tokenizer_of

Q = {"role": "user", "content": "Why?"}
A = {"role": "assistant", "content": "So."}


def result(text):
    return {"role": "tool", "content": text}


@pytest.fixture(scope="module", params=["qwen25", "qwen3"])
def template(request, shared):
    return Template(tokenizer_of(request.param, shared / "models/kinds"))


@pytest.mark.parametrize("text", ["<tool_response>\n42\n</tool_response>", " <tool_response>42</tool_response>\n"])
def test_a_result_in_tags_is_written_as_one_without(template, text):
    assert template.prompt_ids([Q, A, result(text)], None) == template.prompt_ids([Q, A, result("42")], None)


def test_tags_around_a_part_of_a_result_are_text(template):
    text = "See <tool_response>42</tool_response>."
    assert text in template.tokenizer.decode(template.prompt_ids([Q, A, result(text)], None))


def test_other_templates_get_the_tags_as_they_stand():
    assert unwrapped("<tool_response>42</tool_response>", "{{ content }}", str.upper) == (
        "<TOOL_RESPONSE>42</TOOL_RESPONSE>"
    )


def test_tags_between_two_results_stay_tags_and_tags_in_a_result_are_text():
    text = "<tool_response>\na\n</tool_response>\n<tool_response>\nb <tool_response>\n</tool_response>"
    assert unwrapped(text, "<tool_response>", str.upper) == ("A\n</tool_response>\n<tool_response>\nB <TOOL_RESPONSE>")
