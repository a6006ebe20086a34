"""Loading a model's tokenizer, ready to train and sample with."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoTokenizer,
)

from alignment.config.schema import ModelKeys
from alignment.config.tasks import MASKED
from alignment.data.template import Template
from alignment.errors import ModelError
from alignment.policy.generation import read_generation, stops_of
from alignment.policy.model_files import check_hub_files
from alignment.policy.model_source import cannot_load, model_of
from alignment.rollout.context import is_encoder_decoder
from alignment.rollout.encoded import decoder_start

TOKENIZER_FILES = ("tokenizer*", "vocab*", "spiece.model", "sentencepiece*.model", "*.tiktoken", "tekken.json")


def load_tokenizer(keys: ModelKeys) -> Any:
    """Load the tokenizer of a model or adapter, ready to train and sample with.

    The recipe's `eos_token` replaces the tokenizer's own. A missing pad token becomes the unknown token, else EOS:
    no part of the project tells padding by its id. The chat template is `alignment.data.template`'s matter, and so
    are the stop tokens: `generation_stop_ids` notes for it where the model's generation config stops, and
    `decoder_start_id` with which token the decoder of an encoder-decoder model begins.

    Raises: ModelError if there is no tokenizer, no EOS token, no first token of a decoder, or more tokens than the
        model has embeddings.
    """
    source = model_of(keys)
    place = source.adapter if source.adapter and _has_tokenizer(source.adapter) else source.base
    if not _has_tokenizer(place):
        raise ModelError(
            f"{place} holds no tokenizer (no tokenizer.json or the like); save the model's tokenizer there."
        )
    options = {"trust_remote_code": keys.trust_remote_code, "revision": keys.model_revision}
    check_hub_files(place, keys.model_revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        config = AutoConfig.from_pretrained(source.base, **options)
    except Exception as error:
        raise cannot_load(place, error) from error
    added = _add_tokens(tokenizer, getattr(keys, "add_tokens", None))
    generation = read_generation(source.adapter, source.base, revision=keys.model_revision)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokenizer.generation_stop_ids = [*own, *stops_of(generation)]
    if is_encoder_decoder(config):
        tokenizer.decoder_start_id = decoder_start(config, generation)
        if tokenizer.decoder_start_id is None:
            raise ModelError(
                f"config.json of the encoder-decoder model {source.base} names no decoder_start_token_id, the first "
                "token that its decoder reads; add it (T5's is the pad token's id)."
            )
    _set_eos(tokenizer, keys.eos_token, place, needed=not _is_masked(keys))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    known = [token_id for word, token_id in tokenizer.get_vocab().items() if word not in added]
    highest, rows = max(known), config.get_text_config().vocab_size
    if highest >= rows:
        raise ModelError(
            f"the tokenizer in {place} has token ids up to {highest}, but the model {source.base} has {rows} "
            "embeddings; they do not belong together."
        )
    return tokenizer


def _has_tokenizer(place: str) -> bool:
    folder = Path(place)
    return not folder.is_dir() or any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES)


def _add_tokens(tokenizer: Any, tokens: list[str] | None) -> set[str]:
    """Add a recipe's tokens to the vocabulary; return those that are new."""
    missing = [token for token in tokens or [] if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    return set(missing)


def template_of(keys: ModelKeys, tokenizer: Any) -> Template:
    """Return a recipe's template. An encoder's tokenizer without EOS ends a text with its separator.

    Raises: ModelError as `Template`.
    """
    end = keys.eos_token
    if end is None and _is_masked(keys) and tokenizer.eos_token is None:
        end = tokenizer.sep_token
    return Template(tokenizer, keys.chat_template, end)


def _is_masked(keys: ModelKeys) -> bool:
    return getattr(keys, "task", None) == MASKED


def _set_eos(tokenizer: Any, eos_token: str | None, place: str, *, needed: bool) -> None:
    if eos_token is not None:
        if eos_token not in tokenizer.get_vocab():
            raise ModelError(f"eos_token {eos_token!r} is not a token of the tokenizer in {place}.")
        tokenizer.eos_token = eos_token
    if needed and tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer in {place} has no EOS token, so no answer could ever end; name the token that ends an "
            "answer as eos_token in the recipe."
        )
