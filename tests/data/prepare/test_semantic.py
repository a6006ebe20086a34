"""Clusters of embeddings, with vectors that are known and with a model's."""

import sys

import numpy as np
import pytest

from alignment.data.prepare import semantic
from alignment.data.prepare.semantic import embedder, semantic_duplicates
from alignment.data.prepare.step import StepError
from tests.prepare.running import SHARED, prepare

STORIES = SHARED.parent / "models" / "stories260K"
ANGLES = {"a": 0.0, "b": 20.0, "c": 40.0, "d": 90.0}  # degrees; cos 20° = 0.9397, cos 40° = 0.7660


def embed(texts):
    radians = np.radians([ANGLES[text] for text in texts])
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def found(rows, threshold=0.9, **keys):
    return semantic_duplicates(rows, embed=embed, threshold=threshold, seed=0, **keys)


def test_a_chain_of_close_rows_is_one_cluster():
    clusters = found([("a",), ("d",), ("b",), ("c",)])
    assert clusters.kept.tolist() == [0, 1, 0, 0]
    assert clusters.similarity[[2, 3]].tolist() == pytest.approx([0.9397, 0.7660], abs=1e-4)
    assert found([("a",), ("c",)]).kept.tolist() == [0, 1]


def test_each_text_of_a_row_must_be_close():
    rows = [("a", "a"), ("b", "d"), ("b", "b"), ("a", ""), ("a", ""), ("", ""), ("", "")]
    assert found(rows).kept.tolist() == [0, 1, 0, 3, 3, 5, 6]


def test_no_rows():
    assert found([]).kept.tolist() == []


def test_many_rows_are_compared_within_clusters_of_k_means(monkeypatch):
    monkeypatch.setattr(semantic, "ALL_PAIRS", 10)
    monkeypatch.setattr(semantic, "PER_CLUSTER", 10)
    rows = [(name,) for name in "ad" * 10]
    assert found(rows).kept.tolist() == [0, 1] * 10


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared")
def test_the_mean_of_the_last_hidden_states():
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["Once upon a time", "Lily found a needle in her room.", "no"]
    vectors = embedder(str(STORIES), max_length=64, batch_size=2)(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(STORIES), AutoModel.from_pretrained(STORIES)
    for text, vector in zip(texts, vectors, strict=True):  # each by itself: padding makes no difference
        with torch.no_grad():
            mean = (
                model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0].mean(0)
            )
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared")
def test_the_step(tmp_path):
    story = "Once upon a time there was a little girl named Lily. She had a red ball."
    rows = [{"prompt": "Tell a story.", "completion": one} for one in (story, "Numbers: 7 8 9!", story + " ")]
    step = {"kind": "semantic_duplicates", "model_name_or_path": str(STORIES), "threshold": 0.99, "on": "answer"}
    run = prepare(tmp_path, rows, step)
    assert [row["completion"] for row in run.rows()] == [story, "Numbers: 7 8 9!"]
    (record,) = run.dropped
    assert record["reason"] == "semantic duplicate"
    assert "cosine similarity" in record["detail"]


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "model").mkdir()
    step = {"kind": "semantic_duplicates", "model_name_or_path": str(tmp_path / "model")}
    with pytest.raises(StepError, match="cannot be loaded as an embedding model") as error:
        prepare(tmp_path, [{"prompt": "q", "completion": "a"}], step)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_sentence_transformers_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(StepError, match=r"pip install 'alignment-stack\[semantic\]'"):
        embedder(str(tmp_path), max_length=8, batch_size=1)


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared")
def test_a_folder_of_sentence_transformers(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    transformer = modules.Transformer(str(STORIES), max_seq_length=64)
    transformer.tokenizer.pad_token = transformer.tokenizer.eos_token
    pooling = modules.Pooling(transformer.get_embedding_dimension(), "mean")
    sentence_transformers.SentenceTransformer(modules=[transformer, pooling], device="cpu").save(
        str(tmp_path / "model")
    )
    texts = ["Once upon a time", "Lily found a needle in her room."]
    ours, theirs = (
        embedder(path, max_length=64, batch_size=2)(texts) for path in (str(STORIES), str(tmp_path / "model"))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
