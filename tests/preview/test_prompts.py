"""What a preview shows of stages that answer prompts: the prompt's tokens, and what the judge is asked."""

import json
import shutil
from typing import Any

import pytest
from transformers import AutoTokenizer

from alignment.cli.stages import preview_reader
from alignment.errors import AlignmentError
from alignment.preview.command import Preview, Refused, preview
from alignment.preview.page import write_page
from tests.calls.chat_server import fenced
from tests.models import CHAT_TEMPLATE

JUDGE: dict[str, Any] = {"kind": "openai", "model": "toy", "base_url": "http://127.0.0.1:9", "api_key_env": "MY_KEY"}
PROMPTS = [{"prompt": [{"role": "user", "content": f"Tell me about the {word}."}]} for word in ("fox", "dog", "cat")]
PPO = {"total_episodes": 4, "rollout_batch_size": 2, "max_new_tokens": 4, "per_device_train_batch_size": 2}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-test-0815-secret")


def lengths(prompts, answers):
    return [len(answer) for answer in answers]


def look(file: str) -> Preview:
    return preview(file, [], None, preview_reader)


def test_a_label_recipe_shows_the_prompt_and_what_the_judge_is_asked(recipe, tmp_path):
    found = look(recipe("label", PROMPTS, judge=JUDGE, num_generations=2, max_new_tokens=4)).to_json()
    row = found["rows"][1]
    assert row["segments"] == [
        {"text": "<|im_start|>user\nTell me about the dog.<|im_end|>\n<|im_start|>assistant\n", "trained": False}
    ]
    assert row["source"] == f"{tmp_path}/data.jsonl:2"
    asked = fenced(row["question"])
    assert "Tell me about the dog." in asked["request"]
    assert (asked["answer-A"][:9], asked["answer-B"][:9]) == ("(answer 1", "(answer 2")
    assert "sk-test" not in json.dumps(found)


def test_given_answers_stand_in_the_question_without_any_model(recipe):
    rows = [{"prompt": "Name a cat.", "responses": ["Tom", "I will not"]}]
    file = recipe("label", rows, judge=JUDGE, responses="given", model_name_or_path="")
    (row,) = look(file).to_json()["rows"]
    asked = fenced(row["question"])
    assert (asked["request"], asked["answer-A"], asked["answer-B"]) == ("Name a cat.", "Tom", "I will not")
    assert [part["text"] for part in row["segments"]] == ["Name a cat.", "Tom", "I will not"]


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ({"kind": "rules", "function": "operator:gt"}, "the function operator:gt compares the answers"),
        ({"kind": "jury", "members": [{**JUDGE, "name": "one"}, {**JUDGE, "name": "two"}]}, "two:\n"),
        ({**JUDGE, "asks": "listwise"}, "answer-B"),
        ({**JUDGE, "asks": "pointwise"}, "(answer 1"),
    ],
)
def test_every_kind_of_judge_has_a_question(judge, words, recipe):
    file = recipe("label", PROMPTS, judge=judge, num_generations=2, max_new_tokens=4)
    assert words in (look(file).rows[0].question or "")


def test_ppo_shows_its_prompts_and_the_question_of_a_judge_that_scores(recipe, tmp_path):
    scorers = [{"kind": "judge", "judge": JUDGE}]
    found = look(recipe("ppo", PROMPTS, scorers=scorers, **PPO))
    assert len(found.rows) == 3
    assert "(answer 1" in (found.rows[0].question or "")
    without = look(recipe("ppo", PROMPTS, scorers=[{"kind": "function", "function": f"{__name__}:lengths"}], **PPO))
    assert without.rows[0].question is None


def test_ppo_names_the_line_of_a_prompt_that_does_not_fit(recipe, tmp_path):
    keys = {"scorers": [{"kind": "function", "function": f"{__name__}:lengths"}], "max_prompt_length": 8, **PPO}
    rows = [{"prompt": "cat"}, {"prompt": "word " * 30}]
    with pytest.raises(Refused, match=r"data\.jsonl:2: prompt 2 .* max_prompt_length is 8"):
        look(recipe("ppo", rows, **keys))
    found = look(recipe("ppo", rows, on_bad_row="skip", **keys)).to_json()
    assert [one["source"] for one in found["skipped"]] == [f"{tmp_path}/data.jsonl:2"]
    assert [row["source"] for row in found["rows"]] == [f"{tmp_path}/data.jsonl:1"]


def test_prompts_of_a_split_and_a_sample_keep_their_lines(recipe, tmp_path):
    rows = [{"prompt": f"word {n % 7}"} for n in range(30)]
    keys = {
        "scorers": [{"kind": "function", "function": f"{__name__}:lengths"}],
        "max_samples": 20,
        "test_split_size": 0.3,
    }
    found = look(recipe("ppo", rows, **keys, **PPO)).to_json()["rows"]
    for row in found:
        line = int(row["source"].rpartition(":")[2])
        assert row["segments"][0]["text"] == rows[line - 1]["prompt"]
    assert len({row["source"] for row in found}) == len(found) > 5


def test_evaluate_shows_its_prompts_and_the_judges_question(recipe, tiny_model_dir):
    keys = {"candidates": [{"name": "dpo", "model_name_or_path": str(tiny_model_dir)}], "judges": [JUDGE]}
    found = look(recipe("evaluate", PROMPTS, **keys))
    assert len(found.rows) == 3
    assert "answer-A" in (found.rows[0].question or "")


def written_otherwise(tiny_model_dir, folder, chat_template):
    """The tiny model with another chat template, or none."""
    shutil.copytree(tiny_model_dir, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return str(folder)


def evaluated(recipe, candidates, **keys):
    named = [{"name": f"c{place}", "model_name_or_path": path} for place, path in enumerate(candidates)]
    return look(recipe("evaluate", PROMPTS, candidates=named, judges=[JUDGE], **keys))


def test_evaluate_shows_what_each_candidate_reads_where_it_differs(recipe, tiny_model_dir, tmp_path, capsys):
    other = written_otherwise(
        tiny_model_dir, tmp_path / "other", CHAT_TEMPLATE.replace("<|im_start|>", "<|im_start|>~")
    )
    found = evaluated(recipe, [str(tiny_model_dir), other])
    row = found.to_json()["rows"][0]
    asked = "<|im_start|>user\nTell me about the fox.<|im_end|>\n<|im_start|>assistant\n"
    assert row["segments"][0]["text"] == asked
    assert row["read_by"] == {"c1": asked.replace("<|im_start|>", "<|im_start|>~")}
    page = tmp_path / "page.html"
    write_page(page, "x", found.stage, found.rows, found.tokenizer, found.stops)
    assert "What c1 reads" in page.read_text()
    assert "read_by" not in evaluated(recipe, [other], chat_template="plain").to_json()["rows"][0]


def test_evaluate_refuses_candidates_as_the_run_does(recipe, tiny_model_dir, tmp_path):
    bare = written_otherwise(tiny_model_dir, tmp_path / "bare", None)
    for candidate, words in (
        (str(tmp_path / "absent"), "absent"),
        (bare, "the data holds chat messages and the tokenizer has no chat template"),
    ):
        with pytest.raises((Refused, AlignmentError), match=words):
            evaluated(recipe, [str(tiny_model_dir), candidate])
    with pytest.raises(Refused, match="is not a reward model"):
        evaluated(recipe, [str(tiny_model_dir)], reward_model_path=str(tiny_model_dir))
    with pytest.raises((Refused, AlignmentError), match=r"no\.txt"):
        evaluated(recipe, [str(tiny_model_dir)], perplexity_datasets=[{"path": str(tmp_path / "no.txt")}])


def test_no_key_is_needed_to_see_the_question_and_a_missing_prompt_file_is_refused(recipe, monkeypatch):
    monkeypatch.delenv("MY_KEY")
    keys = {"num_generations": 2, "max_new_tokens": 4}
    assert look(recipe("label", PROMPTS, judge=JUDGE, **keys)).rows[0].question
    with pytest.raises(Refused, match=r"judge\.prompt absent\.txt"):
        look(recipe("label", PROMPTS, judge={**JUDGE, "prompt": "absent.txt"}, **keys))
