"""Compared answers are written as fine-tuning writes them: reasoning and calls in the chat template's own forms."""

import json

import pytest

from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings, ranking_to_json
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.demonstrations import demonstration_of_best
from alignment.data.layouts import conversation
from alignment.data.preference_layouts import preference
from alignment.data.rows import Ranking
from alignment.data.sampled import of_answers
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.train.preference_pairs import tokenise_pairs
from reward.models.batches import encode_rankings
from reward.people.mixing import gather
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
    assert tokenizer.decode(AnswerTokens(template).answer_ids(ranking, 0)) == written + "<|im_end|>"
    rows = [template.demonstrations(row) for row in conversation("messages")({"messages": [U, given]})]
    assert rows == [template.demonstrations(demonstration_of_best(ranking, 0, "f:1"))]


def without_reasoning():
    tokenizer = make_tokenizer(chat_template=FORMS.replace("m.reasoning_content", "m.none"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return Template(tokenizer)


def test_a_template_without_a_place_for_reasoning_gets_the_text_as_it_is():
    template = without_reasoning()
    ids = template.answer_ids([U], "<think>\nhmm\n</think>\n\nYes.")
    assert template.tokenizer.decode(ids) == "<think>\nhmm\n</think>\n\nYes.<|im_end|>"


REASONED = answer("Yes.", reasoning_content="hmm")
PAIRS = [  # each layout of compared messages
    {"prompt": [U], "chosen": [REASONED], "rejected": [answer("No.")]},
    {"chosen": [U, REASONED], "rejected": [U, answer("No.")]},
    {"conversations": [U], "chosen": REASONED, "rejected": answer("No.")},
    {"messages": [U, REASONED], "rejected": answer("No.")},
]


def loaded(row, folder, load=load_rankings):
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return load([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0).rows


@pytest.mark.parametrize("row", PAIRS)
def test_every_stage_refuses_reasoning_that_the_template_cannot_write_with_the_same_message(row, tmp_path):
    template = without_reasoning()
    demonstrations = [*conversation("messages")({"messages": [U, REASONED]})]
    with pytest.raises(DataError) as caught:
        template.demonstrations(demonstrations[0])
    expected = str(caught.value)
    assert "has reasoning in a field of its own, and the chat template writes no reasoning; put it" in expected
    (pair,) = loaded(row, tmp_path)
    written = json.loads(json.dumps(ranking_to_json(pair)))
    for ranking in (pair, *loaded(written, tmp_path)):
        for make in (
            lambda of: tokenise_pairs([of], template, limit=100),
            lambda of: encode_rankings([of], template, max_length=100),
            lambda of: template.demonstrations(demonstration_of_best(of, 0, "f:1")),
        ):
            with pytest.raises(DataError) as caught:
                make(ranking)
            assert expected in str(caught.value)


def test_labels_keep_that_reasoning_had_a_field_of_its_own(tmp_path):
    (pair,) = loaded(PAIRS[0], tmp_path)
    sample = Sampled.of(0, pair)
    with CallStore(tmp_path / "calls.sqlite") as store:
        store.add_samples([sample])
        assert store.samples() == {0: sample}
    assert sample.of_answers()["reasoning_field"] == [True, False]
    (gathered,) = gather([Ranking([U], pair.responses[::-1], []), pair])
    assert gathered.of_answers()["reasoning_field"] == [False, True]
    assert of_answers(pair.provenance, [1, None, 0])["reasoning_field"] == [False, False, True]


@pytest.mark.parametrize("flags", [[True], ["yes", False], True])
def test_flags_of_answers_are_one_for_each(flags, tmp_path):
    (pair,) = loaded(PAIRS[0], tmp_path)
    row = {**ranking_to_json(pair), "provenance": {"reasoning_field": flags}}
    with pytest.raises(DataError, match=r"'provenance\.reasoning_field' is not a list of true and false for each"):
        loaded(row, tmp_path)


def test_tags_inside_of_reasoning_are_refused(tmp_path):
    given = answer("Yes.", reasoning_content="a </think> b")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 'chosen' has reasoning that holds <think> or </think>"):
        loaded({"prompt": [U], "chosen": [given], "rejected": [answer("No.")]}, tmp_path)
