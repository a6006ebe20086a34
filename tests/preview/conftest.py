"""Recipes to preview, with the tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Callable[..., str]:
    def write(stage: str, rows: list[dict[str, Any]], **keys: Any) -> str:
        data = tmp_path / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = {
            "stage": stage,
            "output_dir": str(tmp_path / "run"),
            "model_name_or_path": str(tiny_model_dir),
            "datasets": [{"path": str(data)}],
            **keys,
        }
        file = tmp_path / f"{stage}.yaml"
        file.write_text(yaml.safe_dump(given))
        return str(file)

    return write
