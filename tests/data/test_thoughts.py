"""Reasoning of an answer: one thought at its beginning, in the field or in the content, never twice and never half."""

import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import DataError, ModelError
from alignment.train.preference_pairs import tokenise_pairs
from tests.models import make_tokenizer

# Qwen3's kind reads a field and rewrites the content; R1's kind opens the thought in its generation prompt.
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{% set thought = m.reasoning_content or '' %}{% set words = m.content %}"
    "{% if '</think>' in words %}{% set thought = words.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set words = words.split('</think>')[-1].strip() %}{% endif %}"
    "{{ '<think>\\n' + thought.strip() + '\\n</think>\\n\\n' + words }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)


def template(kind):
    tokens = ["<|User|>", "<|Assistant|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = make_tokenizer(chat_template={"qwen3": QWEN3, "r1": R1}[kind])
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return Template(tokenizer)


def trained(kind, content, **fields):
    written = template(kind)
    row = Demonstration([{"role": "user", "content": "Why?"}], content, source="f:1", **fields)
    (found,) = written.demonstrations(row)
    ids = [token for token, label in zip(found.input_ids, found.labels, strict=True) if label != -100]
    return written.tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["qwen3", "r1"])
def test_a_thought_in_field_and_content_is_trained_once(kind):
    answer = {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nYes.", "reasoning": "hmm"}
    once = trained(kind, answer["content"], answer=answer)
    assert once.count("hmm") == 1
    assert once == trained(kind, "Yes.", answer={**answer, "content": "Yes."})
    with pytest.raises(DataError, match="reasoning in a field of its own, and <think>"):
        trained(kind, answer["content"], answer={**answer, "reasoning": "another"})


@pytest.mark.parametrize("kind", ["qwen3", "r1"])
@pytest.mark.parametrize(
    "content",
    [
        "<think>\nhmm never closed",
        "Intro <think>a</think> rest",
        "<think>a</think> one <think>b</think> two",
        "<think>a</think> one </think> two",
        "<think><think>a</think></think>b",
    ],
)
def test_a_thought_that_is_not_one_at_the_beginning_is_refused(kind, content):
    with pytest.raises(DataError, match="are not around one thought at its beginning"):
        trained(kind, content)


def test_a_closing_tag_alone_continues_a_thought_that_the_generation_prompt_opens():
    assert trained("r1", "hmm\n</think>\n\nYes.") == "hmm\n</think>\n\nYes.<|im_end|>"
    with pytest.raises(DataError, match="are not around one thought at its beginning"):
        trained("qwen3", "The tag </think> ends a thought.")


def test_reasoning_of_compared_answers_is_compared(tmp_path):
    def side(words, reasoning):
        return [{"role": "assistant", "content": words, "reasoning_content": reasoning}]

    question = [{"role": "user", "content": "Why?"}]
    rows = [
        {"prompt": question, "chosen": side("x", "good"), "rejected": side("x", "bad")},
        {"chosen": question + side("y", "good"), "rejected": question + side("z", "bad")},
    ]
    for number, row in enumerate(rows):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(json.dumps(row) + "\n")
        (found,) = load_rankings([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0).rows
        ids = tokenise_pairs([found], template("qwen3"), limit=1000).rows[0]
        chosen, rejected = (template("qwen3").tokenizer.decode(ids[key]) for key in ("chosen_ids", "rejected_ids"))
        assert chosen.startswith("<think>\ngood\n</think>\n\n")
        assert rejected.startswith("<think>\nbad\n</think>\n\n")


# --- what a template leaves out, and the header of an answer

CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
ASKED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def written_by(chat_template, *roles):
    tokenizer = make_tokenizer(chat_template=chat_template)
    messages = [{"role": role, "content": f"words {place}"} for place, role in enumerate(roles)]
    row = Demonstration(messages[:-1], messages[-1]["content"], source="f:1")
    return Template(tokenizer).demonstrations(row)


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_template_that_leaves_out_a_message_is_refused_where_the_data_has_one(role):
    skipping = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role in ('user', 'assistant') %}")
    roles = ("system", "user", "assistant") if role == "system" else ("user", "assistant", "tool", "assistant")
    assert written_by(CHATML + ASKED, *roles)
    assert written_by(skipping + ASKED, "user", "assistant")
    with pytest.raises(DataError, match=f"leaves out message {roles.index(role) + 1}, of the {role}"):
        written_by(skipping + ASKED, *roles)


def test_a_system_message_that_only_counts_at_the_beginning_is_refused_elsewhere():
    first = "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    rest = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    assert written_by(first + rest + ASKED, "system", "user", "assistant")
    with pytest.raises(DataError, match="leaves out message 3, of the system"):
        written_by(first + rest + ASKED, "user", "assistant", "system", "user", "assistant")


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (CHATML, "ignores add_generation_prompt, so '<|im_start|>assistant' would be trained"),
        (CHATML + "{{ '<|im_start|>assistant\n' }}", "ends every conversation with 'assistant', with which"),
    ],
)
def test_a_template_that_ignores_add_generation_prompt_is_refused(chat_template, message):
    tokenizer = make_tokenizer(chat_template=chat_template)
    with pytest.raises(ModelError) as caught:
        Template(tokenizer)
    assert message in str(caught.value)


def test_a_template_that_does_not_read_the_content_begins_no_second_thought():
    opened = make_tokenizer(
        chat_template="{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    )
    opened.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    written = Template(opened)
    question = [{"role": "user", "content": "Why?"}]
    ids = written.answer_ids(question, "<think>\nhmm\n</think>\n\nYes.")
    assert opened.decode(ids) == "hmm\n</think>\n\nYes.<|im_end|>"
    assert opened.decode(written.answer_ids(question, "Yes.")) == "\n</think>\n\nYes.<|im_end|>"
