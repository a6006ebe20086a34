"""The chat templates of the package, as the frameworks that they are named after write them."""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from alignment.data.recognition import named
from alignment.data.template_texts import template_text

TALK = [
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": "And?"},
]
TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
WRITTEN = {
    "alpaca": f"<s>{TASK}\n\n### Instruction:\nWhy?\n\n### Response:\nSo.</s>\n\n"
    "### Instruction:\nAnd?\n\n### Response:\n",
    "vicuna": "<s>USER: Why? ASSISTANT: So.</s>USER: And? ASSISTANT:",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_template_writes_a_conversation(name):
    (text,), _ = render_jinja_template(
        conversations=[TALK],
        chat_template=template_text(name),
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert text == WRITTEN[name]


def test_an_input_has_the_other_task_of_alpaca():
    (parsed,) = named("stanford_alpaca").read({"instruction": "Translate.", "input": "Oui.", "output": "Yes."})
    (text,), _ = render_jinja_template(
        conversations=[parsed.prompt],
        chat_template=template_text("alpaca"),
        add_generation_prompt=True,
        eos_token="</s>",
    )
    task = TASK.replace("task.", "task, paired with an input that provides further context.")
    assert text == f"{task}\n\n### Instruction:\nTranslate.\n\n### Input:\nOui.\n\n### Response:\n"


def test_a_system_message_replaces_the_task_of_alpaca():
    (text,), _ = render_jinja_template(
        conversations=[[{"role": "system", "content": "Be kind."}, TALK[0]]],
        chat_template=template_text("alpaca"),
        add_generation_prompt=True,
        eos_token="</s>",
    )
    assert text == "Be kind.\n\n### Instruction:\nWhy?\n\n### Response:\n"
