"""The step `score`: by functions, reward models, judges and classifiers; what is kept; what a second run repeats."""

import re

import pytest
import torch

from alignment.config.schema.steps import step_entry
from alignment.data.prepare.score import Score, quantile_of
from alignment.errors import AlignmentError, BudgetError
from tests.calls.chat_server import ChatServer, completion, failure
from tests.prepare.running import Run, main, prepare, recipe_of, write_recipe

ROWS = [
    {"prompt": f"Q{number}", "completion": "x" * length, "topic": topic}
    for number, (length, topic) in enumerate([(3, "a"), (1, "a"), (4, "b"), (1, "b"), (5, "b"), (9, "a")])
]  # the scores of `length` are 3 1 4 1 5 9


def length(prompts, answers):
    return [len(answer) for answer in answers]


def by_topic(prompts, answers, topic):
    return [None if each == "a" else len(answer) for each, answer in zip(topic, answers, strict=True)]


def broken(prompts, answers):
    raise ValueError("no")


FUNCTION = {"kind": "function", "function": f"{__name__}:length"}


@pytest.mark.parametrize(
    ("keys", "kept", "reason"),
    [
        ({}, "314159", ""),
        ({"minimum": 4}, "459", "score below 4"),
        ({"maximum": 3}, "311", "score above 3"),
        ({"minimum": 3, "maximum": 5}, "345", ""),
        ({"quantile": 0.5}, "459", "score below the quantile 0.5"),  # the median of 1 1 3 4 5 9 is 3.5
        ({"top_k": 2}, "59", "not among the 2 best"),
        ({"top_k": 1, "per": "topic"}, "59", "not among the 1 best of its topic"),
    ],
)
def test_keeps_rows_by_their_scores_which_become_a_column(tmp_path, keys, kept, reason):
    run = prepare(tmp_path, ROWS, {"kind": "score", "scorer": FUNCTION, **keys})
    assert "".join(str(int(row["score"])) for row in run.rows()) == kept
    assert [len(row["completion"]) for row in run.rows()] == [int(score) for score in kept]
    if reason:
        assert {row["reason"] for row in run.dropped} == {reason}
        assert len(run.dropped) == 6 - len(kept)


def test_of_equal_scores_the_first_stay(tmp_path):
    rows = [{"prompt": f"Q{number}", "completion": "same"} for number in range(5)]
    run = prepare(tmp_path, rows, {"kind": "score", "scorer": FUNCTION, "top_k": 2})
    assert [row["prompt"] for row in run.rows()] == ["Q0", "Q1"]


def test_a_function_reads_columns_and_rows_without_a_score_are_dropped_by_a_rule(tmp_path):
    scorer = {"kind": "function", "function": f"{__name__}:by_topic"}
    run = prepare(tmp_path, ROWS, {"kind": "score", "scorer": scorer, "minimum": 2, "column": "rating"})
    assert [row["rating"] for row in run.rows()] == [4, 5]
    assert sorted(row["reason"] for row in run.dropped) == ["no score"] * 3 + ["score below 2"]
    assert run.steps()[0]["findings"]["without_score"] == 3


def test_quantiles_are_interpolated():
    assert [quantile_of([1, 2, 4], q) for q in (0, 0.25, 0.5, 1)] == [1, 1.5, 2, 4]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "score needs scorer or classifier, one of them"),
        ({"scorer": FUNCTION, "minimum": 3, "maximum": 2}, "minimum: 3 is above maximum 2"),
        ({"scorer": FUNCTION, "minimum": 3, "top_k": 2}, "both choose rows"),
        ({"scorer": FUNCTION, "per": "topic"}, "has no effect without top_k"),
        ({"scorer": FUNCTION, "quantile": 1.5}, "quantile"),
        ({"scorer": FUNCTION, "top_k": 0}, "top_k"),
        ({"scorer": {"kind": "function", "function": f"{__name__}:broken"}}, "raised ValueError: no"),
        ({"scorer": {"kind": "function", "function": f"{__name__}:absent"}}, "absent"),
        ({"scorer": FUNCTION, "column": "topic"}, "has a column topic; give column another name"),
        ({"scorer": {"kind": "reward_model", "model_name_or_path": "/absent"}}, "/absent"),
    ],
)
def test_refuses_before_anything_is_written(tmp_path, keys, told):
    with pytest.raises(AlignmentError) as error:
        prepare(tmp_path, ROWS, {"kind": "score", **keys})
    assert told in str(error.value)
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_budget_of_zero_is_refused(tmp_path):
    for name in ("max_calls", "max_cost"):
        with pytest.raises(AlignmentError, match=name) as error:
            recipe_of(tmp_path, ROWS, {"kind": "score", "scorer": FUNCTION}, **{name: 0})
        assert error.value.exit_code == 2
    with pytest.raises(AlignmentError, match="no scorer is of kind judge"):
        recipe_of(tmp_path, ROWS, {"kind": "score", "scorer": FUNCTION}, max_calls=3)


def judge(url):
    options = {"max_retries": 0, "timeout_seconds": 5.0, "logprobs": False}
    return {"kind": "judge", "judge": {"kind": "openai", "model": "toy", "base_url": url, **options}}


def test_a_judge_s_calls_are_stored_and_no_answer_is_judged_twice(tmp_path):
    def rated(prompt, n):
        return completion(str(len(re.search(r"<answer-(\w+)>\n(.*?)\n</answer-\1>", prompt, re.DOTALL)[2])))

    with ChatServer(rated) as server:
        step = {"kind": "score", "scorer": judge(server.url), "minimum": 3}
        words = write_recipe(tmp_path, ROWS, step, max_calls=4)
        with pytest.raises(BudgetError, match="max_calls"):
            main(words)
        asked = len(server.prompts)
        assert asked <= 4
        main([*words, "--max_calls", "100"])
        assert [row["score"] for row in Run(tmp_path / "run").rows()] == [3, 4, 5, 9]
        assert set(server.answered.values()) == {1}  # six different questions, each once, over both runs
        assert len(server.answered) == 6
        assert Run(tmp_path / "run").manifest["results"]["usage"]["calls"] == 6


def test_an_answer_that_a_judge_does_not_rate_has_no_score(tmp_path):
    with ChatServer(lambda prompt, n: completion("7" if "xxxxx" in prompt else "I will not say.")) as server:
        run = prepare(tmp_path, ROWS, {"kind": "score", "scorer": judge(server.url), "minimum": 0})
    assert [row["score"] for row in run.rows()] == [7, 7]
    assert {row["reason"] for row in run.dropped} == {"no score"}


def test_a_judge_that_fails_ends_the_run(tmp_path):
    with ChatServer(lambda prompt, n: failure(500)) as server, pytest.raises(AlignmentError, match="failed"):
        prepare(tmp_path, ROWS, {"kind": "score", "scorer": judge(server.url)})


def test_a_reward_model_scores_as_it_does_in_training(tmp_path):
    from reward.models.scoring import RewardScorer
    from tests.models import make_model, make_tokenizer

    from transformers import LlamaForSequenceClassification  # isort: skip

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = make_model(tokenizer).config
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    scorer = {"kind": "reward_model", "model_name_or_path": str(tmp_path / "reward")}
    run = prepare(tmp_path, ROWS, {"kind": "score", "scorer": scorer, "top_k": 3})
    expected = RewardScorer.load(str(tmp_path / "reward")).score(
        [row["prompt"] for row in ROWS], [row["completion"] for row in ROWS]
    )
    best = sorted(range(6), key=lambda place: -expected[place])[:3]
    assert [row["prompt"] for row in run.rows()] == [f"Q{place}" for place in sorted(best)]
    assert [row["score"] for row in run.rows()] == pytest.approx([expected[place] for place in sorted(best)])


def test_a_text_classifier_gives_the_probability_of_a_label(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = {"[UNK]": 0, "good": 1}
    tokens = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="[UNK]", pad_token="[UNK]", model_max_length=8)
    wrapped.save_pretrained(tmp_path / "model")
    torch.manual_seed(1)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=2, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, id2label={0: "neg", 1: "pos"},
    )).eval()  # fmt: skip
    model.save_pretrained(tmp_path / "model")
    rows = [{"text": "good"}, {"text": "bad " * 20}, {"text": "good good"}]
    classifier = {"model_name_or_path": str(tmp_path / "model"), "label": "pos"}
    run = prepare(tmp_path, rows, {"kind": "score", "classifier": classifier})
    with torch.no_grad():
        alone = [model(torch.tensor([ids])).logits.softmax(-1)[0, 1].item() for ids in ([1], [0] * 8, [1, 1])]
    assert [row["score"] for row in run.rows()] == pytest.approx(alone, abs=1e-6)
    assert run.steps()[0]["findings"]["cut_off"] == 1
    with pytest.raises(AlignmentError, match="has no label good; it has neg, pos"):
        Score(step_entry(kind="score", classifier={**classifier, "label": "good"}), None)


def test_rows_with_several_answers_have_no_one_score(tmp_path):
    pair = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    with pytest.raises(AlignmentError, match="reads rows with one answer; the layout preference"):
        prepare(tmp_path, [pair, pair], {"kind": "score", "scorer": FUNCTION})
    assert not (tmp_path / "run").exists()
