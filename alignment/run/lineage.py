"""What an artifact was made from, and refusing to mix artifacts that do not belong together."""

import json
from pathlib import Path
from typing import Any

from alignment.errors import LineageError
from alignment.run.files import sampled_hash, text_hash

WORDS = {
    "base_sha256": "base model weights",
    "tokenizer_sha256": "tokenizer",
    "template_sha256": "chat template",
    "stop_token_ids": "stop tokens",
    "pad_token_id": "pad token",
}


def weights_hash(model: str) -> str:
    """Identify a model's weights: sampled SHA-256 of its safetensors files, or the Hub id itself.

    The hash of a local folder depends on its content alone, never on where it lies.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f"hub:{model}"
    files = sorted(folder.glob("*.safetensors"))
    return text_hash("".join(f"{file.name}:{sampled_hash(file)}" for file in files))


def fingerprint(
    base: str, tokenizer: Any, *, template_hash: str = "", stop_token_ids: list[int] | None = None
) -> dict[str, Any]:
    """Return what must agree between stages that share a base: its weights, tokenizer, template and special tokens."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for setting in ("padding", "truncation"):  # of the last call, not of the tokenizer
        backend.pop(setting, None)
    return {
        "base": base,
        "base_sha256": weights_hash(base),
        "tokenizer_sha256": text_hash(json.dumps(backend, sort_keys=True)),
        "template_sha256": template_hash or text_hash(tokenizer.chat_template or ""),
        "stop_token_ids": sorted(stop_token_ids) if stop_token_ids is not None else [tokenizer.eos_token_id],
        "pad_token_id": tokenizer.pad_token_id,
    }


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
