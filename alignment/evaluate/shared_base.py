"""Policies that are adapters on one base share it in memory: the base is loaded once, and the adapter changes."""

import gc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from alignment.config.schema import EvaluateRecipe
from alignment.errors import ModelError
from alignment.policy.base import load_policy
from alignment.policy.many_adapters import ManyAdapters
from alignment.policy.model_source import resolve_model
from alignment.policy.weights import weights_hash


class SharedBase:
    """Loads policies one after another; one base is in memory at a time.

    Args:
        recipe: how models are held. paths: of all policies that will be loaded.
    """

    def __init__(self, recipe: EvaluateRecipe, paths: Sequence[str]) -> None:
        self.recipe = recipe
        self._sources = {path: resolve_model(path, revision=recipe.model_revision) for path in paths}
        self._bases = {path: weights_hash(source.base) for path, source in self._sources.items()}
        self._users = Counter(self._bases[path] for path in paths)
        self._held: str | None = None  # hash of the base in memory
        self._adapters: ManyAdapters | None = None

    def order(self, paths: Sequence[str]) -> list[int]:
        """Return the policies' places, those of one base together; the last policy stays last."""
        bases = [self._bases[path] for path in paths]
        first = {base: place for place, base in reversed(list(enumerate(bases)))}
        return sorted(range(len(paths)), key=lambda place: (bases[place] == bases[-1], first[bases[place]], place))

    def load(self, path: str) -> Any:
        """Return a policy's model. It is valid until the next is loaded.

        Raises: ModelError.
        """
        source, base = self._sources[path], self._bases[path]
        if base != self._held:
            self.release()
        if self._users[base] == 1:
            return self._alone(path)
        if self._adapters is None:
            model = self._alone(source.base)
            self._adapters, self._held = ManyAdapters(model, source.base, capacity=1), base
        if source.adapter is None:
            self._adapters.activate(None)
            return self._adapters.base
        try:
            self._adapters.add(path, path)
            self._adapters.activate(path)
        except ModelError:  # a type that cannot share a base; or a damaged one, which is refused as it is loaded
            self.release()
            return self._alone(path)
        return self._adapters.base

    def _alone(self, path: str) -> Any:
        return load_policy(self.recipe.model_copy(update={"model_name_or_path": path}), trainable=False, peft=None)

    def release(self) -> None:
        """Free the base."""
        self._adapters = self._held = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
