"""What an artifact was made from, and refusing to mix artifacts that do not belong together."""

import json
from typing import Any

from alignment.data.sampled import tokenizer_hash
from alignment.errors import LineageError
from alignment.policy.weights import weights_hash
from alignment.run.files import text_hash

WORDS = {
    "base_sha256": "base model weights",
    "tokenizer_sha256": "tokenizer",
    "template_sha256": "chat template",
    "stop_token_ids": "stop tokens",
    "pad_token_id": "pad token",
}


def fingerprint(
    base: str, tokenizer: Any, *, template_hash: str = "", stop_token_ids: list[int] | None = None
) -> dict[str, Any]:
    """Return what must agree between stages that share a base: its weights, tokenizer, template and special tokens."""
    return {
        "base": base,
        "base_sha256": weights_hash(base),
        "tokenizer_sha256": tokenizer_hash(tokenizer),
        "template_sha256": template_hash or text_hash(_template_text(tokenizer.chat_template)),
        **({"stop_token_ids": sorted(stop_token_ids)} if stop_token_ids is not None else {}),
        "pad_token_id": tokenizer.pad_token_id,
    }


def _template_text(template: Any) -> str:
    return json.dumps(template) if isinstance(template, dict) else template or ""  # several templates by name


def require_same(
    given: dict[str, Any],
    expected: dict[str, Any],
    what_given: str,
    what_expected: str,
    *,
    ignore: tuple[str, ...] = (),
) -> None:
    """Refuse two fingerprints that differ.

    Raises: LineageError naming both artifacts and everything that differs. A side that lacks a field (an artifact
        made elsewhere) is not compared on it.
    """
    differing = [
        f"{words} ({given[key]} against {expected[key]})"
        for key, words in WORDS.items()
        if key not in ignore and key in given and key in expected and given[key] != expected[key]
    ]
    if differing:
        raise LineageError(
            f"{what_given} does not belong with {what_expected}: they differ in {', '.join(differing)}. "
            "Train both from the same base, tokenizer and template."
        )
