"""Removal of answers that refuse, or that speak of themselves as a language model.

Answers of chat models that were collected for training hold many of them. The phrases are of the kind that FastChat's
cleaning of ShareGPT's conversations and the unfiltered variants of such data leave out
(https://github.com/lm-sys/FastChat, fastchat/data/optional_clean.py).
"""

import re

from alignment.config.schema.steps.cleaning import RefusalsEntry
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Step

_MODEL = (  # not "an AI engineer": a name of the model, then a sign or a verb, and no other noun
    r"(an?\s+|the\s+)?(large\s+)?(ai|artificial\s+intelligence|language\s+model|chat\s?bot|llm)"
    r"(\s+(language\s+)?(model|assistant|system|chat\s?bot|program|tool))?"
    r"(?=\s*([,.;:!?()—–-]|$)|\s+(I|and|that|who|which|with|without|my|so|but|developed|created|trained|designed)\b)"
)
_NOT = "(can['’]?t|cannot|can\\s+not|won['’]?t|will\\s+not|(am|['’]m)\\s+(not\\s+able|unable)\\s+to)"
_HELP = r"(assist|help(?!\s+(but|it))|comply|fulfil+|provide|generate|create|write|produce|engage|support|condone)\b"
_MODEL_ZH = "(一个|一名)?(AI|人工智能|语言模型|大型语言模型|大语言模型)(语言)?(模型|助手|助理)?(?=[，,。、；;！!]|我|$)"
PATTERNS: dict[str, str] = {
    "speaks of itself as a model": rf"\b(as|I['’]m|I\s+am)\s+(just\s+|only\s+)?{_MODEL}",
    "says that it cannot": rf"\bI\s*{_NOT}\s+(\w+\s+){{0,2}}{_HELP}",
    "apologizes and cannot": rf"\b(sorry|apologi[sz]e|apologies)\b[^.!?\n]{{0,80}}\bI\s*{_NOT}",
    "calls the request inappropriate": (
        rf"\b(it\s+(is|would\s+be)|this\s+is)\s+not\s+(appropriate|ethical)\s+(for\s+me\b|to\s+{_HELP})|"
        r"\bagainst\s+my\s+(programming|guidelines|policy|policies)\b"
    ),
    "speaks of its training": r"\bmy\s+(knowledge\s+cut-?off|training\s+data)\b|\bI\s+was\s+trained\s+(by|on)\b",
    "speaks of itself as a model, in Chinese": f"作为{_MODEL_ZH}|我(是|只是){_MODEL_ZH}",
    "says that it cannot, in Chinese": (
        r"(抱歉|对不起)[^。！？\n]{0,20}(无法|不能)|我(无法|不能)(提供|回答|协助|帮助)"
    ),
}


class Refusals(Step):
    """Drops rows with a refusal."""

    def __init__(self, entry: RefusalsEntry) -> None:
        self.entry, self.roles = entry, ROLES["answer"]
        named = dict(PATTERNS) if entry.builtin else {}
        named |= {f"matches {pattern}": pattern for pattern in entry.patterns}
        self.patterns = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in named.items()}

    def apply(self, row: Row) -> Outcome:
        """Drop the row if one of its answers begins with a refusal."""
        for text in row.parts("answer"):
            start = text[: self.entry.within]
            for name, pattern in self.patterns.items():
                if found := pattern.search(start):
                    return Drop(name, found[0])
        return row


def build(entry: RefusalsEntry, seed: int) -> Refusals:
    """Return the step."""
    return Refusals(entry)


def markdown() -> str:
    """Return the list of the patterns, as docs/prepare.md shows it."""
    return "\n".join(f"- {name}: `{pattern}`" for name, pattern in PATTERNS.items())
