"""Tokens that a recipe adds to a vocabulary: a base with rows for them, written once into the run that trains them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignment.config.schema import SFTRecipe
from alignment.errors import ModelError
from alignment.policy.base import config_of, load_base
from alignment.policy.dtypes import checkpoint_dtype
from alignment.policy.generation import read_generation, write_generation
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.saved_files import WHOLE, mark_of
from alignment.policy.tied import untie
from alignment.policy.tokenizer import load_tokenizer

BASE = "base"  # the folder, in the run's


def with_added_tokens(recipe: SFTRecipe, folder: Path, *, main: bool) -> SFTRecipe:
    """Return the recipe as it trains on a base whose vocabulary holds `add_tokens`.

    The base is `folder`/base: the model with rows for the new tokens, each the mean of the rows of the pieces that its
    text was split into. An adapter trains the embeddings and the output layer whole beside it, since a frozen row would
    learn nothing; where the two are tied, the written base has them apart.

    Args:
        recipe: returned as it is where it adds nothing.
        folder: the run's. main: whether this process writes; the others wait for it before they call.
    Raises: ModelError if the model is an adapter, or its embeddings cannot be found.
    """
    if not recipe.add_tokens:
        return recipe
    source = require_whole(recipe)
    out = folder / BASE
    if main and not (out / WHOLE).is_file():
        _write(recipe, source.base, out)
    changes: dict[str, Any] = {"model_name_or_path": str(out), "model_revision": "main", "add_tokens": None}
    if recipe.method.has_adapter:
        trained = json.loads((out / WHOLE).read_text(encoding="utf-8"))["embeddings"]
        changes |= recipe.training_whole(trained)
    return recipe.model_copy(update=changes)


def require_whole(recipe: SFTRecipe) -> ModelSource:
    """Return where the model is; refuse an adapter, whose base has no rows for `add_tokens`, and stored integers.

    Raises: ModelError.
    """
    source = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    if recipe.add_tokens and source.adapter is not None:
        raise ModelError(
            f"add_tokens needs a whole model, and {source.adapter} is an adapter; merge it first: alignment merge "
            f"{source.adapter} OUT."
        )
    if recipe.add_tokens and getattr(config_of(recipe), "quantization_config", None) is not None:
        raise ModelError(
            f"add_tokens writes the model with more rows, and {source.base} is stored quantised; name the model that "
            "it was made from."
        )
    return source


def _write(recipe: SFTRecipe, base: str, out: Path) -> None:
    tokenizer = load_tokenizer(recipe)
    model = load_base(AutoModelForCausalLM, base, recipe.in_floats(), full=True)
    add_rows(model, tokenizer, recipe.add_tokens or [])
    if recipe.method.has_adapter:
        untie(model)  # PEFT trains the embeddings and the output layer as two copies
    model.to(checkpoint_dtype(base, recipe)).save_pretrained(out)
    tokenizer.save_pretrained(out)
    if generation := read_generation(base, revision=recipe.model_revision):
        write_generation(out, generation)
    mark = mark_of(out, [file.name for file in out.iterdir() if file.is_file()], embeddings=_embeddings(model))
    (out / WHOLE).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def add_rows(model: Any, tokenizer: Any, tokens: list[str]) -> None:
    """Give each token a row of the embeddings and of the output layer: the mean of the rows of its pieces."""
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for weight in _weights(model):
        for token in tokens:
            # apart from its first character the text is not a token, so it is split
            pieces = [piece for part in (token[:1], token[1:]) for piece in _ids(tokenizer, part)]
            weight[tokenizer.convert_tokens_to_ids(token)] = weight[pieces].float().mean(0).to(weight.dtype)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _weights(model: Any) -> list[Tensor]:
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return list({id(layer.weight): layer.weight.data for layer in layers if layer is not None}.values())


def _embeddings(model: Any) -> list[str]:
    """Return the names of the modules that hold rows of tokens, by their last part."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(layer)].rpartition(".")[2] for layer in layers if layer is not None]
