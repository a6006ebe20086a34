"""Runs the stage in this process, on rows written for it."""

import json
from pathlib import Path

import yaml

from alignment.config import load_recipe
from alignment.config.schema.prepare import PrepareRecipe
from alignment.json_lines import read_ours
from recipes.prepare import main

SHARED = Path(__file__).parents[3] / "shared" / "data"


def write_rows(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_recipe(folder: Path, data, *steps, **keys) -> list[str]:
    """Write a recipe and return the words of its command line; `data`: rows, a path, or several paths."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        data = write_rows(folder / "data.jsonl", data)
    paths = [data] if isinstance(data, str | Path) else data
    values = {"stage": "prepare", "output_dir": str(folder / "run"), "datasets": [{"path": str(one)} for one in paths]}
    (folder / "prepare.yaml").write_text(yaml.safe_dump({**values, "steps": list(steps), **keys}))
    return ["--config", str(folder / "prepare.yaml")]


def recipe_of(folder: Path, data, *steps, **keys) -> PrepareRecipe:
    return load_recipe(PrepareRecipe, write_recipe(folder, data, *steps, **keys))


class Run:
    """What a run left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, split: str = "train") -> list[dict]:
        return read_ours(self.folder / f"{split}.jsonl")

    @property
    def dropped(self) -> list[dict]:
        return read_ours(self.folder / "dropped.jsonl")

    @property
    def manifest(self) -> dict:
        return json.loads((self.folder / "manifest.json").read_text())

    def steps(self) -> list[dict]:
        return json.loads((self.folder / "prepare.json").read_text())["steps"]


def prepare(folder: Path, data, *steps, **keys) -> Run:
    """Write a recipe and run it."""
    main(write_recipe(folder, data, *steps, **keys))
    return Run(folder / "run")
