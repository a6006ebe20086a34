"""Random weights for a model's configuration, written once into the run that trains them."""

import json
from pathlib import Path
from typing import Any

import torch

from alignment.config.schema import PretrainRecipe
from alignment.errors import ModelError
from alignment.policy.base import model_config
from alignment.policy.model_source import cannot_load, model_of
from alignment.policy.saved_files import WHOLE, mark_of
from alignment.policy.tasks import auto_class
from alignment.policy.tokenizer import load_tokenizer

INITIAL = "initial"  # the folder, in the run's


def with_fresh_weights(recipe: PretrainRecipe, folder: Path, *, main: bool) -> PretrainRecipe:
    """Return the recipe as it trains on random weights in `folder`/initial, where `from_scratch` is set.

    Args:
        recipe: returned as it is without `from_scratch`. folder: the run's.
        main: whether this process writes; the others wait for it before they call.
    Raises: ModelError if the model is an adapter, or cannot be built.
    """
    if not recipe.from_scratch:
        return recipe
    out = folder / INITIAL
    if main and not (out / WHOLE).is_file():
        _write(recipe, out)
    changes: dict[str, Any] = {"model_name_or_path": str(out), "model_revision": "main", "from_scratch": False}
    return recipe.model_copy(update=changes)


def require_configuration(recipe: PretrainRecipe) -> None:
    """Refuse an adapter as the configuration of random weights.

    Raises: ModelError.
    """
    source = model_of(recipe)
    if recipe.from_scratch and source.adapter is not None:
        raise ModelError(
            f"from_scratch needs a model's configuration, and {source.adapter} is an adapter; name a model."
        )


def _write(recipe: PretrainRecipe, out: Path) -> None:
    require_configuration(recipe)
    tokenizer = load_tokenizer(recipe)
    base = model_of(recipe).base
    config = model_config(base, recipe, recipe.model_revision if not Path(base).is_dir() else "main")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            options = {"dtype": torch.float32, "trust_remote_code": recipe.trust_remote_code}
            model = auto_class(recipe.task).from_config(config, **options)
    except Exception as error:  # a library may raise any error on an odd configuration
        raise cannot_load(base, error) from error
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    mark = mark_of(out, [file.name for file in out.iterdir() if file.is_file()])
    (out / WHOLE).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
