"""Where a model is: the base and the adapter behind a folder, a run directory or a Hub id."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import find_adapter_config_file

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError, first_line
from alignment.hub import local, may_be_on_hub, reach, why_not_on_hub
from alignment.manifest import read_manifest
from alignment.policy.adapter_files import named_base
from alignment.policy.model_files import ADAPTER_CONFIG, check_model_files, is_there
from alignment.policy.saved_files import require_weights_as_saved
from alignment.policy.weights import weights_hash


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's weights are: a base, and the adapter on it if there is one. Folders or Hub ids."""

    base: str
    adapter: str | None = None

    @property
    def newest(self) -> str:
        """What was trained last: the adapter, else the base."""
        return self.adapter or self.base


def model_of(keys: ModelKeys) -> ModelSource:
    """Find what a recipe's `model_name_or_path` names; with `from_scratch` it needs no weights.

    Raises: ModelError as `resolve_model`.
    """
    weights = not getattr(keys, "from_scratch", False)
    return resolve_model(keys.model_name_or_path, revision=keys.model_revision, weights=weights)


def resolve_model(path: str, *, revision: str = "main", weights: bool = True) -> ModelSource:
    """Find base and adapter behind a model folder, an adapter folder, a run directory or a Hub id.

    An adapter's base may itself be a run directory, as long as that holds a whole model.

    Args:
        path: the folder or Hub id. revision: of a model on the Hub. weights: whether the folder must hold weights.

    Raises: ModelError if there is nothing to load, or an adapter has another adapter as its base.
    """
    folder = local(path)
    if folder is None:
        return _resolve_hub(path, revision)
    if not folder.is_dir():
        raise ModelError(f"{path} is a file; name the folder that holds the model.")
    check_model_files(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        _require_weights(folder, only_config=not weights)
        return ModelSource(base=str(folder))
    _require_safetensors(folder, "adapter_model.safetensors", "adapter_model.bin", "an adapter")
    base = _base_of(folder)
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{path} is an adapter on {base}, which is itself an adapter; only an adapter on a whole model can be "
            f"loaded. Merge the lower one first: alignment merge {base} OUT."
        )
    source = ModelSource(base=resolve_model(base).base, adapter=str(folder))
    _require_own_base(source, folder)
    return source


def _require_own_base(source: ModelSource, adapter: Path) -> None:
    """Refuse a base whose weights are not those that the adapter's manifest, if it has one, names."""
    trained_on = read_manifest(adapter).get("lineage", {}).get("base_sha256")
    if trained_on is None:
        return
    found = weights_hash(source.base)
    if found != trained_on and not any(identity.startswith("hub:") for identity in (found, trained_on)):
        raise ModelError(
            f"{adapter} is an adapter of another base: it was trained on weights {trained_on[:12]}, and {source.base} "
            f"holds {found[:12]}. Put the old base back, or train the adapter anew."
        )


def _resolve_hub(path: str, revision: str) -> ModelSource:
    reason = why_not_on_hub(path)
    if reason is not None:
        raise ModelError(f"model {path} does not exist: {reason}; name a model folder, a run directory or a Hub id.")
    reach()
    try:
        config = find_adapter_config_file(path, revision=revision)
    except Exception as error:
        raise cannot_load(path, error) from error
    if config is None:
        return ModelSource(base=path)
    return ModelSource(base=named_base(Path(config)), adapter=path)


def _base_of(adapter: Path) -> str:
    """Read the base from an adapter's configuration.

    A relative path counts from the working directory, as for peft; failing that from a folder above the adapter, so
    that a project that moved, or is used from elsewhere, still fits together.
    """
    file = adapter / ADAPTER_CONFIG
    base = named_base(file)
    for root in (Path(), *adapter.resolve().parents):
        if (root / base).is_dir():
            return str(root / base)
    if may_be_on_hub(base):
        return base
    raise ModelError(
        f"{adapter} is an adapter on {base}, which does not exist; put the base there or correct "
        f"base_model_name_or_path in {file}."
    )


def _require_weights(folder: Path, *, only_config: bool) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json and no {ADAPTER_CONFIG}, so it is neither a model nor an adapter"
            f"{_unfinished(folder)}."
        )
    if not only_config:
        _require_safetensors(folder, "model*.safetensors", "pytorch_model*.bin", "a model")


def _require_safetensors(folder: Path, weights: str, pickled: str, what: str) -> None:
    require_weights_as_saved(folder)
    files = [file for file in sorted(folder.glob(weights)) if is_there(file)]
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged or was cut off: {error}. Copy or train it again.") from error
    if files:
        return
    if any(folder.glob(pickled)):
        raise ModelError(
            f"{folder} holds weights only as {pickled}, a pickle, which can run code when it is read; only safetensors "
            "are loaded. Convert it where you trust it: load it with transformers and call save_pretrained."
        )
    raise ModelError(f"{folder} is {what} without weights: no {weights} in it{_unfinished(folder)}.")


def _unfinished(folder: Path) -> str:
    if (folder / "manifest.json").is_file():
        return "; it is a run directory whose stage has not finished, or is not one that trains a model"
    return ""


def cannot_load(place: str, error: Exception) -> ModelError:
    """Return the error of a library that could not load what is at a place, in one line."""
    first = first_line(error)
    if "custom code" in first:  # transformers' `resolve_trust_remote_code`
        return ModelError(
            f"{place} needs Python code of its own, which runs only where you ask for it: read the code, then give "
            "trust_remote_code: true in the recipe, or --trust_remote_code."
        )
    if Path(place).is_dir():
        return ModelError(f"{place} cannot be loaded: {first}")
    return ModelError(f"{place} is neither a folder here nor a model that can be had from the Hub: {first}")
