"""Prompts to sample from: the training side of a recipe's data, each leaving room for an answer."""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from alignment.config.schema import LabelRecipe, PolicyGradientRecipe
from alignment.data.load import load_rows
from alignment.data.rows import Prompt
from alignment.data.source_rows import Loaded
from alignment.data.splits import split_by_prompt
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.meter import say_left_out
from alignment.rollout.context import prompt_room


def prompts_to_answer(
    recipe: LabelRecipe | PolicyGradientRecipe,
    template: Template,
    context: int | None,
    loaded: Loaded[Prompt] | None = None,
) -> Loaded[Prompt]:
    """Load a recipe's prompts without those that `test_split_size` holds out for evaluation.

    Args:
        context: most tokens of prompt and answer, None for no limit.
        loaded: the recipe's data, if it is loaded already.

    Raises: DataError if one does not fit and `on_bad_row` is stop; `skipped` names those that skip leaves out.
    """
    loaded = loaded or load_rows(recipe)
    rows = loaded.rows
    if recipe.test_split_size is not None:
        rows = split_by_prompt(rows, recipe.test_split_size, recipe.seed)[0]
    rows, too_long = fitting_prompts(
        rows,
        template,
        sources=sources_of(rows, loaded),
        max_prompt_length=recipe.max_prompt_length,
        context=context,
        max_new_tokens=recipe.max_new_tokens,
        skip=recipe.on_bad_row == "skip",
    )
    places = places_of(rows, loaded)
    return replace(
        loaded,
        rows=rows,
        skipped=loaded.skipped + too_long,
        sources=[loaded.sources[place] for place in places],
        columns=[loaded.columns[place] for place in places] if loaded.columns else [],
    )


def kind_of_prompts(prompts: Iterable[Prompt]) -> str | None:
    """Return `text` or `messages`, if all prompts are of one kind."""
    kinds = {"text" if isinstance(prompt, str) else "messages" for prompt in prompts}
    return kinds.pop() if len(kinds) == 1 else None


def places_of(rows: Sequence[Prompt], loaded: Loaded[Prompt]) -> list[int]:
    """Return the places of rows that are some of those loaded, in their order.

    Equal prompts are kept or left out alike, so the first of `rows` with some words is the first one loaded with them.
    """
    places: dict[str, deque[int]] = {}
    for place, prompt in enumerate(loaded.rows):
        places.setdefault(json.dumps(prompt), deque()).append(place)
    return [places[json.dumps(prompt)].popleft() for prompt in rows]


def sources_of(rows: Sequence[Prompt], loaded: Loaded[Prompt]) -> list[str]:
    """Return "file:line" of rows that are some of those loaded, in their order."""
    return [loaded.sources[place] for place in places_of(rows, loaded)]


def fitting_prompts(
    prompts: list[Prompt],
    template: Template,
    *,
    max_prompt_length: int | None,
    context: int | None,
    max_new_tokens: int,
    skip: bool,
    sources: Sequence[str] = (),
) -> tuple[list[Prompt], list[str]]:
    """Return the prompts that leave room for an answer, and a line for each that was left out.

    Args:
        sources: "file:line" of each, to name them by.

    Raises: DataError naming every prompt that is too long, where `skip` is false.
    """
    kept: list[Prompt] = []
    faults: list[str] = []
    room = prompt_room(context, max_new_tokens, encoded=template.sides is not None)
    for row, prompt in enumerate(prompts, 1):
        start = repr(prompt if isinstance(prompt, str) else prompt[-1]["content"])[:60]
        name = f"{sources[row - 1]}: prompt {row} ({start})" if sources else f"prompt {row} ({start})"
        try:
            length = len(template.prompt_ids(prompt))
        except DataError as error:
            faults.append(f"{name}: {error}")
            continue
        if max_prompt_length is not None and length > max_prompt_length:
            faults.append(f"{name} has {length} tokens; max_prompt_length is {max_prompt_length}")
        elif room is not None and length > room:
            faults.append(
                f"{name} has {length} tokens; with max_new_tokens {max_new_tokens} that is more than "
                f"the model's context of {context}"
            )
        else:
            kept.append(prompt)
    if faults and not skip:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise DataError(f"{shown}. Shorten them, lower max_new_tokens, or set on_bad_row: skip to leave them out.")
    if not kept:
        raise DataError("no prompt is left; every one is too long." if faults else "there are no prompts.")
    say_left_out(faults, len(prompts), "prompts")
    return kept, faults
