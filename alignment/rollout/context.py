"""How many tokens a model reads: its context, less the positions that its soft prompt takes; one or two contexts."""

from typing import Any


def is_encoder_decoder(config: Any) -> bool:
    """Return whether a configuration is of an encoder-decoder model, whose two parts each have the whole context."""
    return bool(getattr(config, "is_encoder_decoder", False))


def context_of(model: Any) -> int | None:
    """Return how many tokens of prompt and answer a model reads; None if its configuration has no limit."""
    context = getattr(text_config(model), "max_position_embeddings", None)
    return None if context is None else int(context) - virtual_tokens(model)


def prompt_room(context: int | None, max_new_tokens: int, *, encoded: bool) -> int | None:
    """Return how many tokens of a prompt leave room for an answer; below 1 if there is none, None without a limit.

    Args:
        context: most tokens of prompt and answer. encoded: an encoder reads the prompt, and a decoder of the same
            context writes the answer.
    """
    if context is None:
        return None
    if encoded:
        return context if max_new_tokens <= context else 0
    return context - max_new_tokens


def virtual_tokens(model: Any) -> int:
    """Return how many positions of a model's context its longest soft prompt takes."""
    prompts = getattr(model, "prompts", None)  # of a model with one soft prompt; on the base of roles the decoder's
    if prompts is None and hasattr(model, "get_decoder"):
        prompts = getattr(model.get_decoder(), "soft_prompts", None)
    return int(getattr(prompts, "longest", 0))


def text_config(model: Any) -> Any:
    """Return the configuration of a model's language part; None if it has none."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config
