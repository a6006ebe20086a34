"""Templates that rewrite the messages before an answer once the answer is there: it is trained as it is generated."""

import json

import pytest

from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import DataError
from tests.models import make_tokenizer

# gpt-oss's kind: an answer in words has a header of its own, and takes the thought of the call before it away.
FINAL = (
    "{% set words = messages[-1].role == 'assistant' and not messages[-1].tool_calls %}"
    "{% for m in messages %}{% if m.tool_calls %}"
    "{% if not words %}{{ '<|im_start|>assistant thinks ' + m.reasoning + '<|end|>' }}{% endif %}"
    "{{ '<|im_start|>assistant calls ' + m.tool_calls[0].function.name + '<|im_end|>' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant NUMBERsays ' + m.content + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>' + m.role + ' ' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}
MESSAGES = [
    {"role": "user", "content": "How many?"},
    {
        "role": "assistant",
        "content": '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        "tool_calls": json.dumps([CALL]),
        "reasoning": "hmm",
    },
    {"role": "tool", "content": "42"},
]


def rows(number=""):
    tokenizer = make_tokenizer(chat_template=FINAL.replace("NUMBER", number))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|end|>"]})
    template = Template(tokenizer)
    found = template.demonstrations(Demonstration(MESSAGES, "Many.", source="f:1"))
    trained = [[i for i, label in zip(row.input_ids, row.labels, strict=True) if label != -100] for row in found]
    return [(tokenizer.decode(row.input_ids), tokenizer.decode(ids)) for row, ids in zip(found, trained, strict=True)]


def test_an_answer_keeps_its_header_and_its_context_the_thought_that_it_takes_away():
    ((whole, trained),) = rows()  # one row: the contexts continue one another
    assert whole.count("thinks hmm") == 1
    assert whole.endswith("tool 42<|im_end|><|im_start|>assistant says Many.<|im_end|>")
    assert trained == " thinks hmm<|end|><|im_start|>assistant calls f<|im_end|> says Many.<|im_end|>"


def test_an_answer_that_is_written_in_yet_another_way_is_refused():
    with pytest.raises(DataError, match="in another way once the answer is there"):
        rows("' + (messages | length | string) + ' ")
