"""What a recipe trains on: the product's own loaders and template, each row as text with its trained parts in ⟦ ⟧."""

import re
import shutil
from pathlib import Path

import pytest

from alignment.config.loading import check_recipe
from alignment.data import load_demonstrations, load_rankings
from alignment.data.template import IGNORE, Template
from alignment.errors import AlignmentError
from alignment.policy.tokenizer import load_tokenizer
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from reward.models.batches import encode_rankings

EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*")
LIMIT = 4096


@pytest.fixture
def case(shared, tmp_path, monkeypatch):
    """Enter a copy of a case's folder, with the models where its recipes name them."""

    def enter(name: str) -> Path:
        folder = tmp_path / "faults" / name
        shutil.copytree(shared / "faults" / name, folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        (tmp_path / "models").symlink_to(shared / "models")
        monkeypatch.chdir(folder)
        return folder

    return enter


def parts(config: str):
    """Return a recipe, its tokenizer and its template."""
    recipe = check_recipe(config)
    tokenizer = load_tokenizer(recipe)
    return recipe, tokenizer, Template(tokenizer, recipe.chat_template, recipe.eos_token)


def demonstrations(config: str) -> list[str]:
    """Return the rows that an SFT recipe trains on."""
    recipe, tokenizer, template = parts(config)
    rows = load_demonstrations(recipe.datasets, on_bad_row=recipe.on_bad_row, seed=recipe.seed).rows
    found = tokenise_demonstrations(rows, template, limit=recipe.max_length or LIMIT, on_bad_row=recipe.on_bad_row)
    return [_marked(tokenizer, row["input_ids"], row["labels"]) for row in found.rows]


def pairs(config: str) -> list[tuple[str, str, str]]:
    """Return prompt, chosen and rejected of the rows that a DPO recipe trains on."""
    recipe, tokenizer, template = parts(config)
    rows = load_rankings(recipe.datasets, on_bad_row=recipe.on_bad_row, seed=recipe.seed).rows
    found = tokenise_pairs(rows, template, limit=recipe.max_length or LIMIT, on_bad_row=recipe.on_bad_row)
    keys = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [tuple(tokenizer.decode(row[key]) for key in keys) for row in found.rows]


def scored(config: str) -> list[list[str]]:
    """Return the texts that a reward recipe scores, by ranking, the first of which is the better one."""
    recipe, tokenizer, template = parts(config)
    rows = load_rankings(recipe.datasets, on_bad_row=recipe.on_bad_row, seed=recipe.seed).rows
    found = encode_rankings(rows, template, max_length=recipe.max_length, on_bad_row=recipe.on_bad_row)
    assert all(pair[2] == 1.0 for row in found.rows for pair in row.pairs)
    return [[tokenizer.decode(ids) for ids in row.input_ids] for row in found.rows]


def _marked(tokenizer, ids: list[int], labels: list[int]) -> str:
    text, run, trained = "", [], False
    for token, label in [*zip(ids, labels, strict=True), (None, None)]:
        now = label not in (IGNORE, None)
        if token is None or (now != trained and run):
            text += f"⟦{tokenizer.decode(run)}⟧" if trained else tokenizer.decode(run)
            run = []
        trained = now
        run.append(token)
    return text


def answers(config: str) -> list[str]:
    """Return the trained parts alone, in order, without thoughts that a template leaves empty."""
    found = [part for row in demonstrations(config) for part in re.findall("⟦(.*?)⟧", row, re.DOTALL)]
    return [text for part in found if (text := EMPTY_THOUGHT.sub("", part))]


def refusal(action, *arguments) -> str:
    """Return the one line with which the product refuses."""
    with pytest.raises(AlignmentError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
