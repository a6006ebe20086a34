"""The tokens that end an answer: template, tokenizer, generation config and recipe reconciled."""

import pytest
from transformers import GenerationConfig

from alignment.config.schema import ModelKeys
from alignment.data.rows import Demonstration
from alignment.data.template import IGNORE, Template
from alignment.policy.tokenizer import load_tokenizer
from tests.models import CHAT_TEMPLATE, make_tokenizer

U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
ROLE_MARKERS = (  # as GLM's: nothing ends a turn but the next role's marker
    "{% for m in messages %}<|{{ 'observation' if m['role'] == 'tool' else m['role'] }}|>\n{{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer_with(*tokens, special=True, **options):
    tokenizer = make_tokenizer(**options)
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    return tokenizer


def names(template):
    return template.tokenizer.convert_ids_to_tokens(template.stop_token_ids)


def learned(template, labels):
    return template.tokenizer.decode([label for label in labels if label != IGNORE])


@pytest.mark.parametrize("given", [3, [3], [1, 3]])
def test_tokens_of_the_generation_config_stop_too(given):
    config = GenerationConfig(eos_token_id=given)
    tokenizer = make_tokenizer()
    ordinary = tokenizer.convert_ids_to_tokens(3)
    assert names(Template(tokenizer, generation_config=config)) == ["<|im_end|>"]  # an ordinary word is within answers
    tokenizer.add_tokens([ordinary], special_tokens=True)
    assert names(Template(tokenizer, generation_config=config)) == ["<|im_end|>", ordinary]


def test_the_next_roles_marker_ends_a_turn_that_nothing_else_ends():
    tokenizer = tokenizer_with("<|user|>", "<|assistant|>", "<|observation|>", chat_template=ROLE_MARKERS)
    template = Template(tokenizer)
    assert names(template) == ["<|user|>", "<|im_end|>", "<|observation|>"]
    assert template.turn_end_id == tokenizer.convert_tokens_to_ids("<|user|>")
    assert tokenizer.decode(template.answer_ids([U], "So.")) == "So.<|user|>"
    assert tokenizer.decode(template.answer_ids("Why?", " So.")) == " So.<|im_end|>"
    (row,) = template.demonstrations(Demonstration([U, A, U], "So."))
    assert learned(template, row.labels) == "Because.<|user|>So.<|user|>"


def test_a_bos_before_the_next_turn_ends_none():
    text = "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token }}{% endif %}{{ m['content'] }}{% endfor %}"
    tokenizer = make_tokenizer(chat_template=text)
    tokenizer.bos_token = "<|im_start|>"
    template = Template(tokenizer)
    assert template.turn_end_id is None
    assert names(template) == ["<|im_end|>"]


def test_an_added_word_that_is_not_special_ends_a_turn_and_added_white_space_does_not():
    text = CHAT_TEMPLATE.replace("<|im_end|>", "\n\n<end_of_turn>")
    tokenizer = tokenizer_with("<end_of_turn>", "\n\n", special=False, chat_template=text)
    assert names(Template(tokenizer)) == ["<end_of_turn>", "<|im_end|>"]


def test_the_base_kind_whose_eos_ends_no_turn(shared):
    keys = ModelKeys(model_name_or_path=str(shared / "models/kinds/qwen25base"))
    template = Template(load_tokenizer(keys))
    assert names(template) == ["<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ("llama3", {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"}),
        ("glm", {"<|user|>", "<|observation|>", "<|endoftext|>"}),
        ("gemma3", {"<end_of_turn>", "<eos>"}),
        ("qwen3", {"<|im_end|>", "<|endoftext|>"}),
        ("r1", {"<|eos|>"}),
        ("mistral", {"</s>"}),
    ],
)
def test_load_tokenizer_notes_the_models_own_stops(shared, kind, stops):
    template = Template(load_tokenizer(ModelKeys(model_name_or_path=str(shared / "models/kinds" / kind))))
    assert set(names(template)) == stops


def test_the_recipes_eos_token_leaves_the_tokenizers_own_a_stop(shared):
    keys = ModelKeys(model_name_or_path=str(shared / "models/stories260K"), eos_token="<s>")
    template = Template(load_tokenizer(keys), None, keys.eos_token)
    assert names(template) == ["<s>", "</s>"]


def test_prompts_rendered_beforehand_keep_their_one_bos_and_their_own_end(shared):
    template = Template(load_tokenizer(ModelKeys(model_name_or_path=str(shared / "models/kinds/llama3"))))
    bos, decode = template.tokenizer.bos_token, template.tokenizer.decode
    head = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    assert decode(template.prompt_ids(bos + head)) == bos + head
    assert template.prompt_ids(head) == template.prompt_ids(bos + head)
    for prompt, completion in ((bos + head, "Hello.<|eot_id|>"), ("", bos + "Hello.")):
        (row,) = template.demonstrations(Demonstration(prompt, completion))
        ids = row.input_ids
        assert ids.count(template.tokenizer.bos_token_id) == 1
    base = Template(load_tokenizer(ModelKeys(model_name_or_path=str(shared / "models/kinds/qwen25base"))))
    assert base.tokenizer.decode(base.answer_ids("<|im_start|>assistant\n", "Hello.<|im_end|>")) == "Hello.<|im_end|>"
    assert base.tokenizer.decode(base.answer_ids("Say", " Hello.")) == " Hello.<|endoftext|>"


HARMONY = (  # as GPT-OSS's: a call ends with a token of its own
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['tool_calls'] %}"
    "{{ m['tool_calls'][0]['function'] | tojson }}<|call|>{% else %}{{ m['content'] }}"
    "{% if loop.last and m['role'] == 'assistant' %}<|im_end|>{% else %}<|end|>{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_call_ends_with_its_own_token():
    tokenizer = tokenizer_with("<|call|>", "<|end|>", chat_template=HARMONY)
    template = Template(tokenizer)
    assert names(template) == ["<|im_end|>", "<|call|>"]
    call = '[{"type": "function", "function": {"name": "f", "arguments": {}}}]'
    calling = {"role": "assistant", "content": "", "tool_calls": call}
    (row,) = template.demonstrations(Demonstration([U], "", answer=calling))
    assert learned(template, row.labels) == '{"name": "f", "arguments": {}}<|call|>'
    rows = template.demonstrations(Demonstration([U, calling, {"role": "tool", "content": "4"}], "So."))
    assert [learned(template, row.labels) for row in rows] == ['{"name": "f", "arguments": {}}<|call|>So.<|im_end|>']
