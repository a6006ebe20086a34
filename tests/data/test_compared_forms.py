"""Compared answers are written as fine-tuning writes them: reasoning and calls in the chat template's own forms."""

import pytest

from alignment.data.demonstrations import demonstration_of_best
from alignment.data.layouts import conversation, preference
from alignment.data.template import Template
from tests.data.written import U
from tests.models import make_tokenizer

FORMS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content %}{{ 'thinks: ' + m.reasoning_content + '; ' }}{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ 'calls ' + c.function.name + ' ' + c.function.arguments | tojson }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CALLS = [{"function": {"name": "f", "arguments": {"a": 1}}}]


def answer(content, **keys):
    return {"role": "assistant", "content": content, **keys}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (answer("Yes."), "Yes."),
        (answer("Yes.", reasoning_content="hmm"), "thinks: hmm; Yes."),
        (answer("", tool_calls=CALLS), 'calls f {"a": 1}'),
        (answer("Words.\n", tool_calls=CALLS), 'Words.calls f {"a": 1}'),
        (answer("", tool_calls=CALLS, reasoning="hmm"), 'thinks: hmm; calls f {"a": 1}'),
        (answer("Words.", tool_calls=CALLS, thinking="a\n\nb"), 'thinks: a\n\nb; Words.calls f {"a": 1}'),
    ],
)
def test_reasoning_and_calls_of_compared_answers_are_in_the_templates_forms(given, written):
    tokenizer = make_tokenizer(chat_template=FORMS)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    template = Template(tokenizer)
    (ranking,) = preference({"prompt": [U], "chosen": [given], "rejected": [answer("No.")]})
    assert tokenizer.decode(template.answer_ids(ranking.prompt, ranking.responses[0])) == written + "<|im_end|>"
    rows = [template.demonstrations(row) for row in conversation("messages")({"messages": [U, given]})]
    assert rows == [template.demonstrations(demonstration_of_best(ranking, 0, "f:1"))]


def test_a_template_without_a_place_for_reasoning_gets_the_text_as_it_is():
    tokenizer = make_tokenizer(chat_template=FORMS.replace("m.reasoning_content", "m.none"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    ids = Template(tokenizer).answer_ids([U], "<think>\nhmm\n</think>\n\nYes.")
    assert tokenizer.decode(ids) == "<think>\nhmm\n</think>\n\nYes.<|im_end|>"
