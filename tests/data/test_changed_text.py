"""Templates that change the text of a message, are refused in every stage; words around an answer are reported."""

import pytest

from alignment.data import load_demonstrations, load_rankings
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.meter import say_once
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from tests.data import written
from tests.data.kinds import written as template_of
from tests.data.written import U
from tests.models import make_tokenizer

BODY = "{{ '<|im_start|>' + m.role + '\\n' }}{{ TEXT }}{{ '<|im_end|>\\n' }}"
GIVEN = 'x < y &\n "z"'


def both(tmp_path, text, *, prompt=U, answer=GIVEN, body=BODY):
    """Tokenise one answer for fine-tuning and for comparisons by a template that writes `text` of a message."""
    template = Template(make_tokenizer(vocab_size=400, chat_template=template_of(body.replace("TEXT", text))))
    said = {"role": "assistant", "content": answer}
    (row,) = written.load(tmp_path, {"messages": [prompt, said]}, loader=load_demonstrations).rows
    pair = {"prompt": [prompt], "chosen": [said], "rejected": [{**said, "content": "No."}]}
    (ranking,) = written.load(tmp_path, pair, loader=load_rankings).rows
    trained = []
    for tokenise, rows in ((tokenise_demonstrations, [row]), (tokenise_pairs, [ranking])):
        (made,) = tokenise(rows, template, limit=1000).rows
        ids = made["chosen_ids"] if "chosen_ids" in made else [i for i in made["labels"] if i != -100]
        trained.append(template.tokenizer.decode(ids))
    return trained


def refusals(tmp_path, text, **given):
    """The errors of both stages; each names the file and the line."""
    template = Template(
        make_tokenizer(vocab_size=400, chat_template=template_of(given.pop("body", BODY).replace("TEXT", text)))
    )
    said = {"role": "assistant", "content": given.pop("answer", GIVEN)}
    (row,) = written.load(tmp_path, {"messages": [U, said]}, loader=load_demonstrations).rows
    with pytest.raises(DataError) as first:
        tokenise_demonstrations([row], template, limit=1000)
    pair = {"prompt": [U], "chosen": [said], "rejected": [{**said, "content": "No."}]}
    (ranking,) = written.load(tmp_path, pair, loader=load_rankings).rows
    with pytest.raises(DataError) as second:
        tokenise_pairs([ranking], template, limit=1000)
    assert "jsonl:1" in str(first.value)
    assert "jsonl:1" in str(second.value)
    return [str(first.value), str(second.value)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(m.content | e) if m.role == 'assistant' else m.content", "leaves out a part of the answer"),
        (
            "(m.content | replace('\\n', ' ')) if m.role == 'assistant' else m.content",
            "changes the white space inside the answer",
        ),
    ],
)
def test_a_template_that_changes_text_is_refused(tmp_path, text, words):
    for message in refusals(tmp_path, text):
        assert words in message


@pytest.mark.parametrize("text", ["m.content | e", "m.content | replace('\\n', ' ')"])
def test_a_template_that_changes_the_users_text_is_refused_before_any_row(text):
    with pytest.raises(DataError, match="changes the text of message 1, of the user: it escapes <, & or quotes, or"):
        Template(make_tokenizer(vocab_size=400, chat_template=template_of(BODY.replace("TEXT", text))))


@pytest.mark.parametrize(
    "text",
    [
        "m.content",
        "m.content | trim",
        "('<think>\\n\\n</think>\\n\\n' if m.role == 'assistant' else '') + m.content",
        "('<response>\\n' if m.role == 'assistant' else '') + m.content",
        "m.content + (' !' if m.role == 'assistant' else '')",
    ],
)
@pytest.mark.parametrize("answer", [GIVEN, "t", "e", "!", "im_end", " Four. "])
def test_marks_and_white_space_around_an_answer_are_not_change(tmp_path, text, answer, capsys):
    for trained in both(tmp_path, text, answer=answer):
        assert answer.strip() in trained
    assert "the chat template writes" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("('Answer: ' if m.role == 'assistant' else '') + m.content", "writes 'Answer:' before the answer"),
        ("m.content + (' [done]' if m.role == 'assistant' else '')", "writes '[done]' behind the answer"),
    ],
)
def test_words_around_answers_are_reported_once(tmp_path, text, words, capsys):
    say_once.cache_clear()
    both(tmp_path, text)
    error = capsys.readouterr().err
    assert error.count(words) == 1


def test_the_report_of_words_names_the_first_row_that_has_them(capsys):
    say_once.cache_clear()
    marked = "m.content + (' [done]' if 'two' in m.content else '')"
    template = Template(make_tokenizer(vocab_size=400, chat_template=template_of(BODY.replace("TEXT", marked))))
    rows = [Demonstration([U], answer, source=f"d:{place}") for place, answer in enumerate(("one", "two", "two"), 1)]
    first, others = AnswerTokens(template), AnswerTokens(template)
    for row in rows:
        others.demonstrations(row)
    first.add(others.counts())  # as a process gives them back
    first.tell()
    assert "d:2: the chat template writes '[done]' behind the answer 'two'" in capsys.readouterr().err
    first.demonstrations(rows[2])
    assert first.counts().added.startswith("d:2: ")
