"""Prompts and answers as tokens: what is conditioned on, what is learned, where an answer ends."""

import re
from pathlib import Path

import pytest

from alignment.data import load_demonstrations
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.rows import Demonstration
from alignment.data.template import IGNORE, Template
from alignment.data.tokenising import LONGEST_TEXT
from alignment.errors import DataError, ModelError
from alignment.meter import say_once
from tests.models import CHAT_TEMPLATE, make_tokenizer

U = {"role": "user", "content": "Why?"}
A = {"role": "assistant", "content": "Because."}
U2 = {"role": "user", "content": "And then?"}


@pytest.fixture(scope="module")
def chat():
    return Template(make_tokenizer())


@pytest.fixture(scope="module")
def story(shared):
    from transformers import AutoTokenizer, GenerationConfig

    path = str(shared / "models/stories260K")
    config = GenerationConfig.from_pretrained(path)
    return Template(AutoTokenizer.from_pretrained(path), eos_token="<s>", generation_config=config)


def trained(template, row):
    """The ids and labels of a demonstration that is one row."""
    (only,) = template.demonstrations(row)
    return only.input_ids, only.labels


def learned(template, labels):
    return template.tokenizer.decode([label for label in labels if label != IGNORE])


# --- chat


def test_the_prompt_is_rendered_by_the_chat_template_and_the_answer_follows(chat):
    prompt_ids, answer_ids = chat.prompt_ids([U]), chat.answer_ids([U], "Because.")
    decode = chat.tokenizer.decode
    assert decode(prompt_ids) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert decode(answer_ids) == "Because.<|im_end|>"  # the template's line break after it is not learned
    assert chat.stop_token_ids == [1]
    assert chat.answer_ids([U], "Because.", stop=False) == answer_ids[:-1]
    assert chat.answer_ids([U], "Because.<|im_end|>") == answer_ids
    assert chat.answer_ids([U], "") == [1]


def test_a_stop_token_inside_an_answer_is_refused(chat):
    with pytest.raises(DataError, match=r"an answer holds the stop token '<\|im_end\|>' before its end"):
        chat.answer_ids([U], "Because.<|im_end|> And more.")
    with pytest.raises(DataError, match="before its end"):
        chat.answer_ids("Why?", "Because.<|im_end|> And more.")


def test_an_answer_of_a_stop_token_alone_is_refused(chat):
    for prompt in ([U], "Why?"):
        with pytest.raises(DataError, match=r"empty but for the stop token"):
            chat.answer_ids(prompt, "<|im_end|>")
    with pytest.raises(DataError, match=r"empty but for the stop token"):
        chat.prompt_ids([U, {"role": "assistant", "content": "<|im_end|>"}, U])


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", ""])
def test_text_that_was_rendered_beforehand_is_trained_whole_and_reported(chat, capsys, end):
    text = f"<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nx{end}"
    ids, labels = trained(chat, Demonstration("", text))
    assert chat.tokenizer.decode(ids) == text.removesuffix(end) + "<|im_end|>"
    assert labels == ids
    tokens, other = AnswerTokens(chat), AnswerTokens(chat)
    for one in (tokens, tokens, other):
        one.demonstrations(Demonstration("", text))
    other.demonstrations(Demonstration("", "Once upon a time."))
    tokens.add(other.counts())
    tokens.tell()
    assert capsys.readouterr().err.startswith("3 rows of text hold conversations that were rendered beforehand: every ")


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("### Human: Why?### Assistant: Because.", True),
        ("Below is a task.\n\n### Instruction:\nWhy?\n\n### Response:\nBecause.", True),
        ("\n\nHuman: Why?\n\nAssistant: Because.", True),
        ("The AI: a novel. Every Human: a reader.", False),
        ("Response: none.\nUser: me", False),
    ],
)
def test_text_with_headings_of_both_speakers_is_reported(chat, capsys, text, reported):
    tokens = AnswerTokens(chat)
    tokens.demonstrations(Demonstration("", text))
    say_once.cache_clear()
    tokens.tell()
    told = capsys.readouterr().err.startswith("1 rows of text hold conversations that were rendered beforehand")
    assert told == reported


def test_a_line_break_behind_the_end_of_turn_is_left_out(chat):
    prompt = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert chat.answer_ids(prompt, "x<|im_end|>\n") == chat.answer_ids(prompt, "x<|im_end|>")
    assert chat.tokenizer.decode(chat.answer_ids(prompt, "x\n")) == "x\n<|im_end|>"


def test_every_assistant_turn_is_learned_and_nothing_else(chat):
    ids, labels = trained(chat, Demonstration([U, A, U2], "The end."))
    assert len(ids) == len(labels)
    assert all(label in (IGNORE, token) for token, label in zip(ids, labels, strict=True))
    assert learned(chat, labels) == "Because.<|im_end|>The end.<|im_end|>"
    assert ids == chat.prompt_ids([U, A, U2]) + chat.answer_ids([U, A, U2], "The end.")


def test_an_answer_that_repeats_the_question_is_found_in_its_own_turn(chat):
    echo = [{"role": "user", "content": "Because."}, A, U2]
    _, labels = trained(chat, Demonstration(echo, "The end."))
    assert labels[: len(chat.prompt_ids(echo[:1]))] == [IGNORE] * len(chat.prompt_ids(echo[:1]))
    assert learned(chat, labels) == "Because.<|im_end|>The end.<|im_end|>"


def test_turns_that_a_template_rewrites_later_are_learned_in_the_context_that_generates_them():
    """As Qwen3's: a last answer is written with a mark that earlier ones lose."""
    text = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and loop.last %}(new) {% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = Template(make_tokenizer(chat_template=text))
    echo = {"role": "user", "content": "Because."}
    first, second, third = template.demonstrations(Demonstration([echo, A, echo, A, U2], "The end."))
    assert [learned(template, row.labels) for row in (first, second, third)] == [
        "(new) Because.<|im_end|>",
        "(new) Because.<|im_end|>",
        "(new) The end.<|im_end|>",
    ]
    for row, prompt in ((first, [echo]), (second, [echo, A, echo]), (third, [echo, A, echo, A, U2])):
        asked = template.prompt_ids(prompt)
        assert row.input_ids[: len(asked)] == asked
        assert set(row.labels[: len(asked)]) == {IGNORE}
        assert row.labels[len(asked) :] == row.input_ids[len(asked) :]


def test_bos_is_not_doubled():
    tokenizer = make_tokenizer(chat_template="{{ bos_token }}" + CHAT_TEMPLATE)
    tokenizer.bos_token = "<|im_start|>"
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 2), ("<|im_end|>", 1)]
    )
    template = Template(tokenizer)
    assert tokenizer("a")["input_ids"][0] == 2
    assert template.prompt_ids([U])[:2] == [2, 2]  # the template's BOS and the turn's own <|im_start|>, no third
    plain = template.prompt_ids("the fox")
    assert plain[0] == 2
    assert plain[-1] != 1  # the EOS that this tokenizer puts behind would end the answer before it begins
    assert template.answer_ids("the fox", " jumps").count(1) == 1


def test_the_recipes_template_replaces_the_tokenizers(tmp_path):
    mine = "{% for m in messages %}{{ m['content'] }}!{% endfor %}"
    path = tmp_path / "mine.jinja"
    path.write_text(mine)
    for given in (mine, str(path)):
        for own in (None, CHAT_TEMPLATE, {"default": CHAT_TEMPLATE, "tools": CHAT_TEMPLATE}):
            tokenizer = make_tokenizer(chat_template=own)
            assert Template(tokenizer, chat_template=given).chat_template == mine
            assert tokenizer.chat_template == mine  # saved beside the model
    assert Template(make_tokenizer()).chat_template == CHAT_TEMPLATE
    with pytest.raises(ModelError, match="is neither Jinja text nor a file"):
        Template(make_tokenizer(), chat_template=str(tmp_path / "absent.jinja"))
    template = Template(make_tokenizer(chat_template=None), chat_template=mine)
    assert template.tokenizer.decode(template.answer_ids([U], "Because.")) == "Because.!<|im_end|>"  # it ends no turn


def test_own_templates_by_name():
    template = Template(make_tokenizer(chat_template=None), chat_template="chatml")
    assert template.tokenizer.decode(template.prompt_ids([U])) == (
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    template = Template(make_tokenizer(chat_template=None), chat_template="plain")
    assert template.tokenizer.decode(template.prompt_ids([U])) == "User:\nWhy?\n\nAssistant:\n"
    _, labels = trained(template, Demonstration([U, A, U2], "The end."))
    assert learned(template, labels) == "Because.<|im_end|>The end.<|im_end|>"
    template = Template(make_tokenizer(chat_template=None), chat_template="plain", eos_token="<|im_start|>")
    assert template.tokenizer.decode(template.answer_ids([U], "Because.")) == "Because.<|im_start|>"
    assert template.stop_token_ids == [2, 1]
    with pytest.raises(ModelError, match=r"chat_template nothing.jinja is neither Jinja text nor a file, nor one of"):
        Template(make_tokenizer(chat_template=None), chat_template="nothing.jinja")


def test_messages_without_a_template_say_what_to_do():
    template = Template(make_tokenizer(chat_template=None))
    with pytest.raises(ModelError, match=r"the tokenizer has no chat template\. Set `chat_template: plain`"):
        template.prompt_ids([U])


def test_messages_that_a_template_refuses_are_named():
    strict = "{{ raise_exception('Roles must alternate') if messages | length > 2 else '' }}" + CHAT_TEMPLATE
    template = Template(make_tokenizer(chat_template=strict))
    with pytest.raises(DataError, match="refuses messages of user, assistant, user: Roles must alternate"):
        template.prompt_ids([U, A, U2])


def test_a_tokenizer_without_eos_is_refused_with_a_remedy():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"has no EOS token, so an answer could never end\. Name the token"):
        Template(tokenizer)
    assert Template(tokenizer, eos_token="<|im_end|>").stop_token_ids == [1]
    with pytest.raises(ModelError, match="eos_token '<end>' is not a token"):
        Template(tokenizer, eos_token="<end>")


def test_the_hash_differs_between_templates_and_stop_tokens():
    first = Template(make_tokenizer()).hash
    assert Template(make_tokenizer()).hash == first
    assert Template(make_tokenizer(chat_template=CHAT_TEMPLATE + " ")).hash != first
    assert Template(make_tokenizer(), eos_token="<|im_start|>").hash != first


def test_readable_text(chat):
    assert chat.text("Once") == "Once"
    assert chat.text([U]) == "Why?"
    assert chat.text([U, A, U2]) == "User: Why?\n\nAssistant: Because.\n\nUser: And then?"


def test_tools_reach_templates_that_take_them_and_those_that_do_not(chat):
    call = {
        "role": "assistant",
        "content": "<tool_call>\n{}\n</tool_call>",
        "tool_calls": '[{"function": {"name": "f"}}]',
    }
    tools = '[{"name": "add"}]'
    text = chat.tokenizer.decode(chat.prompt_ids([U], tools))
    assert text.startswith("<|im_start|>system\nYou may call these tools")
    assert tools in text
    assert chat.prompt_ids([{**U, "tools": tools}]) == chat.prompt_ids([U], tools)  # as `load_prompts` carries them
    takes = "{{ tools }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ m.tool_calls }}\n{% endfor %}"
    takes += "{% if add_generation_prompt %}assistant: {% endif %}"
    native = Template(make_tokenizer(chat_template=takes))
    text = native.tokenizer.decode(native.prompt_ids([U, call], tools))
    assert text == "[{'name': 'add'}]user: Why?\nassistant: [{'function': {'name': 'f'}}]\nassistant: "


# --- the chat templates of real models, as TRL keeps them

REAL = {  # name, special tokens to add, the one that ends a turn
    "qwen2_5": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "qwen3": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "qwen3_instruct_2507": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama3": (["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
    "llama3_2": (["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
    "gemma": (["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
    "gemma3": (["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
    "phi3": (["<|user|>", "<|assistant|>", "<|end|>"], "<|end|>"),
    "deepseekv3": (["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"], "<｜end▁of▁sentence｜>"),
    "cohere": (["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"], "<|END_OF_TURN_TOKEN|>"),
}


@pytest.mark.parametrize("name", REAL)
def test_chat_templates_of_real_models(name):
    import importlib.util

    spec = importlib.util.find_spec("trl")
    text = (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja").read_text()
    tokens, end = REAL[name]
    tokenizer = make_tokenizer(chat_template=text)
    tokenizer.add_special_tokens({"additional_special_tokens": tokens, "bos_token": "<|bos|>"})
    template = Template(tokenizer)
    end_id = tokenizer.convert_tokens_to_ids(end)
    assert template.stop_token_ids[0] == end_id
    conversation = [U, A, U2]
    if name == "deepseekv3":  # its generation prompt opens <think>
        with pytest.raises(DataError, match=r"opens <think>, and the answer .Because.. has no reasoning"):
            template.demonstrations(Demonstration(conversation, "The end."))
        return
    rows = template.demonstrations(Demonstration(conversation, "The end."))
    assert len(rows) == (2 if name == "qwen3" else 1)  # it writes an empty thought in its last answer alone
    head = template.prompt_ids(conversation)
    rendered = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(head) == rendered
    ids = rows[-1].input_ids
    assert ids[: len(head)] == head
    answer = ids[len(head) :]
    assert answer.count(end_id) == 1
    assert answer[-1] == end_id
    text = "".join(learned(template, row.labels) for row in rows).replace("<think>\n\n</think>\n\n", "")
    assert [part.strip() for part in text.split(end)] == ["Because.", "The end.", ""]


# --- plain text, with a tokenizer that puts a space before whatever it is given


def test_stories_split_at_any_word_read_the_same(story, shared):
    rows = []
    for name in ("stories_train", "stories_heldout200"):
        entry = {"path": str(shared / f"data/tinystories/{name}.jsonl")}
        rows += load_demonstrations([_entry(**entry)], on_bad_row="stop", seed=0).rows
    decode = story.tokenizer.decode
    for number, row in enumerate(rows):
        text = row.completion
        borders = [match.start() for match in re.finditer(r"\s", text)]
        cut = borders[number * 7919 % len(borders)]  # a different place in every story
        at = cut + number % 2  # the space belongs to the answer in one story, to the prompt in the next
        prompt, answer = text[:at], text[at:]
        prompt_ids, answer_ids = story.prompt_ids(prompt), story.answer_ids(prompt, answer)
        assert answer_ids[-1] == 1
        assert answer_ids.count(1) == 1
        assert decode(prompt_ids + answer_ids, skip_special_tokens=True) == text
        if number < 200:
            assert story.answer_text(prompt_ids, answer_ids) == answer
        if at == cut:  # then the tokens are those of the whole text
            assert prompt_ids + answer_ids[:-1] == story.tokenizer(text, verbose=False)["input_ids"]
    assert len(rows) == 2316


def _entry(**keys):
    from alignment.config.schema import DatasetEntry

    return DatasetEntry(**keys)


def test_plain_prompts_begin_as_the_tokenizer_does(story):
    assert story.stop_token_ids == [1, 2]
    assert story.prompt_ids("") == [1]
    assert story.prompt_ids("Once upon") == story.tokenizer("Once upon")["input_ids"]
    assert story.answer_ids("", "Once upon") == [*story.tokenizer("Once upon")["input_ids"][1:], 1]
    assert story.answer_ids("Once", "") == [1]
    assert story.answer_ids("Once", " upon</s>")[-1] == 1  # whatever stop token the text had, ours ends it once
    ids, labels = trained(story, Demonstration("", "Once upon"))
    assert ids[0] == 1
    assert labels == [IGNORE, *ids[1:]]


def test_sampled_answers_keep_their_leading_space(story):
    prompt_ids = story.prompt_ids("Once upon a time")
    answer = story.answer_ids("Once upon a time", " there was", stop=False)
    assert story.tokenizer.decode(answer) == "there was"  # the trap: glued to the prompt it reads "timethere"
    assert story.answer_text(prompt_ids, answer) == " there was"


def test_empty_prompt_without_bos_is_refused_for_sampling_only(chat):
    with pytest.raises(DataError, match="the prompt is empty and the tokenizer has no BOS token"):
        chat.prompt_ids("")
    ids, labels = trained(chat, Demonstration("", "the fox"))
    assert ids == labels == [*chat.tokenizer("the fox")["input_ids"], 1]


def test_a_text_longer_than_any_context_is_refused_before_it_is_tokenised():
    template = Template(make_tokenizer())
    long = "a" * (LONGEST_TEXT + 1)
    for prompt in (long, [{"role": "user", "content": long}]):
        with pytest.raises(DataError, match="more than the 2,097,152 that are tokenised; cut the row"):
            template.prompt_ids(prompt)
    with pytest.raises(DataError, match="cut the row"):
        template.answer_ids("the cat", long)


def test_names_of_speakers_are_written_or_refused():
    named = [{**U, "name": "Ann"}]
    with pytest.raises(DataError, match="a message of the user has the name 'Ann', and the chat template writes no"):
        Template(make_tokenizer()).prompt_ids(named)
    writes = CHAT_TEMPLATE.replace("{{ message['role'] }}", "{{ message['role'] }}{{ message['name'] }}")
    template = Template(make_tokenizer(chat_template=writes))
    assert "userAnn" in template.tokenizer.decode(template.prompt_ids(named))


def test_the_name_of_a_tool_is_that_of_its_call(chat):
    result = {"role": "tool", "name": "f", "content": "4"}
    assert "4" in chat.tokenizer.decode(chat.prompt_ids([U, A, result]))
