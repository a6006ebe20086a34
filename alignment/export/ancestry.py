"""The stages that a model was made by, back to its base: its own run, and the runs behind its model and its data."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError
from alignment.manifest import read_manifest
from alignment.policy.weights import weights_hash

MOST = 100  # runs
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Made:
    """A run in a model's ancestry."""

    folder: Path
    manifest: dict[str, Any]
    role: str  # what the run after it used it for: model, data, reward model

    @property
    def stage(self) -> str:
        """Its stage."""
        return str(self.manifest.get("stage", "unknown"))

    @property
    def recipe(self) -> dict[str, Any]:
        """Its resolved recipe."""
        found = self.manifest.get("recipe")
        return found if isinstance(found, dict) else {}

    @property
    def weights(self) -> str | None:
        """The hash of the weights in its folder; None if it has none."""
        return weights_hash(str(self.folder)) if any(self.folder.glob(WEIGHTS)) else None

    @property
    def data(self) -> dict[str, str]:
        """The files that it read, with their SHA-256."""
        found = self.manifest.get("data")
        files = found.get("files", found) if isinstance(found, dict) else {}
        return {str(path): str(digest) for path, digest in files.items() if isinstance(digest, str)}


@dataclass
class Ancestry:
    """The runs, the newest first, and what of them was not found as it was used."""

    runs: list[Made] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    base: str | None = None  # the model that no run made
    base_hash: str | None = None
    base_place: str | None = None  # its folder or Hub id; None: it was not found with these weights


def ancestry(run: Path) -> Ancestry:
    """Follow a run's manifest, and those of the runs whose outputs it read."""
    found = Ancestry()
    manifest = _manifest(run, found)
    if not manifest:
        return found
    waiting, seen = [Made(run, manifest, "")], set()
    while waiting and len(found.runs) < MOST:
        made = waiting.pop(0)
        key = made.manifest.get("identifier") or str(made.folder.resolve())
        if key in seen:
            continue
        seen.add(key)
        found.runs.append(made)
        waiting += _before(made, found)
    _follow_bases(Made(run, manifest, ""), found)
    return found


def _follow_bases(made: Made, found: Ancestry) -> None:
    """Set the base: that of the run, or, if a run made all its weights, that run's, and so on."""
    for _ in range(MOST):
        lineage = made.manifest.get("lineage")
        if not isinstance(lineage, dict):
            return
        base, expected = (str(lineage[key]) if lineage.get(key) else None for key in ("base", "base_sha256"))
        found.base, found.base_hash, found.base_place = base, expected, hub_model(expected)
        if base is None or found.base_place is not None:
            return
        same = [place for place in places(base, made.folder) if weights_hash(str(place)) == expected]
        if not same:
            return
        found.base_place = str(same[0])
        before = _manifest(same[0], found)
        if not before:
            return
        made = Made(same[0], before, "model")


def _before(made: Made, found: Ancestry) -> Iterator[Made]:
    """Yield the runs whose outputs a run read."""
    lineage = made.manifest.get("lineage") or {}
    model = made.recipe.get("model_name_or_path")
    if isinstance(model, str):
        part = "adapter_sha256" if lineage.get("adapter") else "base_sha256"
        expected = lineage.get(part) if "adapter" in lineage else None
        yield from _run_at(model, made, found, "model", expected)
    rewards = made.recipe.get("reward_model_path")
    for path in rewards if isinstance(rewards, list) else [rewards]:
        if isinstance(path, str):
            yield from _run_at(path, made, found, "reward model", None)
    for file in made.data:
        yield from _run_at(str(Path(file).parent), made, found, "data", None)


def _run_at(path: str, made: Made, found: Ancestry, role: str, expected: str | None) -> Iterator[Made]:
    """Yield the run in a folder that a recipe named, perhaps before the folders moved."""
    folders = [folder for folder in places(path, made.folder) if _manifest(folder, found)]
    if not folders:
        return
    same = [folder for folder in folders if expected is None or weights_hash(str(folder)) == expected]
    if not same:
        found.doubts.append(f"{folders[0].name} holds other weights now than {made.folder.name} started from")
    folder = (same or folders)[0]
    yield Made(folder, _manifest(folder, found), role)


def places(path: str, beside: Path) -> list[Path]:
    """Return the folders that a path in a manifest may mean: a neighbour of the run, or one in the working folder.

    No other is looked at: a manifest from elsewhere may name any path.
    """
    named, here = Path(path), Path.cwd().resolve()
    candidates = [beside.resolve().parent / named.name, (here / named).resolve()]
    inside = [place for place in candidates if place.parent == beside.resolve().parent or here in place.parents]
    return [place for place in dict.fromkeys(inside) if place.is_dir()]


def _manifest(folder: Path, found: Ancestry) -> dict[str, Any]:
    try:
        return read_manifest(folder)
    except AlignmentError as error:
        if str(error) not in found.doubts:
            found.doubts.append(str(error))
        return {}


def hub_model(weights: str | None) -> str | None:
    """Return the Hub id in the hash of a model's weights; None if they are in a folder."""
    return weights.removeprefix("hub:") if weights is not None and weights.startswith("hub:") else None


def hub_data(source: str) -> str | None:
    """Return the Hub id of a source of data as manifests name it, `owner/name[split]`; None if it is a file."""
    match = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)\[[^\[\]]*\]", source, re.ASCII)
    return match[1] if match else None
