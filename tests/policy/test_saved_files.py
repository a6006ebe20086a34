"""A model that was changed after it was saved is not loaded."""

import json
import shutil

import pytest

from alignment.errors import ModelError
from alignment.policy.model_source import resolve_model
from alignment.policy.saved_files import WHOLE, file_hash, mark_of, read_mark


@pytest.fixture
def saved(tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    names = [file.name for file in folder.iterdir() if file.is_file()]
    (folder / WHOLE).write_text(json.dumps(mark_of(folder, names)))
    return folder


def flip_last(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_hash_is_that_of_the_reference_implementation(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert file_hash(tmp_path / "empty") == "99aa06d3014798d86001c324468d497f"  # XXH3_128bits of nothing, xxHash 0.8.2


def test_one_byte_of_the_weights_is_noticed(saved):
    assert resolve_model(str(saved)).base == str(saved)
    flip_last(saved / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"model.safetensors holds other bytes than were saved: .* delete .*whole.json"
    ):
        resolve_model(str(saved))
    (saved / WHOLE).unlink()
    assert resolve_model(str(saved)).base == str(saved)


def test_configurations_may_be_edited(saved):
    (saved / "config.json").write_text((saved / "config.json").read_text() + "\n")
    assert resolve_model(str(saved)).base == str(saved)
    assert "config.json" in read_mark(saved).files


@pytest.mark.parametrize("mark", ["{", "[]", "7", '{"files": 1}', '{"files": {"model.safetensors": {"bytes": "1"}}}'])
def test_an_odd_mark_is_named(saved, mark):
    (saved / WHOLE).write_text(mark)
    with pytest.raises(ModelError, match=r"whole.json cannot be read as this project writes it"):
        resolve_model(str(saved))


def test_one_process_of_a_machine_reads_the_bytes(saved, monkeypatch):
    flip_last(saved / "model.safetensors")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_model(str(saved)).base == str(saved)
