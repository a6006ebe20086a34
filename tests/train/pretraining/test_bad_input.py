"""What cannot be trained is refused with one line and exit code 2, and leaves no folder."""

import json
import shutil

import pytest

from alignment.errors import AlignmentError
from tests.models import save_tiny_encoder, save_tiny_t5
from tests.train.pretraining.conftest import TEXTS, run

BINARY = bytes(range(256)) * 16
FILES = {
    "empty.jsonl": (b"", "empty.jsonl is empty: it holds no rows"),
    "blank.jsonl": (b"\n\n", "blank.jsonl is empty: it holds no rows"),
    "empty.txt": (b"", "empty.txt is empty: it holds no rows"),
    "binary.jsonl": (BINARY, "binary.jsonl:1: "),
    "binary.txt": (BINARY, "binary.txt:2: invalid UTF-8"),
    "binary.parquet": (BINARY, "binary.parquet is not a readable Parquet file"),
    "number.jsonl": (b'{"text": 5}', "number.jsonl:1: 'text' is a number, not text"),
    "huge.jsonl": (json.dumps({"text": "ab " * 1_000_000}).encode(), "more than the 2,097,152 that are tokenised"),
}


def refusal(file, tmp_path):
    with pytest.raises(AlignmentError) as error:
        run(file)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("streaming", [False, True])
def test_files_without_text(name, streaming, write, tmp_path):
    content, told = FILES[name]
    if streaming and name == "binary.jsonl":
        told = "the row has no known layout"
    (tmp_path / name).write_bytes(content)
    assert told in refusal(write(streaming=streaming, datasets=[{"path": str(tmp_path / name)}]), tmp_path)


def test_held_out_text_and_paths_that_do_not_exist(write, tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert "is empty" in refusal(write(eval_datasets=[{"path": str(tmp_path / "empty.jsonl")}]), tmp_path)
    assert "does not exist" in refusal(write(datasets=[{"path": str(tmp_path / "none.jsonl")}]), tmp_path)


def test_a_bad_row_far_into_a_stream(write, tmp_path):
    rows = [*({"text": f"text {number}"} for number in range(1200)), {"text": 5}]
    file = write(rows, streaming=True, shuffle_buffer_size=2000)
    with pytest.raises(AlignmentError, match=r"text.jsonl:1201: 'text' is a number, not text") as error:
        run(file)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("objective", ["causal", "masked", "seq2seq"])
@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq"])
def test_an_objective_that_the_models_class_cannot_do(objective, kind, write, tmp_path, tiny_model_dir):
    if objective == kind:
        return
    makes = {"masked": save_tiny_encoder, "seq2seq": save_tiny_t5}
    model = makes[kind](tmp_path / "model") if kind in makes else tiny_model_dir
    told = refusal(write(model_name_or_path=str(model), objective=objective), tmp_path)
    assert "is needed here" in told
    assert f"objective: {kind}" in told


def test_a_tokenizer_without_what_the_objective_needs(write, tmp_path):
    model = save_tiny_encoder(tmp_path / "bert", masks=False)
    assert "has no mask token" in refusal(write(model_name_or_path=str(model), objective="masked"), tmp_path)
    model = save_tiny_t5(tmp_path / "t5", sentinels=1)
    assert "has no sentinel tokens" in refusal(write(model_name_or_path=str(model), objective="seq2seq"), tmp_path)


@pytest.mark.parametrize(("objective", "length"), [("masked", 2), ("seq2seq", 2), ("seq2seq", 3)])
def test_sequences_without_room(objective, length, write, tmp_path):
    model = (save_tiny_encoder if objective == "masked" else save_tiny_t5)(tmp_path / "model")
    file = write(model_name_or_path=str(model), objective=objective, max_length=length)
    assert f"max_length {length} leaves no room" in refusal(file, tmp_path)


def test_a_model_without_weights_or_tokenizer(write, tmp_path, tiny_model_dir):
    (tmp_path / "bare").mkdir()
    shutil.copy(tiny_model_dir / "config.json", tmp_path / "bare")
    assert "without weights" in refusal(write(model_name_or_path=str(tmp_path / "bare")), tmp_path)
    file = write(model_name_or_path=str(tmp_path / "bare"), from_scratch=True)
    assert "holds no tokenizer" in refusal(file, tmp_path)


def test_a_model_that_mixes_documents_leaves_no_folder(write, tmp_path, shared):
    kind = str(shared / "models/kinds/opt")
    assert "set packing: false" in refusal(write(TEXTS, model_name_or_path=kind, max_length=32), tmp_path)


def test_the_folder_of_an_earlier_run_stays(write, tmp_path):
    run(write(max_steps=1))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(AlignmentError, match="finished run"):
        run(write(datasets=[{"path": str(tmp_path / "empty.jsonl")}]))
    assert (tmp_path / "run" / "model.safetensors").exists()
