"""A manifest that no run writes is refused with the field at fault; fields that no command reads may be anything."""

import json

import pytest

from alignment.errors import AlignmentError
from alignment.manifest import FIELDS, MANIFEST, MOST_BYTES, read_manifest

WRITTEN = {
    "identifier": "0123", "stage": "sft", "status": "finished", "recipe": {"seed": 0}, "recipe_sha256": "00",
    "launch": {"processes": 2, "engine": "zero3"}, "started": "2026-01-01T00:00:00+00:00", "finished": None,
    "versions": {"torch": "2.8"}, "lineage": {"base_sha256": "ab", "stop_token_ids": [1]}, "results": {"loss": 1.0},
    "members": ["member-0"], "score_mean": 0.5, "score_std": 1, "gate": {"passed": True, "missed": []},
    "wandb": {"artifact": "a/b/c:v0"}, "wandb_run_id": "ab", "skipped": [], "scorers": [], "seed": 0,
    "prompt_kind": "messages", "files": {"train": "train.jsonl"},
}  # fmt: skip


def test_a_runs_fields_are_read_and_null_is_left_out(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps(WRITTEN))
    assert read_manifest(tmp_path) == {key: value for key, value in WRITTEN.items() if value is not None}
    assert read_manifest(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("stage", 3, "text"),
        ("started", "\ud800", "text"),
        ("status", "done", "one of running, finished, failed"),
        ("status", [], "one of running, finished, failed"),
        ("recipe", [1], "an object"),
        ("launch", {"processes": 2}, "an object of processes and engine"),
        ("launch", {"processes": "2", "engine": "none"}, "an object of processes and engine"),
        ("lineage", {"base_sha256": 7}, "an object whose hashes are text"),
        ("gate", {"passed": "no", "missed": []}, "an object of passed and missed"),
        ("members", [1], "a list of names"),
        ("prompt_kind", "both", "text or messages"),
        ("score_std", True, "a finite number"),
        ("wandb", {"artifact": 1}, "an object with an artifact's name"),
        ("files", ["train.jsonl"], "an object of files by split"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path, field, value, kind):
    (tmp_path / MANIFEST).write_text(json.dumps({**WRITTEN, field: value}))
    with pytest.raises(AlignmentError, match=rf"{MANIFEST}: {field} is .*, and must be {kind}; the file was changed"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999"])
def test_a_scale_is_finite(tmp_path, number):
    (tmp_path / MANIFEST).write_text(f'{{"score_std": {number}}}')
    with pytest.raises(AlignmentError, match=r"score_std is .*, and must be a finite number"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "invalid UTF-8: byte 0xff at position 0"),
        (b"[" * 5000, "lists and objects inside one another"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "an integer of 5,000 digits"),
        (b'{"seed": 1, "seed": 2}', "has the key 'seed' twice"),
        (b"[1]", "holds [1], not an object"),
    ],
)
def test_an_invalid_manifest_raises_a_one_line_error(tmp_path, content, said):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(AlignmentError) as error:
        read_manifest(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_larger_than_any_run_writes_is_not_read(tmp_path):
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(AlignmentError, match="no run writes more than"):
        read_manifest(tmp_path)


def test_every_field_that_is_checked_is_in_the_example():
    assert FIELDS.keys() - WRITTEN.keys() == {"provenance", "policy", "watch_scorers"}
