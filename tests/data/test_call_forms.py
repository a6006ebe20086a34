"""Arguments of tool calls in the form that a chat template reads: JSON text where it joins them to other text."""

import json

import pytest

from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import DataError
from tests.models import make_tokenizer

BODY = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% for c in m.tool_calls or [] %}"
    "CALL{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ARGUMENTS = {"city": 'São "Paulo"', "days": [1, 2]}
WRITTEN = 'get {"city": "São \\"Paulo\\"", "days": [1, 2]}'


def trained(call, arguments=ARGUMENTS):
    tokenizer = make_tokenizer(chat_template=BODY.replace("CALL", call))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    calls = [{"type": "function", "function": {"name": "get", "arguments": arguments}}]
    answer = {"role": "assistant", "content": "", "tool_calls": json.dumps(calls, ensure_ascii=False)}
    (row,) = Template(tokenizer).demonstrations(Demonstration([{"role": "user", "content": "Q"}], "", answer=answer))
    return tokenizer.decode([token for token in row.labels if token != -100])


@pytest.mark.parametrize(
    "call",
    [
        "{{ 'get ' + c.function.arguments }}",  # DeepSeek's way, to which an object is an error
        "{{ 'get ' }}{{ c.function.arguments }}",  # writes an object as Python prints it
        "{{ 'get ' }}{{ c.function.arguments | tojson }}",
        "{{ 'get ' }}{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
        "{{ c.function.arguments | tojson }}{% endif %}",
    ],
)
def test_arguments_are_written_as_json_once(call):
    assert trained(call) == WRITTEN + "<|im_end|>"


def test_a_template_that_reads_an_object_gets_one():
    call = "{% for key, value in c.function.arguments.items() %}{{ key ~ '=' ~ value ~ ';' }}{% endfor %}get"
    assert trained(call, {"city": "Rome"}) == "city=Rome;get<|im_end|>"


@pytest.mark.parametrize("call", ["{{ c.function.name }}", "{{ c.function.name ~ c.function.arguments.days }}"])
def test_arguments_that_are_left_out_are_refused(call):
    with pytest.raises(DataError, match="leaves out a part of the answer, 'city'"):
        trained(call)


TOOL = {"name": "get", "description": "Gets.", "parameters": {"type": "object", "properties": {}}}
IN_FUNCTION = "{% for t in tools %}{{ t.function.name }}: {{ t.function.description }};{% endfor %}"
IF_FUNCTION = "{% for t in tools %}{% if t.function %}{{ t.function.name }};{% endif %}{% endfor %}"
WHOLE = "{% for t in tools %}{{ t | tojson }}{% endfor %}"


@pytest.mark.parametrize("tool", [TOOL, {"type": "function", "function": TOOL}])
@pytest.mark.parametrize(
    ("body", "written"),
    [(IN_FUNCTION, "get: Gets.;"), (IF_FUNCTION, "get;"), (WHOLE, None)],
)
def test_bare_tools_get_the_wrapper_that_a_template_reads(body, written, tool):
    tokenizer = make_tokenizer(chat_template="{% if tools %}" + body + "{% endif %}" + BODY.replace("CALL", ""))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    text = tokenizer.decode(Template(tokenizer).prompt_ids([{"role": "user", "content": "Q"}], json.dumps([tool])))
    assert text.partition("<|im_start|>")[0] == (written or json.dumps(tool))
