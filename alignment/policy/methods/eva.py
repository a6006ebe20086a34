"""EVA, https://arxiv.org/abs/2410.07170: LoRA's matrices A start as the principal directions of what the layers read.

A module whose input has more variance gets more ranks; B starts at 0, so the function stays the base's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora.eva import forward_fn_dict, initialize_lora_eva_weights
from torch import Tensor

from alignment.errors import ModelError

ROWS, MOST_PASSES = 8, 1_000  # of a batch; until the directions settle, usually tens
IGNORE = -100


def start_from_rows(model: Any, rows: Sequence[dict[str, Any]], pad_token_id: int) -> None:
    """Initialise the adapter of a model from tokenised demonstrations; nothing where another start was chosen.

    Args:
        rows: with `input_ids` and `labels`; tokens without a label are left out.

    Raises: ModelError if the directions do not settle.
    """
    config: Any = getattr(model, "peft_config", {}).get("default")
    if getattr(config, "init_lora_weights", None) != "eva":
        return
    passes = 0

    def forward(wrapped: Any, inputs: dict[str, Tensor]) -> Any:
        nonlocal passes
        passes += 1
        if passes > MOST_PASSES:
            raise ModelError(
                f"init_lora_weights eva: after {MOST_PASSES} batches the directions still change; lower lora_r or "
                "eva_config.tau, or give more data"
            )
        return forward_fn_dict(wrapped, {key: tensor for key, tensor in inputs.items() if key != "labels"})

    batches = [_batch(rows[start : start + ROWS], pad_token_id) for start in range(0, len(rows), ROWS)][:MOST_PASSES]
    with torch.no_grad():
        initialize_lora_eva_weights(
            model, batches, forward_fn=forward, gather_distributed_inputs=False, show_progress_bar=False
        )
    config.init_lora_weights, config.eva_config = True, None  # what is saved is plain LoRA
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)


def _batch(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        ids, room = list(row["input_ids"]), longest - len(row["input_ids"])
        batch["input_ids"].append([*ids, *[pad_token_id] * room])
        batch["attention_mask"].append([1] * len(ids) + [0] * room)
        batch["labels"].append([*row["labels"], *[IGNORE] * room])
    return {key: torch.tensor(values) for key, values in batch.items()}
