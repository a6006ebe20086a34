"""Data sets of the `datasets` library open no files and no addresses but their own."""

import json

import datasets
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import hub
from alignment.data.hub import load_hub_rows, load_saved_rows
from alignment.errors import DataError


def saved(path, **columns):
    datasets.Dataset.from_dict({"prompt": ["a"], **columns}).save_to_disk(path)
    return path


def test_texts_and_numbers_are_read(tmp_path):
    rows, fingerprint = load_saved_rows(saved(tmp_path / "d", scores=[[1.0, 2.0]], messages=[[{"role": "user"}]]))
    assert rows == [{"prompt": "a", "scores": [1.0, 2.0], "messages": [{"role": "user"}]}]
    assert fingerprint


@pytest.mark.parametrize("kind", ["Image", "Audio", "Video", "Pdf"])
def test_a_column_that_would_open_files_is_refused(tmp_path, kind):
    folder = saved(tmp_path / "d", more=[{"path": "/etc/hostname", "bytes": None}])
    file = folder / "dataset_info.json"
    info = json.loads(file.read_text())
    info["features"]["more"] = {"_type": kind}
    file.write_text(json.dumps(info))
    with pytest.raises(DataError, match=f"column more holds {kind}|is not a readable saved data set"):
        load_saved_rows(folder)


@pytest.mark.parametrize(
    "name", ["../other/data.arrow", "/etc/passwd", "http://localhost/x.arrow", "state.json", 3, None]
)
def test_rows_come_from_files_of_the_folder(tmp_path, name):
    folder = saved(tmp_path / "d")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match=r"state\.json: _data_files names .*, which is not an Arrow file beside it"):
        load_saved_rows(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"_data_files": 3}', "[" * 100_000])
def test_a_damaged_state_is_refused(tmp_path, content):
    folder = saved(tmp_path / "d")
    (folder / "state.json").write_text(content)
    with pytest.raises(DataError, match="is not a readable saved data set") as refused:
        load_saved_rows(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("files", ["http://127.0.0.1:9/x.json", "/etc/passwd", "../x.json", {"train": ["~/x.json"]}])
def test_a_card_on_the_hub_names_files_of_its_repository(tmp_path, monkeypatch, files):
    card = tmp_path / "README.md"
    card.write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {json.dumps(files)}\n---\nSee http://x.y.\n")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(card))
    with pytest.raises(
        DataError, match=r"owner/data: its card names .*; a data set's files are those of its repository"
    ):
        load_hub_rows(DatasetEntry(path="owner/data"))


def test_a_data_set_on_the_hub_with_files_of_its_own_is_read(tmp_path, monkeypatch):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\nconfigs:\n- data_files: data/*.json\n---\nSee http://x.y.\n")
    loaded = datasets.Dataset.from_dict({"prompt": ["a"]})
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(card))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    assert load_hub_rows(DatasetEntry(path="owner/data"))[0] == [{"prompt": "a"}]
    assert hub.PLAIN.isdisjoint({"Image", "Audio"})
