"""The files of a label run, and what identifies a prompt in them."""

import hashlib
import json

from alignment.data.rows import Prompt

LABELS, REJECTED = "labels.jsonl", "rejected.jsonl"  # of a run that finished, and of one that missed its gate
GOLD_LABELS = "gold_labels.jsonl"  # the judge's labels of the gold comparisons, for gate and calibration
REVISIONS = "revisions.jsonl"


def prompt_key(prompt: Prompt) -> str:
    """Identify a prompt; plain text and a single message of the user with that text are the same."""
    text = prompt if isinstance(prompt, str) else json.dumps(
        [[message.get("role"), (message.get("content") or "").strip()] for message in prompt], ensure_ascii=True
    )  # fmt: skip
    if isinstance(prompt, list) and len(prompt) == 1 and prompt[0].get("role") == "user":
        text = prompt[0].get("content") or ""
    return hashlib.sha256(text.strip().encode("utf-8", "backslashreplace")).hexdigest()
