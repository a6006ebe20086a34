"""Proof that documents of one sequence do not see each other in a model, before it trains on such sequences."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from alignment.config.launched import is_sharded
from alignment.errors import ModelError, RecipeError, first_line
from alignment.train.pretraining.causal import PackedCausal
from alignment.train.pretraining.objective import Objective

FIRST, SECOND = 5, 8  # tokens of the documents that are tried
# Shares of the difference that a document's logits have without borders. What they may change with the other document,
# which is rounding where experts get other numbers of tokens, and by what they may differ from those alone.
MOST_CHANGE, OF_EXPERTS = 1e-5, 0.02
MOST_ALONE, IN_HALF = 1e-3, 0.1


def require_apart(model: Any, objective: Objective, arguments: TrainingArguments) -> None:
    """Refuse packing in a model that ignores the borders of documents, or that attends to both sides.

    Two documents are run in one sequence, each alone, and as one text. A model in shards is judged by its `forward`
    alone.

    Raises: ModelError or RecipeError.
    """
    if not isinstance(objective, PackedCausal):
        return
    attention = str(getattr(model.config, "_attn_implementation", ""))
    sizes = (arguments.per_device_train_batch_size, arguments.per_device_eval_batch_size)
    if attention.startswith("flash") and set(sizes) != {1}:
        raise RecipeError(
            [
                f"packing with attn_implementation {attention} takes one sequence at a time; set "
                "per_device_train_batch_size and per_device_eval_batch_size to 1, and raise max_length or "
                "gradient_accumulation_steps."
            ]
        )
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise _mixes(base, "its forward takes no position_ids")
    if is_sharded():
        return
    try:
        changed, apart, mixed = _differences(model, objective)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _mixes(base, first_line(error)) from error
    experts = any("expert" in key for key in model.config.to_dict())
    if not changed <= (OF_EXPERTS if experts else MOST_CHANGE) * mixed:
        raise _mixes(base, f"logits of one change by {changed:.2g} with the tokens of the other")
    if not apart <= (MOST_ALONE if model.dtype == torch.float32 else IN_HALF) * mixed:
        raise _mixes(base, f"logits differ by {apart:.2g} from those of each document alone")


def _mixes(base: Any, reason: str) -> ModelError:
    return ModelError(
        f"documents of one sequence do not stay apart in {type(base).__name__} ({reason}); set packing: false."
    )


def _differences(model: Any, objective: PackedCausal) -> tuple[float, float, float]:
    """Return how far the logits of two documents in one sequence are off, at most.

    Returns: by what they change with the tokens of the other document, by what they differ from the logits of each
        document alone, and by what those differ without borders.
    """
    known = len(objective.setting.tokenizer)
    first, second, other = (
        [(7 * place + start) % known for place in range(length)]
        for start, length in ((3, FIRST), (5, SECOND), (4, max(FIRST, SECOND)))
    )
    borders, none = [*range(FIRST), *range(SECOND)], [*range(FIRST + SECOND)]
    with _evaluating(model):
        packed = _logits(model, objective, first + second, borders)
        others = [
            _logits(model, objective, other[:FIRST] + second, borders)[FIRST:],
            _logits(model, objective, first + other[:SECOND], borders)[:FIRST],
        ]
        alone = torch.cat([_logits(model, objective, part, [*range(len(part))]) for part in (first, second)])
        joined = _logits(model, objective, first + second, none)
    changes = [(packed[FIRST:] - others[0]).abs().max(), (packed[:FIRST] - others[1]).abs().max()]
    return float(max(changes)), float((packed - alone).abs().max()), float((joined - alone).abs().max())


def _logits(model: Any, objective: PackedCausal, ids: list[int], positions: list[int]) -> Tensor:
    batch = objective.collate([{"input_ids": ids, "position_ids": positions}])
    device = next(model.parameters()).device
    inputs = {key: tensor.to(device) for key, tensor in batch.items() if key != "labels"}
    found: Tensor = model(**inputs, use_cache=False).logits[0].float()
    return found


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
