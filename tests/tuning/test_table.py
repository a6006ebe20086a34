"""The table in docs/tuning.md is the one that the trials wrote, has every cell, and agrees with the methods' facts."""

import pytest

from alignment.config.methods import TUNING_METHODS
from tests.tuning.table import COLUMNS, DOCUMENT, markdown, read

STAGES = ("sft", "reward", "dpo", "ppo", "grpo")


def test_the_document_shows_what_the_trials_wrote():
    assert markdown(read()) in DOCUMENT.read_text(encoding="utf-8"), "write it: make tuning-table"


def test_every_method_has_every_column_and_nothing_else_is_there():
    cells = read()
    assert [*cells] == [*TUNING_METHODS]
    assert all(tuple(row) == COLUMNS for row in cells.values())


@pytest.mark.parametrize("name", TUNING_METHODS)
def test_the_cells_agree_with_the_facts_that_the_code_declares(name):
    method, row = TUNING_METHODS[name], read()[name]
    works = {column for column, outcome in row.items() if outcome.partition(":")[0] == "works"}
    assert works.issuperset(STAGES)
    assert ("4-bit" in works) == method.allows_4bit
    assert ("8-bit" in works) == method.allows_8bit
    assert ("merge" in works) == (method.merges or not method.has_adapter)
    expected = "the adapter" if method.vllm_adapter else "merged weights"
    sampled = method.merges and not method.samples_ranks
    assert row["vLLM"].startswith("works: " + expected if sampled else "refused: ")
    whole = method.reads_gradients or method.samples_ranks or method.family == "soft_prompts"
    assert row["shards"].startswith("refused: ") == whole
