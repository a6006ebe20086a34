"""Loading and unloading of adapters while the server runs, on vLLM's paths."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError
from alignment.policy.policies import Policy
from alignment.serve.faults import ApiError
from alignment.serve.fields import Fields
from alignment.serve.models import Models

LONGEST_NAME = 200  # characters
MOST_LOADED = 10_000


class Adapters:
    """Puts adapters from allowed folders on the bases that are in memory.

    Args:
        folders: below which adapters may be. keys: of `ModelKeys`, as the user gave them for all models.
    """

    def __init__(self, models: Models, folders: Sequence[Path], keys: Mapping[str, Any]) -> None:
        self._models, self._keys = models, keys
        self._folders = [folder.resolve() for folder in folders]

    def load(self, body: Any) -> str:
        """Load the adapter that a request names; returns its name.

        Raises: ApiError.
        """
        fields = Fields(body)
        name, path = self._name(fields), fields.text("lora_path")
        fields.only("load_inplace", False, why="unload the old adapter first.")
        fields.require_none_left()
        if not path:
            raise ApiError("lora_path is missing.", "lora_path")
        folder = self._allowed(path)
        if len(self._models.all()) >= MOST_LOADED:
            raise ApiError(f"{MOST_LOADED} models are loaded; unload some first.", "lora_name")
        try:
            policy = Policy.find(str(folder), self._keys)
            self._models.load(name, policy)
        except AlignmentError as error:
            raise ApiError(f"loading {name[:100]!r} failed: {error}", "lora_path") from error
        return name

    def unload(self, body: Any) -> str:
        """Unload the adapter that a request names; returns its name.

        Raises: ApiError.
        """
        fields = Fields(body)
        name = self._name(fields)
        fields.ignore("lora_int_id")
        fields.require_none_left()
        self._models.unload(name)
        return name

    def _name(self, fields: Fields) -> str:
        name = fields.text("lora_name")
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise ApiError(f"lora_name must be a printable text of 1 to {LONGEST_NAME} characters.", "lora_name")
        return str(name)

    def _allowed(self, path: str) -> Path:
        """Return a folder below one that the command line allows; links count where they lead to.

        Raises: ApiError if it is elsewhere, or is not there.
        """
        try:
            folder = Path(os.path.realpath(path))
        except (OSError, ValueError) as error:
            raise ApiError(f"lora_path cannot be read: {error}.", "lora_path") from None
        if not any(folder.is_relative_to(allowed) for allowed in self._folders):
            raise ApiError(
                f"lora_path {path[:200]!r} is not below a folder that the command line names with --adapters.",
                "lora_path", status=403,
            )  # fmt: skip
        if not folder.is_dir():
            raise ApiError(f"lora_path {path[:200]!r} is not a folder.", "lora_path", status=404)
        return folder
