"""The reference of recipe keys: complete, and as docs/recipes.md has it."""

from importlib.metadata import version
from pathlib import Path

import pytest

from alignment.config import reference
from alignment.config.schema import STAGES, PipelineRecipe
from alignment.config.schema.parts import parts_within

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    if any(version(name) != pinned[name] for name in ("trl", "transformers")):
        pytest.skip("the page names classes of the pinned versions")
    assert (ROOT / "docs/recipes.md").read_text() == reference.markdown(), (
        "write it: python -m alignment.config.reference > docs/recipes.md"
    )


@pytest.mark.parametrize("cls", [*STAGES.values(), PipelineRecipe])
def test_every_key_has_a_meaning(cls):
    for part in parts_within(cls):
        without = {name for name, info in part.model_fields.items() if not info.description}
        assert without <= {"stage", *reference.INTERNAL}, part.__name__


@pytest.mark.parametrize("cls", [*STAGES.values(), PipelineRecipe])
def test_every_key_has_a_row(cls):
    page = reference.markdown()
    for part in parts_within(cls):
        for name in part.model_fields.keys() - set(reference.INTERNAL):
            assert f"| `{name}`" in page, f"{part.__name__}.{name}"


def test_a_row_reports_type_default_meaning_and_source():
    rows = reference.markdown().splitlines()
    meaning = "Dropout probability of the adapter's input."
    assert f"| `lora_dropout` | a number, ≥ 0, < 1 | `0.0` | {meaning} | TRL `ModelConfig` |" in rows
    assert any(row.startswith("| `judges` | a list of [mappings](#judge) | required |") for row in rows)
    assert any(row.startswith("| `max_calls` † |") for row in rows)
