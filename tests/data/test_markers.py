"""The marks of a chat template are tokens, or the template is refused; ordinary text in headers is not."""

import pytest

from alignment.config.schema import ModelKeys
from alignment.data.template import Template
from alignment.errors import DataError, ModelError
from alignment.policy.tokenizer import load_tokenizer
from tests.models import CHAT_TEMPLATE, make_tokenizer

SYSTEM, U = {"role": "system", "content": "Be terse."}, {"role": "user", "content": "Why?"}
# Headers that are ordinary text to the models that have them.
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TULU = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
ALPACA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '### Instruction:\n' + m['content'] + '\n\n' }}"
    "{% else %}{{ '### Response:\n' + m['content'] + eos_token + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
GEMMA = (
    "{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
RETURNS = PHI.replace("<|end|>", "<|return|>")
CLOSED = ALPACA.replace("eos_token", "'</s>'")
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + "
    "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def bare():
    """A tokenizer whose only special tokens are a pad token and an EOS of other names than the templates'."""
    tokenizer = make_tokenizer(chat_template=None)
    for name in ("<|im_start|>", "<|im_end|>"):
        assert name in tokenizer.get_vocab()
    return tokenizer


@pytest.mark.parametrize("text", [ZEPHYR, TULU, MISTRAL, ALPACA, CHAT_TEMPLATE, "plain", "chatml"])
def test_headers_of_ordinary_text_are_accepted(text):
    template = Template(bare(), text)
    assert template.stop_token_ids == [1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GEMMA, "<start_of_turn>, <end_of_turn>"),
        (PHI, "<|end|>"),
        (RETURNS, "<|return|>"),
        (CLOSED, "</s>"),
        (LLAMA3, r"<\|start_header_id\|>, <\|end_header_id\|>, <\|eot_id\|>"),
        (CHAT_TEMPLATE.replace("im_", "turn_"), r"<\|turn_start\|>, <\|turn_end\|>"),
        (CHAT_TEMPLATE.replace("im_start", "im_begin"), r"<\|im_begin\|>"),
    ],
)
def test_a_mark_around_turns_that_is_not_a_token_is_refused(text, named):
    named = named.replace("<|end|>", r"<\|end\|>").replace("<|return|>", r"<\|return\|>")
    with pytest.raises(ModelError, match=rf"the chat template writes {named}, which the tokenizer .* has no token for"):
        Template(bare(), text)
    with pytest.raises(ModelError, match=rf"writes {named}, .* Use the model's own template, or chat_template: plain"):
        Template(make_tokenizer(chat_template=text))  # the tokenizer's own is read alike


def test_the_packages_chatml_is_refused_without_its_tokens(shared):
    for kind in ("gpt2", "mistral", "llama3"):
        tokenizer = load_tokenizer(ModelKeys(model_name_or_path=str(shared / "models/kinds" / kind)))
        with pytest.raises(ModelError, match=r"writes <\|im_start\|>, <\|im_end\|>, which the tokenizer"):
            Template(tokenizer, "chatml")
        Template(tokenizer, "plain")


def test_the_templates_of_all_kinds_are_accepted(shared):
    kinds = sorted(path.parent for path in (shared / "models/kinds").glob("*/chat_template.jinja"))
    assert len(kinds) > 8
    for kind in kinds:
        assert Template(load_tokenizer(ModelKeys(model_name_or_path=str(kind)))).chat_template


def test_a_template_without_a_system_role_names_the_remedy():
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role here') }}{% endif %}"
    template = Template(make_tokenizer(chat_template=strict + CHAT_TEMPLATE))
    with pytest.raises(DataError, match=r"No system role here\. If it takes no system message, put that text into the"):
        template.prompt_ids([SYSTEM, U])
