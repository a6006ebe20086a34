"""What evaluation reads: held-out prompts, and text outside the domain."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.config.schema import DatasetEntry, EvaluateRecipe
from alignment.data.load import load_demonstrations, load_prompts, load_rankings
from alignment.data.prompts import sources_of
from alignment.data.rows import Demonstration, Prompt, Ranking
from alignment.data.splits import prompt_key, split_by_prompt
from alignment.data.stored import Stored
from alignment.errors import DataError, JsonError
from alignment.evaluate.forgetting import Outside, text_of
from alignment.evaluate.metrics import common_texts
from alignment.evaluate.questions import Questions
from alignment.policy.tokenizer import load_tokenizer
from alignment.strict_json import decoded


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Prompts no stage trained on, each once, and the files they came from."""

    prompts: list[Prompt]
    files: dict[str, str]  # path to SHA-256
    skipped: list[str]
    sources: list[str] = field(default_factory=list)  # "file:line" of each prompt
    formats: dict[str, str] = field(default_factory=dict)  # file → layout

    @property
    def subsets(self) -> list[str]:
        """The name of each prompt's data set; [] where all are of one."""
        files = [source.rpartition(":")[0] for source in self.sources]
        names = {file: Path(file).name for file in files}
        if len(names) < 2:
            return []
        return [names[file] if len(set(names.values())) == len(names) else file for file in files]


def held_out_prompts(recipe: EvaluateRecipe) -> HeldOut:
    """Load `eval_datasets`; without them the held-out share of `datasets`; without `test_split_size` all of them.

    The split by prompt is the one every other stage makes with the same data, `test_split_size` and seed.

    Raises: DataError if nothing is left.
    """
    entries = list(recipe.eval_datasets or recipe.datasets)
    max_samples = None if recipe.eval_datasets else recipe.max_samples
    loaded = load_prompts(entries, on_bad_row=recipe.on_bad_row, seed=recipe.seed, max_samples=max_samples)
    rows = loaded.rows
    if not recipe.eval_datasets and recipe.test_split_size is not None:
        rows = split_by_prompt(rows, recipe.test_split_size, recipe.seed)[1]
    unique = {prompt_key(prompt): prompt for prompt in reversed(rows)}
    prompts = list(reversed(unique.values()))
    if recipe.max_eval_samples is not None and recipe.max_eval_samples < len(prompts):
        kept = random.Random(recipe.seed).sample(range(len(prompts)), recipe.max_eval_samples)
        prompts = [prompts[i] for i in sorted(kept)]  # not the first ones: files are often sorted
    if not prompts:
        paths = ", ".join(entry.path for entry in entries)
        raise DataError(f"{paths}: no held-out prompt is left to evaluate on; raise test_split_size or add data.")
    return HeldOut(prompts, loaded.files, loaded.skipped, sources_of(prompts, loaded), loaded.formats)


def outside_text(recipe: EvaluateRecipe) -> str | None:
    """Return the text of `perplexity_datasets`, rows joined by a blank line; None if none is named.

    A `.txt` file is read as it is. No more is kept than `perplexity_max_tokens` could need.
    """
    if not recipe.perplexity_datasets:
        return None
    texts = [_entry_text(entry, recipe) for entry in recipe.perplexity_datasets]
    # Sixteen characters make at least one token in any tokenizer met so far; reading on would be wasted.
    return "\n\n".join(texts)[: 16 * recipe.perplexity_max_tokens]


def outside_domain(recipe: EvaluateRecipe, questions: Sequence[Questions] = ()) -> Outside | None:
    """Return the documents of `perplexity_datasets` and the rows of `outside_tasks`; None if there is nothing.

    Documents are read until `perplexity_max_tokens` of the baseline's tokenizer.

    Args:
        questions: those of `outside_questions`.

    Raises: DataError if one cannot be read.
    """
    if not recipe.perplexity_datasets and not recipe.outside_tasks and not questions:
        return None
    documents: dict[str, list[Demonstration]] = {}
    tasks: dict[str, list[Ranking]] = {}
    for entry in recipe.perplexity_datasets:
        loaded = load_demonstrations([entry], on_bad_row=recipe.on_bad_row, seed=recipe.seed)
        documents.setdefault(entry.path, []).extend(loaded.rows)
    for entry in recipe.outside_tasks:
        ranked = load_rankings([entry], on_bad_row=recipe.on_bad_row, seed=recipe.seed)
        rows = [row for row in ranked.rows if any({pair.first, pair.second} == {0, 1} for pair in row.pairs)]
        tasks.setdefault(entry.path, []).extend(rows)
    if documents:
        tokenizer, most = load_tokenizer(recipe), recipe.perplexity_max_tokens
        documents = {name: _common(tokenizer, rows, most) for name, rows in documents.items()}
    return Outside(documents, tasks, questions)


def _common(tokenizer: Any, rows: Sequence[Demonstration], most: int) -> list[Demonstration]:
    """Return the rows that `common_texts` returns; the first may have lost the end of its text."""
    texts = common_texts(tokenizer, [text_of(row) for row in rows], most)
    kept = list(rows[: len(texts)])
    if kept and texts[0] != text_of(kept[0]):
        before = len(text_of(replace(kept[0], completion="")))
        whole = len(texts[0]) > before
        cut: dict[str, Any] = {"completion": texts[0][before:]} if whole else {"prompt": "", "completion": texts[0]}
        kept[0] = replace(kept[0], **cut)
    return kept


def _entry_text(entry: DatasetEntry, recipe: EvaluateRecipe) -> str:
    path = Path(entry.path)
    if path.suffix == ".txt":
        if not path.exists():
            raise DataError(f"{path}: no such file, named in perplexity_datasets.")
        with Stored(path) as stored:
            try:
                text = decoded(stored.text_of(stored.whole()))
            except JsonError as error:
                raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
        if not text.strip():
            raise DataError(f"{path}: empty; perplexity needs text.")
        return text
    loaded = load_demonstrations([entry], on_bad_row=recipe.on_bad_row, seed=recipe.seed)
    return "\n\n".join(map(text_of, loaded.rows))
