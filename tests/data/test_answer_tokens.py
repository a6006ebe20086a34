"""Sampled answers train on the tokens that were sampled; they are rendered where tokenizer or template differ."""

import json
from typing import Any

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_rankings
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.rankings import ranking_from_json
from alignment.data.sampled import KEY, Recorder
from alignment.data.template import IGNORE, Template
from alignment.errors import DataError
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from reward.models.batches import encode_rankings
from tests.models import CHAT_TEMPLATE, make_tokenizer

PROMPT = [{"role": "user", "content": "What is the name of your friend?"}]
EMPTY_THOUGHT = CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' and loop.last and '</think>' not in message['content'] %}<think>\n\n</think>"
    "\n\n{% endif %}{{ message['content'] }}",
)
DATED = "{{ '<|im_start|>system\n' + strftime_now('%H:%M:%S.%f') + '<|im_end|>\n' }}" + CHAT_TEMPLATE


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(make_tokenizer())


def bytewise(template: Template, text: str) -> list[int]:
    """Spell a text byte by byte, as a policy may and its tokenizer never does."""
    return [token for byte in text for token in template.tokenizer(byte, add_special_tokens=False)["input_ids"]]


def sampled(template: Template, answers: list[list[int]], *, prompt: Any = PROMPT) -> dict[str, Any]:
    """A row of `labels.jsonl` for two answers of these ids, as the labeler writes it; the first is the better one."""
    prompt_ids = template.prompt_ids(prompt)
    stopped = [ids[-1] in template.stop_token_ids for ids in answers]
    texts = [
        template.answer_text(prompt_ids, ids[: -1 if stop else None])
        for ids, stop in zip(answers, stopped, strict=True)
    ]
    record = Recorder(template).record(prompt, prompt_ids, answers)
    provenance = {"source": "judge", "judge": "j", "stopped": stopped, KEY: [record]}
    pairs = [{"first": 0, "second": 1, "probability": 0.9}]
    return {"prompt": prompt, "responses": texts, "pairs": pairs, "provenance": provenance}


def trained(template: Template, tmp_path: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What every stage trains on: context and answers of DPO and reward, context and trained tokens of SFT."""
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row) + "\n")
    entries = [DatasetEntry(path=str(path))]
    rankings = load_rankings(entries, on_bad_row="stop", seed=0).rows
    (pair,) = tokenise_pairs(rankings, template, limit=1000).rows
    (whole,) = encode_rankings(rankings, template, max_length=None).rows
    demonstrations = load_demonstrations(entries, on_bad_row="stop", seed=0).rows
    (fitted,) = tokenise_demonstrations(demonstrations, template, limit=1000).rows
    context = pair["prompt_ids"]
    found = {
        "dpo": [pair["chosen_ids"], pair["rejected_ids"]],
        "reward": [ids[len(context) :] for ids in whole.input_ids],
        "sft": [label for label in fitted["labels"] if label != IGNORE],
    }
    assert all(ids[: len(context)] == context for ids in [*whole.input_ids, fitted["input_ids"]])
    assert [len(ids) for ids in found["reward"]] == whole.answer_tokens
    return {**found, "context": context}


def test_every_stage_trains_on_the_tokens_that_were_sampled(
    template: Template, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    half = template.tokenizer("é", add_special_tokens=False)["input_ids"][0]  # of a character of two bytes
    answers = [
        [*bytewise(template, " the fox"), template.stop_token_ids[0]],
        [*bytewise(template, "the"), half],  # cut off within a character
    ]
    row = sampled(template, answers)
    assert row["responses"] == [" the fox", "the\N{REPLACEMENT CHARACTER}"]
    assert template.answer_ids(PROMPT, " the fox") != answers[0]
    assert template.answer_ids(PROMPT, row["responses"][1], stop=False) != answers[1]
    found = trained(template, tmp_path, row)
    assert found["dpo"] == found["reward"] == answers
    assert found["sft"] == answers[0]
    assert found["context"] == template.prompt_ids(PROMPT)
    assert "rendered" not in capsys.readouterr().err


def test_special_tokens_within_an_answer_are_trained(template: Template, tmp_path: Any) -> None:
    start = template.tokenizer.convert_tokens_to_ids("<|im_start|>")
    answers = [[*bytewise(template, "a"), start, template.stop_token_ids[0]], bytewise(template, "b")]
    row = sampled(template, answers)
    assert row["responses"] == ["a", "b"]  # text has no special tokens
    assert trained(template, tmp_path, row)["dpo"] == answers


@pytest.mark.parametrize("text_prompt", [False, True])
def test_an_answer_that_was_cut_off_teaches_no_stop_token(
    template: Template, tmp_path: Any, *, text_prompt: bool
) -> None:
    prompt = "Tell me a story" if text_prompt else PROMPT
    answers = [bytewise(template, " the fox"), [*bytewise(template, " a dog"), 1]]
    row = sampled(template, answers, prompt=prompt)
    found = trained(template, tmp_path, row)
    assert (found["dpo"], found["sft"]) == (answers, answers[0])
    del row["provenance"][KEY]  # of an earlier release
    found = trained(template, tmp_path, row)
    for stage in ("dpo", "reward"):
        assert [ids[-1] in template.stop_token_ids for ids in found[stage]] == [False, True]
    assert not set(found["sft"]) & set(template.stop_token_ids)
    assert template.tokenizer.decode(found["sft"]) == " the fox"


def test_an_answer_trains_the_stop_token_that_it_ended_with(tmp_path: Any) -> None:
    template = Template(make_tokenizer(), eos_token=".")
    stops = template.stop_token_ids
    assert len(stops) > 1
    answers = [[*bytewise(template, "a"), stops[1]], [*bytewise(template, "b"), stops[0]]]
    found = trained(template, tmp_path, sampled(template, answers))
    assert found["dpo"] == found["reward"] == answers
    assert found["sft"] == answers[0]


def test_an_empty_thought_that_the_template_writes_is_not_trained(tmp_path: Any) -> None:
    template = Template(make_tokenizer(chat_template=EMPTY_THOUGHT))
    assert "<think>" in template.tokenizer.decode(template.answer_ids(PROMPT, "a fox"))
    answers = [[*template.tokenizer(text)["input_ids"], template.stop_token_ids[0]] for text in ("a fox", "a dog")]
    found = trained(template, tmp_path, sampled(template, answers))
    assert found["dpo"] == found["reward"] == answers
    assert found["sft"] == answers[0]


def test_an_answer_that_is_rendered_anew_gets_no_empty_thought(template: Template, tmp_path: Any) -> None:
    reader = Template(make_tokenizer(chat_template=EMPTY_THOUGHT))
    texts = ["a fox", "<think>\nhm\n</think>\n\na dog"]
    answers = [[*template.tokenizer(text)["input_ids"], template.stop_token_ids[0]] for text in texts]
    found = trained(reader, tmp_path, sampled(template, answers))
    assert [reader.tokenizer.decode(ids) for ids in found["dpo"]] == [f"{text}<|im_end|>" for text in texts]
    assert found["reward"] == found["dpo"]
    assert found["sft"] == found["dpo"][0]


def test_an_answer_that_ends_in_the_padding_token_is_named(template: Template, tmp_path: Any) -> None:
    answers = [[*bytewise(template, "a"), template.tokenizer.pad_token_id], [*bytewise(template, "b"), 1]]
    with pytest.raises(DataError, match="jsonl:1: answer 1 of 2: an answer ends in the reward model's padding token"):
        trained(template, tmp_path, sampled(template, answers))


def test_earlier_answers_of_the_prompt_are_learned_beside_a_sampled_one(template: Template, tmp_path: Any) -> None:
    prompt = [*PROMPT, {"role": "assistant", "content": "a fox"}, {"role": "user", "content": "And yours?"}]
    answers = [[*bytewise(template, " the dog"), 1], [*bytewise(template, "cat"), 1]]
    found = trained(template, tmp_path, sampled(template, answers, prompt=prompt))
    assert found["sft"] == [*template.answer_ids(PROMPT, "a fox"), *answers[0]]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: Template(make_tokenizer(vocab_size=280)), "tokenizer"),
        (
            lambda: Template(make_tokenizer(chat_template=CHAT_TEMPLATE.replace("assistant\n", "assistant: "))),
            "chat template or stop tokens",
        ),
    ],
)
def test_another_tokenizer_or_template_renders_the_text_and_reports_it(
    template: Template, tmp_path: Any, capsys: pytest.CaptureFixture[str], other: Any, what: str
) -> None:
    answers = [[*bytewise(template, " the fox"), 1], bytewise(template, "the dog")]
    row = sampled(template, answers)
    reader = other()
    found = trained(reader, tmp_path, row)
    expected = [reader.answer_ids(PROMPT, " the fox"), reader.answer_ids(PROMPT, "the dog", stop=False)]
    assert found["dpo"] == found["reward"] == expected != answers
    assert found["context"] == reader.prompt_ids(PROMPT)
    message = f"rendered 2 of 2 sampled answers from their text: they were sampled with another {what}, so their tokens"
    assert message in capsys.readouterr().err


def test_the_context_is_the_one_that_the_answers_were_sampled_in(tmp_path: Any) -> None:
    template = Template(make_tokenizer(chat_template=DATED))
    row = sampled(template, [[*bytewise(template, "a"), 1], [*bytewise(template, "b"), 1]])
    context = row["provenance"][KEY][0]["prompt_ids"]
    assert template.prompt_ids(PROMPT) != context  # the clock has moved
    assert trained(template, tmp_path, row)["context"] == context


def test_a_changed_prompt_is_refused(template: Template, tmp_path: Any) -> None:
    row = sampled(template, [[*bytewise(template, "a"), 1], [*bytewise(template, "b"), 1]])
    row["prompt"] = [{"role": "user", "content": "What is the name of your dog?"}]
    with pytest.raises(DataError, match="jsonl:1: the prompt is not the one that its answers were sampled for"):
        trained(template, tmp_path, row)


def test_a_changed_text_is_refused(template: Template, tmp_path: Any) -> None:
    row = sampled(template, [[*bytewise(template, "a fox"), 1], [*bytewise(template, "b"), 1]])
    row["responses"][0] = "a dog"
    with pytest.raises(DataError, match="the answer 'a dog' is not the text of its sampled tokens, 'a fox'"):
        trained(template, tmp_path, row)


@pytest.mark.parametrize(
    ("stopped", "answer", "message"),
    [
        (False, [60, 1], "provenance.stopped is false and its sampled tokens have 1 stop tokens"),
        (True, [60], "provenance.stopped is true and its sampled tokens have 0 stop tokens"),
        (True, [60, 1, 61], "provenance.stopped is true and its sampled tokens have 1 stop tokens, not at their end"),
        (True, [300, 1], "has the token id 300 in prompt_ids and response_ids, and the tokenizer has 300 tokens"),
    ],
)
def test_ids_that_no_policy_sampled_are_refused(
    template: Template, tmp_path: Any, stopped: bool, answer: list[int], message: str
) -> None:
    row = sampled(template, [[*bytewise(template, "a"), 1], [*bytewise(template, "b"), 1]])
    row["provenance"]["stopped"][0] = stopped
    row["provenance"][KEY][0]["response_ids"][0] = answer
    with pytest.raises(DataError, match=message):
        trained(template, tmp_path, row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"response_ids": [[1]]},
            r"response_ids' is of length 1; it needs one list of ids for each of the 2 responses",
        ),
        ({"response_ids": [[1], "ab"]}, r"response_ids\[1\]' is text, not a list of token ids"),
        ({"response_ids": [[1], [1.5]]}, r"response_ids\[1\]' holds 1.5, which is not a token id"),
        ({"response_ids": [[1], [True]]}, r"holds True, which is not a token id|holds true, which is not a token id"),
        ({"response_ids": [[1], [-1]]}, "holds -1, which is not a token id"),
        ({"prompt_ids": [2**31]}, "prompt_ids' holds 2147483648, which is not a token id"),
        ({"tokenizer_sha256": 3}, "tokenizer_sha256' is a number, not the text of a hash"),
    ],
)
def test_a_record_of_another_shape_is_refused(
    template: Template, tmp_path: Any, change: dict[str, Any], message: str
) -> None:
    row = sampled(template, [[*bytewise(template, "a"), 1], [*bytewise(template, "b"), 1]])
    row["provenance"][KEY][0] |= change
    with pytest.raises(DataError, match=message):
        trained(template, tmp_path, row)


def test_equal_texts_of_different_tokens_are_not_a_pair(template: Template, tmp_path: Any) -> None:
    row = sampled(template, [[*bytewise(template, "the"), 1], [*template.tokenizer("the")["input_ids"], 1]])
    row["pairs"] = [{"first": 0, "second": 1, "probability": 0.5, "status": "tie"}]
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row) + "\n")
    rankings = load_rankings([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows
    assert tokenise_pairs(rankings, template, limit=1000).rows == []


def test_ids_beyond_the_tokenizer_are_not_recorded(template: Template) -> None:
    record = Recorder(template).record(PROMPT, [1], [[5], [5, 300]])
    assert record["response_ids"] == [[5], []]


def test_the_second_policys_tokens_are_read_where_the_first_used_another_tokenizer(template: Template) -> None:
    answers = [[*bytewise(template, "a fox"), 1], [*bytewise(template, "the dog"), 1]]
    row = sampled(template, answers)
    other = sampled(Template(make_tokenizer(vocab_size=280)), [[*answers[0]], [60, 1]])
    (ours,), (theirs,) = row["provenance"][KEY], other["provenance"][KEY]
    ours["response_ids"][0], theirs["response_ids"][1] = [], []
    row["provenance"][KEY] = [theirs, ours]
    tokens = AnswerTokens(template)
    ranking = ranking_from_json(row)
    assert tokens.answer_ids(ranking, 1) == answers[1]
    assert tokens.answer_ids(ranking, 0) == template.answer_ids(PROMPT, "a fox")
