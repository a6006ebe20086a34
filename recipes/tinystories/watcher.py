"""The judge that only watches: a classifier that learned sentiment from film reviews, and that nothing is trained on.

It distinguishes cheerful stories from text that only scores high with VADER. Its reviews are, in this order, what the
environment variable TINYSTORIES_REVIEWS names (a file, a folder or a Hub id), the local copy, or the Hub's. It is
fitted once a process, in about a second.
"""

import math
import os
from functools import cache
from pathlib import Path
from typing import Any

from alignment.config.schema import DatasetEntry
from alignment.data.rows import Prompt
from alignment.data.sources import read_entry
from alignment.errors import DataError, JudgeError

VARIABLE = "TINYSTORIES_REVIEWS"
LOCAL = "../shared/data/reviews/sentence_polarity_10662.jsonl"
HUB = "cornell-movie-review-data/rotten_tomatoes"  # the same sentences, in three splits

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
except ModuleNotFoundError as error:
    raise JudgeError(
        'the watching judge of tinystories needs the package scikit-learn: pip install -e ".[sentiment]".'
    ) from error


def prefer(prompt: Prompt, first: str, second: str) -> float:
    """Return the probability that the first continuation is better: the logistic of the difference in log odds."""
    return 1.0 / (1.0 + math.exp(log_odds(second) - log_odds(first)))


def probability(text: str) -> float:
    """Return the probability that a text is positive."""
    return 1.0 / (1.0 + math.exp(-log_odds(text)))


@cache
def log_odds(text: str) -> float:
    """Return the log odds that a text is positive, held within ±30, where a float's logistic still has meaning."""
    return max(-30.0, min(30.0, float(_fitted().decision_function([text])[0])))


@cache
def _fitted() -> Any:
    return fit(*reviews())


def fit(texts: list[str], labels: list[int]) -> Any:
    """Fit TF-IDF of words and word pairs, and logistic regression on it."""
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(C=4.0, max_iter=1000)
    )
    return classifier.fit(texts, labels)


def reviews() -> tuple[list[str], list[int]]:
    """Return sentences and whether each is positive.

    Raises: DataError if a row has no text, or a label other than 0 and 1.
    """
    path = os.environ.get(VARIABLE) or (LOCAL if Path(LOCAL).is_file() else HUB)
    texts, labels = [], []
    for source in read_entry(DatasetEntry(path=path)):
        for row in source.rows:
            value = row.value if isinstance(row.value, dict) else {}
            text, label = value.get("text"), value.get("label")
            if not isinstance(text, str) or label not in (0, 1):
                raise DataError(f"{row.where}: {row.fault or 'a review needs a text and a label of 0 or 1'}.")
            texts.append(text)
            labels.append(int(label))
    if len(set(labels)) < 2:
        raise DataError(f"{path}: {len(texts)} reviews, all of one label; both are needed ({VARIABLE} names others).")
    return texts, labels
