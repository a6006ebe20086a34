"""Folders as `datasets` and the Hub write them: each split and configuration is read alone, or named in a refusal."""

import json
from pathlib import Path

import datasets
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations
from alignment.errors import DataError


def write(path, *answers):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": "q", "completion": answer}) + "\n" for answer in answers))


def read(path: Path, **keys):
    loaded = load_demonstrations([DatasetEntry(path=str(path), **keys)], on_bad_row="stop", seed=0)
    return [row.completion for row in loaded.rows]


def test_shards_of_several_training_splits_are_several_splits(tmp_path):
    for split in ("train_sft", "train_gen", "test_sft"):
        write(tmp_path / f"data/{split}-00000-of-00002.jsonl", f"{split} 0")
        write(tmp_path / f"data/{split}-00001-of-00002.jsonl", f"{split} 1")
    assert read(tmp_path, split="train_sft") == ["train_sft 0", "train_sft 1"]
    assert read(tmp_path, split="train_gen[1:]") == ["train_gen 1"]
    with pytest.raises(DataError, match=r"has no split 'train'; .* file names give test_sft, train_gen, train_sft"):
        read(tmp_path)


def test_shards_are_parts_of_one_split(tmp_path):
    write(tmp_path / "train-00000-of-00002.jsonl", "a")
    write(tmp_path / "train-00001-of-00002.jsonl", "b")
    write(tmp_path / "train_more-00000-of-00001.jsonl", "c")
    assert read(tmp_path) == ["a", "b"]
    write(tmp_path / "parts/part-00000-of-00002.jsonl", "a")
    write(tmp_path / "parts/part-00001-of-00002.jsonl", "b")
    assert read(tmp_path / "parts") == ["a", "b"]


def test_splits_in_data_have_any_name(tmp_path):
    write(tmp_path / "data/en-00000-of-00001.jsonl", "yes")
    assert read(tmp_path) == ["yes"]
    write(tmp_path / "data/de-00000-of-00001.jsonl", "ja")
    assert read(tmp_path, split="de") == ["ja"]
    with pytest.raises(DataError, match=r"has no split 'train'; .* file names give de, en"):
        read(tmp_path)


CARD = """---
license: mit
configs:
- config_name: all
  data_files:
  - split: train
    path: all/train-*
  - split: gold
    path: [all/gold-*]
- config_name: some
  data_files: some/*.jsonl
---
See https://example.org.
"""


def with_card(folder, card=CARD):
    (folder / "README.md").write_text(card)
    write(folder / "all/train-1.jsonl", "a", "b")
    write(folder / "all/gold-1.jsonl", "g")
    write(folder / "some/x.jsonl", "a")


def test_a_card_with_several_configurations_needs_a_name(tmp_path):
    with_card(tmp_path)
    with pytest.raises(DataError, match=r"holds the configurations all, some of its README\.md, which may share rows"):
        read(tmp_path)
    assert read(tmp_path, name="all") == ["a", "b"]
    assert read(tmp_path, name="all", split="gold") == ["g"]
    assert read(tmp_path, name="some") == ["a"]
    with pytest.raises(DataError, match=r"has no split 'gold'; .* file names give train"):
        read(tmp_path, name="some", split="gold")
    assert read(tmp_path, data_files="some/*") == ["a"]
    assert read(tmp_path, data_dir="some") == ["a"]


@pytest.mark.parametrize("mark", ["default: true\n  ", ""])
def test_a_default_configuration_is_taken(tmp_path, mark):
    card = CARD.replace("config_name: all", f"{mark}config_name: {'all' if mark else 'default'}")
    with_card(tmp_path, card)
    assert read(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    "card",
    [
        "# Notes\n---\nconfigs:\n",
        "---\nno end",
        "---\nconfigs: [{config_name: a, data_files: elsewhere/*}, {config_name: b, data_files: [{path: 1}]}]\n---\n",
        "---\nconfigs: 1\n---\n",
    ],
)
def test_a_readme_without_configurations_of_these_files_is_none(tmp_path, card):
    with_card(tmp_path, card)
    assert read(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("---\nconfigs: [{config_name: a, data_files: all/*}, {config_name: b}\n---\n", "its head is no YAML"),
        ("---\n# " + "x" * 2**18, "its head has more than 262,144 bytes"),
        ("---\nconfigs: [{config_name: a, data_files: ../*}]\n---\n", "names '../\\*', which is outside"),
        ("---\nconfigs: [{config_name: a, data_files: /etc/*}]\n---\n", "names '/etc/\\*', which is outside"),
        ("---\nconfigs: [{config_name: a, data_dir: ../out}]\n---\n", "names '../out.*', which is outside"),
        (
            "---\nconfigs: [{config_name: a, data_files: [all/*, gone.jsonl]}]\n---\n",
            "names 'gone.jsonl' for the split 'train', and no data file matches it",
        ),
    ],
)
def test_a_card_that_cannot_be_followed_is_refused(tmp_path, card, words):
    folder = tmp_path / "data"
    folder.mkdir()
    with_card(folder, card)
    write(tmp_path / "out/secret.jsonl", "secret")
    with pytest.raises(DataError, match=words):
        read(folder)


def test_a_configuration_named_by_a_recipe_stays_inside_its_folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with_card(
        folder, "---\nconfigs: [{config_name: one, data_files: all/*}, {config_name: two, data_dir: ../out}]\n---\n"
    )
    write(tmp_path / "out/secret.jsonl", "secret")
    with pytest.raises(DataError, match=r"names '\.\./out.*', which is outside the folder"):
        read(folder, name="two")


def test_two_stars_at_the_end_match_files(tmp_path):
    with_card(tmp_path, "---\nconfigs: [{config_name: a, data_files: all/**}]\n---\n")
    write(tmp_path / "other.jsonl", "c")
    assert read(tmp_path) == ["g", "a", "b"]


@pytest.mark.parametrize(
    ("stage", "status", "words"),
    [
        ("label", "running", r"an interrupted run of stage label and has no labels\.jsonl yet; run `alignment label`"),
        ("label", "finished", "a run of stage label, which holds no data"),
        ("reward", "finished", "a run of stage reward, which holds no data"),
    ],
)
def test_a_run_without_labels_is_not_data(tmp_path, stage, status, words):
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": stage, "status": status, "recipe_sha256": "0a"}))
    with pytest.raises(DataError, match=words):
        read(tmp_path)


def test_notes_of_libraries_next_to_data_are_not_rows(tmp_path):
    write(tmp_path / "mine.jsonl", "a")
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.jsonl"}}')
    assert read(tmp_path) == ["a"]


def saved(folder):
    train, test = (datasets.Dataset.from_list([{"prompt": "q", "completion": answer}]) for answer in "ab")
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(folder))
    return folder


def test_splits_that_datasets_saved_are_read_by_name(tmp_path):
    folder = saved(tmp_path / "saved")
    assert read(folder) == ["a"]
    assert read(folder, split="test[:1]") == ["b"]
    assert read(folder / "test") == read(folder / "test", split="test") == ["b"]
    with pytest.raises(DataError, match=r"has no split 'validation'; set split to one of test, train\."):
        read(folder, split="validation")
    with pytest.raises(DataError, match="is one saved data set, so name has no meaning there"):
        read(folder, name="en")


def test_a_split_that_a_file_does_not_have_is_refused(tmp_path):
    write(tmp_path / "data.jsonl", "a")
    write(tmp_path / "test.jsonl", "b")
    saved(tmp_path / "saved")
    for keys in (
        {"path": tmp_path / "data.jsonl"},
        {"path": tmp_path, "data_files": "data.jsonl"},
        {"path": "json", "data_files": str(tmp_path / "data.jsonl")},
        {"path": tmp_path / "saved/train"},
    ):
        with pytest.raises(DataError, match="has no split 'test': it is one file or one split"):
            read(**keys, split="test")
        assert read(**keys, split="train[:1]") == ["a"]
    assert read(tmp_path / "test.jsonl", split="test") == read(tmp_path / "test.jsonl") == ["b"]
    assert read(tmp_path / "test.jsonl", split="eval") == ["b"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.jsonl", "old/a.jsonl"], "'a.jsonl', 'old/a.jsonl' and 'old/a.jsonl' looks like an old file or a copy"),
        (["train.jsonl", "train_backup.jsonl"], "'train_backup.jsonl' looks like an old file or a copy"),
        (["train/a.jsonl", "archive/train/a.jsonl"], "looks like an old file or a copy"),
        (["en/a.jsonl", "de/a.jsonl"], "'de/a.jsonl', 'en/a.jsonl' in several folders, which may share rows"),
        (["a.jsonl", "v2/a.jsonl"], "'a.jsonl', 'v2/a.jsonl' in several folders"),
        (["all/train.jsonl", "small/train.jsonl"], "in several folders"),
        (["train_sft/a.jsonl", "train_gen/a.jsonl"], "in several folders"),
        (["train.jsonl", "train.json"], "'train.json', 'train.jsonl' of one name, which may hold the same rows"),
        (["a.jsonl", "a.csv"], "'a.csv', 'a.jsonl' of one name"),
    ],
)
def test_files_that_may_share_rows_are_refused(tmp_path, files, found):
    for number, file in enumerate(files):
        write(tmp_path / file, str(number))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert found in str(caught.value)
    assert "Name those to read with data_files, or one folder with data_dir." in str(caught.value)
    assert read(tmp_path, data_files=files[0]) == ["0"]


@pytest.mark.parametrize(
    "files",
    [
        ["train/a.jsonl", "test/a.jsonl", "old/a.jsonl"],
        ["part-0/a.jsonl", "part-1/a.jsonl"],
        ["2023-01/a.jsonl", "2023-02/a.jsonl"],
        ["a.jsonl", "b.jsonl"],
        ["a.jsonl", "notes.txt"],
        ["old_english.jsonl"],
        ["archive/a.jsonl", "archive/b.jsonl"],
    ],
)
def test_files_of_one_data_set_are_read_together(tmp_path, files):
    for number, file in enumerate(files):
        write(tmp_path / file, f"{file} {number}")
    wanted = [f"{file} {number}" for number, file in enumerate(files) if not file.startswith(("test", "old/", "notes"))]
    assert read(tmp_path) == wanted


def test_copies_in_one_folder_are_refused(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, "same")
    with pytest.raises(DataError, match=r"a\.jsonl and .*b\.jsonl have the same content\. Name those to read"):
        read(tmp_path)
    assert read(tmp_path, data_files="b.jsonl") == ["same"]
