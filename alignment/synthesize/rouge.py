"""ROUGE-L of a text to the nearest of many, by a longest common subsequence in C++.

The tokens and the arithmetic are those of the package `rouge-score` 0.1.2 without stemming, which Self-Instruct uses:
precision is LCS / tokens of the one text, recall LCS / tokens of the other, and F = 2PR / (P + R), which is
2 LCS / (m + n), one minus the normalized Indel distance.
"""

import re

from rapidfuzz import process
from rapidfuzz.distance import Indel

LATIN = re.compile("[a-z0-9]+")
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Thai, kana, Chinese characters
ANY_SCRIPT = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")  # of scripts without spaces, each character is a token
MARGIN = 1e-9  # wider than the rounding of both ways to compute F


def words(text: str, *, any_script: bool = False) -> list[str]:
    """Return the tokens of a text: runs of a-z and 0-9 as in `rouge-score`, or words of any script."""
    return (ANY_SCRIPT if any_script else LATIN).findall(text.lower())


class RougeIndex:
    """Texts with which others are compared; each distinct token becomes one code point.

    To compare with n texts takes about 0.2 microseconds times n, so to filter n texts takes O(n^2).
    """

    def __init__(self, *, any_script: bool = False) -> None:
        self.any_script = any_script
        self._codes: dict[str, str] = {}
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Add a text."""
        self._texts.append(self._coded(text))

    def nearest(self, text: str, *, without: int | None = None) -> tuple[float, int | None]:
        """Return the largest ROUGE-L to a text of the index, 0 to 1, and its place; 0 and None if none has a token.

        Args:
            without: place of a text that is left out.
        """
        coded = self._coded(text)
        others: list[str | None] = [*self._texts]
        if without is not None:
            others[without] = None
        found = process.extractOne(coded, others, scorer=Indel.normalized_similarity) if coded else None
        if found is None or found[1] == 0:
            return 0.0, None
        _, _, place = found
        return self._rouge_l(coded, self._texts[place]), place

    def reaches(self, text: str, least: float) -> bool:
        """Whether the ROUGE-L of a text to one of the index is at least `least`."""
        coded = self._coded(text)
        if not coded:
            return False
        near = process.extract_iter(
            coded, self._texts, scorer=Indel.normalized_similarity, score_cutoff=max(0.0, least - MARGIN)
        )
        return any(self._rouge_l(coded, other) >= least for other, _, _ in near)

    def _coded(self, text: str) -> str:
        return "".join(
            self._codes.setdefault(word, chr(len(self._codes))) for word in words(text, any_script=self.any_script)
        )

    @staticmethod
    def _rouge_l(one: str, other: str) -> float:
        """Compute F in the steps of `rouge-score`, so that both round alike."""
        common = (len(one) + len(other) - Indel.distance(one, other)) // 2
        if not common:
            return 0.0
        precision, recall = common / len(other), common / len(one)
        return 2 * precision * recall / (precision + recall)
