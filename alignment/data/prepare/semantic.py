"""Embeddings of texts, and pairs of rows whose embeddings are close.

SemDeDup (https://arxiv.org/abs/2303.09540) cuts the embeddings into clusters by k-means and compares the rows within
each. Up to `ALL_PAIRS` rows are compared with each other, without clusters.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.data.prepare.clusters import Clusters, Keep, Rows, Stated, connected, kept_rows
from alignment.data.prepare.step import StepError
from alignment.errors import first_line, printable

ALL_PAIRS = 20_000
PER_CLUSTER = 1_000  # rows of a cluster of k-means, on average
BLOCK = 2_000  # rows that are compared with others at once
Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]  # texts → (texts, dimensions), each of length 1


def semantic_duplicates(
    rows: Rows, *, embed: Embed, threshold: float, seed: int, keep: Keep = "first", stated: Stated = None
) -> Clusters:
    """Find rows whose texts are each close in meaning: prompts to prompts, answers to answers.

    A row whose texts are all empty is no duplicate; two empty texts beside texts that are not are the same.

    Args:
        threshold: least cosine similarity of the embeddings of each text.
        seed: of k-means.
    """
    filled = np.array([bool("".join(row).strip()) for row in rows], bool)
    columns = [_embedded([row[place] for row in rows], embed) for place in range(len(rows[0]) if rows else 0)]
    edges = [np.zeros((0, 2), np.int64)]
    for members in _groups(columns, np.flatnonzero(filled), seed):
        for first in range(0, len(members), BLOCK):
            some = members[first : first + BLOCK]
            close = np.all([_cosines(column, some, members) >= threshold for column in columns], axis=0)
            one, other = np.nonzero(close)
            pairs = np.stack([some[one], members[other]], axis=1)
            edges.append(pairs[pairs[:, 0] < pairs[:, 1]])
    labels = connected(np.concatenate(edges), len(rows))
    kept = kept_rows(labels, rows, keep, stated)
    similarity = np.full(len(rows), np.nan)
    for row in np.flatnonzero(kept != np.arange(len(rows))).tolist():
        similarity[row] = min(float(_cosines(one, np.array([row]), kept[[row]])[0, 0]) for one in columns)
    return Clusters(kept, similarity, labels)


def embedder(path: str, *, max_length: int, batch_size: int) -> Embed:
    """Return a function that embeds texts with a model of sentence-transformers, or of transformers.

    Raises: StepError if the model cannot be loaded, or needs sentence-transformers, which is not installed.
    """
    try:
        if (Path(path) / "modules.json").is_file():
            return _sentence_transformer(path, max_length, batch_size)
        return _mean_pooled(path, max_length, batch_size)
    except ImportError:
        raise StepError(
            f"{printable(path)} is a model of sentence-transformers; install it with "
            "`pip install 'alignment-stack[semantic]'`."
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{printable(path)} cannot be loaded as an embedding model: {first_line(error)}") from None


def _mean_pooled(path: str, max_length: int, batch_size: int) -> Embed:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    if not hasattr(model.config, "hidden_size") or getattr(model.config, "is_encoder_decoder", False):
        raise ValueError("it is no encoder or decoder of texts")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    longest = min(max_length, getattr(model.config, "max_position_embeddings", max_length))

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Vectors:
        found = []
        for first in range(0, len(texts), batch_size):
            batch = tokenizer(
                [*texts[first : first + batch_size]], padding=True, truncation=True, max_length=longest,
                padding_side="right", return_tensors="pt",
            ).to(model.device)  # fmt: skip
            hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            found.append(torch.nn.functional.normalize(mean.float(), dim=-1).cpu().numpy())
        return np.concatenate(found)

    return embed


def _sentence_transformer(path: str, max_length: int, batch_size: int) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(path)
    model.max_seq_length = min(max_length, model.max_seq_length or max_length)

    def embed(texts: Sequence[str]) -> Vectors:
        found = model.encode([*texts], batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32)

    return embed


def _embedded(texts: Sequence[str], embed: Embed) -> Vectors:
    """Embed each different text once, long ones first, so that a batch has texts of about one length."""
    different = sorted({text for text in texts if text.strip()}, key=lambda text: (-len(text), text))
    if not different:
        return np.zeros((len(texts), 1), np.float32)
    vectors = embed(different)
    places = {text: place for place, text in enumerate(different)}
    found = np.zeros((len(texts), vectors.shape[1]), np.float32)  # zeros for texts without words
    for row, text in enumerate(texts):
        if text in places:
            found[row] = vectors[places[text]]
    return found


def _cosines(vectors: Vectors, rows: NDArray[np.int64], others: NDArray[np.int64]) -> Any:
    """Return (rows, others) cosine similarities; 1 for two empty texts, 0 for one beside a text."""
    one, other = vectors[rows], vectors[others]
    return np.clip(one @ other.T, -1, 1) + np.outer(~one.any(axis=1), ~other.any(axis=1))


def _groups(columns: Sequence[Vectors], rows: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows that are compared with each other."""
    if len(rows) <= ALL_PAIRS:
        yield rows
        return
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(len(rows) // PER_CLUSTER, random_state=seed, n_init=1, batch_size=4_096)
    labels = means.fit_predict(np.concatenate([column[rows] for column in columns], axis=1))
    for label in np.unique(labels):
        yield rows[labels == label]
