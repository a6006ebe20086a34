"""The reward model: a plain sequence classifier with one output, read at the last token of the answer.

`transformers` finds that token by its id, as the last one that is not `config.pad_token_id`
(`GenericForSequenceClassification.forward`). If padding and stop token are the same, as is common, it would read the
token before. Therefore a reward model pads with another token, which its config and its saved tokenizer name, and has
the same scores in plain `transformers`, padded or not.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import ModelError
from alignment.policy.base import load_sequence_classifier
from alignment.policy.model_source import resolve_model

HEADS = ("score", "classifier")  # names of the output layer of sequence classifiers


def load_reward_model(
    keys: ModelKeys, tokenizer: Any, stop_token_ids: list[int], *, trainable: bool, peft: AdapterKeys | None = None
) -> Any:
    """Load `keys.model_name_or_path` as a sequence classifier with one output that pads safely.

    A causal model gets a new score head, drawn from torch's global generator; `tokenizer` and the model's config get
    the padding token.

    Args:
        stop_token_ids: tokens that may end an answer.
        trainable: load for training; otherwise a model without a trained score head is refused.
        peft: which weights train.

    Raises: ModelError if the model has no trained head and is not trainable.
    """
    if not trainable:
        require_score_head(keys.model_name_or_path)
    pad_token_id = padding_token(tokenizer, stop_token_ids)
    if tokenizer.pad_token_id != pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_token_id)
    model = load_sequence_classifier(keys, trainable=trainable, peft=peft, pad_token_id=pad_token_id)
    model.config.get_text_config().pad_token_id = pad_token_id
    return model


def padding_token(tokenizer: Any, stop_token_ids: list[int]) -> int:
    """Choose the tokenizer's own padding token unless it can end an answer; then another special token, then any.

    Padding is masked, so which token it is changes no score.

    Raises: ModelError if every token of the vocabulary may end an answer.
    """
    named = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    for token_id in (*named, *range(len(tokenizer))):
        if token_id is not None and token_id not in stop_token_ids:
            return int(token_id)
    raise ModelError(
        f"every token of the vocabulary is a stop token ({stop_token_ids}); there is no token for padding."
    )


def score_sequences(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score each sequence at its last token.

    Args:
        input_ids, attention_mask: (sequences, time), right-padded with the model's `config.pad_token_id`.

    Returns: (sequences,) float32.
    """
    logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return logits.squeeze(-1).float()


def require_score_head(path: str) -> None:
    """Refuse a local model or adapter without a trained score head: transformers would initialise one at random.

    Raises: ModelError.
    """
    source = resolve_model(path)
    folder = Path(source.newest)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    names = [name for file in files for name in _tensor_names(file)]
    if names and not any(part in HEADS for name in names for part in name.split(".")):
        raise ModelError(
            f"{path} is not a reward model: its weights have no score head ({' or '.join(HEADS)}). "
            "Name the output_dir of a finished `alignment reward` run."
        )


def _tensor_names(file: Path) -> list[str]:
    """Tensor names from a safetensors header (8 bytes of length, little endian, then JSON), without the weights."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return [name for name in json.loads(stream.read(size)) if name != "__metadata__"]
