"""Tokenizers with several chat templates by name: transformers takes tool_use where a conversation has tools."""

import pytest

from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import ModelError
from alignment.run.lineage import fingerprint
from tests.data.kinds import ASK, IM, LOOP, tokenizer_of, written
from tests.models import make_tokenizer

U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
TOOLS = '[{"type": "function", "function": {"name": "f"}}]'
WITH_TOOLS = "{%- if tools -%}<tools>{{ tools | map(attribute='function.name') | join }}</tools>{%- endif -%}"


def named(**templates):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = templates
    return tokenizer


def test_a_conversation_with_tools_is_written_by_tool_use():
    template = Template(named(default=written(IM), tool_use=WITH_TOOLS + written(IM)))
    decode = template.tokenizer.decode
    plain = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert decode(template.prompt_ids([U])) == plain
    assert decode(template.prompt_ids([U], TOOLS)) == "<tools>f</tools>" + plain
    assert decode(template.prompt_ids([{**U, "tools": TOOLS}])) == "<tools>f</tools>" + plain
    (row,) = template.demonstrations(Demonstration([U], "So.", tools=TOOLS))
    assert decode(row.input_ids) == "<tools>f</tools>" + plain + "So.<|im_end|>"


def test_the_shared_tokenizer_is_written_as_transformers_writes_it(shared):
    tokenizer = tokenizer_of("named", shared / "models/kinds")
    found = Template(tokenizer).prompt_ids([{**U, "tools": TOOLS}])
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert tokenizer.decode(found) == tokenizer.apply_chat_template(
        [U], tools=tools, tokenize=False, add_generation_prompt=True
    )


def test_a_recipe_chooses_one_by_its_name():
    template = Template(named(default=written(IM), bare=written("{{ m.content + eos_token }}", "")), "bare")
    assert template.tokenizer.decode(template.prompt_ids([U])) == "Why?<|im_end|>"


def test_without_a_default_one_must_be_named():
    with pytest.raises(ModelError, match=r"has the chat templates rag, tool_use and none is named default; name one"):
        Template(named(rag=written(IM), tool_use=written(IM)))
    Template(named(rag=written(IM), tool_use=written(IM)), "rag")


def test_two_that_end_answers_differently_are_refused():
    tokenizer = named(default=written(IM), tool_use=WITH_TOOLS + written(IM.replace("<|im_end|>", "<|done|>")))
    tokenizer.add_tokens(["<|done|>"], special_tokens=True)
    with pytest.raises(ModelError, match="default and tool_use end an answer with different tokens"):
        Template(tokenizer)


def test_a_template_for_tools_is_tried_before_it_is_used():
    deaf = LOOP.replace("BODY", IM.replace("m.content", "'x'")).replace("ASK", ASK)
    with pytest.raises(ModelError, match="writes the same text for different messages"):
        Template(named(default=written(IM), tool_use=WITH_TOOLS + deaf))


def test_both_are_in_the_hash_and_in_the_fingerprint(tiny_model_dir):
    one, other = (named(default=written(IM), tool_use=WITH_TOOLS + written(IM) + end) for end in ("", " "))
    assert Template(one).hash != Template(other).hash
    first, second = (fingerprint(str(tiny_model_dir), each)["template_sha256"] for each in (one, other))
    assert first != second
