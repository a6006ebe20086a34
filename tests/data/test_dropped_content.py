"""Content under names that look like labels, and marks that turn a row around, are refused and not dropped."""

import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.errors import DataError

ROW = {"prompt": "Why?", "completion": "So."}
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": name, "arguments": {}}} for name in ("f", "g")],
}


def load(tmp_path, row, loader=load_demonstrations):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return loader([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0).rows


@pytest.mark.parametrize("key", ["image_path", "image_url", "images_paths", "audio_path", "video_file", "picture_name"])
def test_media_are_refused_under_names_of_paths(tmp_path, key):
    with pytest.raises(DataError, match=f"{key}.*Only text is supported"):
        load(tmp_path, {**ROW, key: "a.png"})
    with pytest.raises(DataError, match=key):
        load(tmp_path, {"messages": [{**U, key: "a.png"}, A]})


@pytest.mark.parametrize("key", ["thumbs_down", "undesirable", "is_bad", "is_good", "flipped"])
@pytest.mark.parametrize("value", [True, False, "false"])
def test_marks_of_good_and_bad_answers_are_refused(tmp_path, key, value):
    with pytest.raises(DataError, match=key):
        load(tmp_path, {**ROW, key: value})
    with pytest.raises(DataError, match=key):
        load(tmp_path, {**PAIR, key: value}, load_rankings)


def test_further_turns_are_refused_and_their_number_is_not(tmp_path):
    with pytest.raises(DataError, match="turns"):
        load(tmp_path, {"prompt": "Write.", "turns": ["Write a haiku.", "Now make it rhyme."]}, load_prompts)
    assert load(tmp_path, {**ROW, "turns": 2})


@pytest.mark.parametrize("key", ["source_text", "source", "origin", "subject", "revision", "file", "model_answer", ""])
def test_sentences_under_names_of_labels_are_refused_and_labels_are_not(tmp_path, key):
    with pytest.raises(DataError, match=f"not read '{key}'|'{key}'.*not read"):
        load(tmp_path, {**ROW, key: "Guten Tag, wie geht es Ihnen?"})
    with pytest.raises(DataError, match=f"not read '{key}'|'{key}'.*not read"):
        load(tmp_path, {"messages": [U, {**A, key: "Guten Tag, wie geht es Ihnen?"}]})
    assert load(tmp_path, {**ROW, key: "flan_v2"})


@pytest.mark.parametrize("kind", ["thinking", "reasoning"])
def test_a_message_that_is_a_thought_is_refused(tmp_path, kind):
    with pytest.raises(DataError, match="type"):
        load(tmp_path, {"messages": [U, {**A, "type": kind}, A]})
    assert load(tmp_path, {"messages": [U, {**A, "type": "message"}]})


@pytest.mark.parametrize(("user", "assistant"), [("User", "Assistant"), ("### Human", "### Assistant")])
def test_transcripts_that_go_on_after_the_answers_part_are_refused(tmp_path, user, assistant):
    start = f"{user}: q\n\n{assistant}:"
    chosen = f"{start} good\n\n{user}: more\n\n{assistant}: yes"
    with pytest.raises(DataError, match=r"'chosen' goes on with .* behind the place where the answers part"):
        load(tmp_path, {"chosen": chosen, "rejected": f"{start} bad"}, load_rankings)
    assert load(tmp_path, {"chosen": f"{start} good", "rejected": f"{start} bad"}, load_rankings)


def test_results_without_ids_are_in_the_order_of_the_calls(tmp_path):
    def conversation(*names):
        results = [{"role": "tool", "name": name, "content": name.upper()} for name in names]
        return {"messages": [U, CALL, *results, A]}

    assert load(tmp_path, conversation("f", "g"))
    with pytest.raises(DataError, match="the results behind it are of 'g', 'f', where the calls are of 'f', 'g'"):
        load(tmp_path, conversation("g", "f"))
