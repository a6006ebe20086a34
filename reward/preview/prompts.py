"""The prompts that are answered, and what the judge is asked about the answers: label, ppo and evaluate."""

from collections.abc import Callable, Sequence
from typing import Any

from alignment.config.schema import EvaluateRecipe, LabelRecipe, PPORecipe
from alignment.data.load import load_answers
from alignment.data.prompts import prompts_to_answer
from alignment.data.rows import Prompt
from alignment.errors import DataError
from alignment.evaluate.heldout import held_out_prompts
from alignment.preview.origins import parts_of_prompt
from alignment.preview.rows import Lengths, Part, Row, Stage, Tokens
from alignment.preview.stages import Written, config_of
from reward.preview.questions import Asked

ANSWER = "(answer {}, which the policy will write)"
Asks = Callable[[Prompt], str | None]


def labelled(recipe: LabelRecipe, written: Written | None) -> Stage:
    """Read what `alignment label` answers or compares.

    Raises: DataError as labelling does; JudgeError where a file of the judge is missing.
    """
    judge = Asked(recipe.judge, seed=recipe.seed)
    if recipe.responses == "given" or written is None:
        return _given(recipe, judge)
    loaded = prompts_to_answer(recipe, written.template, getattr(written.model.config, "max_position_embeddings", None))
    answers = [ANSWER.format(number) for number in range(1, recipe.num_generations + 1)]
    stage = _prompts(recipe, loaded.rows, loaded.sources, written, lambda prompt: judge.question(prompt, answers))
    stage.skipped, stage.files, stage.formats = loaded.skipped, loaded.files, loaded.formats
    return stage


def _given(recipe: LabelRecipe, judge: Asked) -> Stage:
    loaded = load_answers(
        recipe.datasets, on_bad_row=recipe.on_bad_row, seed=recipe.seed, max_samples=recipe.max_samples
    )
    if not loaded.rows:
        raise DataError("there are no answers to judge; every row was left out." if loaded.skipped else "no rows.")
    stage = Stage(
        "label",
        loaded.sources,
        lambda place: build(place),
        Lengths([], []),
        loaded.skipped,
        loaded.files,
        loaded.formats,
        {"answers": {"given": sum(len(row.responses) for row in loaded.rows)}},
        unit="prompts",
    )

    def build(place: int) -> Row:
        row = loaded.rows[place]
        answers = [Part(f"answer {number}", text) for number, text in enumerate(row.responses, 1)]
        return Row(
            row.source,
            stage.layout(row.source),
            {},
            parts_of_prompt(row.prompt) + answers,
            question=judge.question(row.prompt, row.responses),
        )

    return stage


def sampled(recipe: PPORecipe, written: Written) -> Stage:
    """Read the prompts that `alignment ppo` answers.

    Raises: DataError as training does; JudgeError where a file of a judge is missing.
    """
    judges = [
        Asked(entry.judge, seed=recipe.seed, pointwise=True) for entry in recipe.scorers if entry.judge is not None
    ]
    configs = [written.model.config]
    if recipe.value_model_path:
        configs.append(config_of(recipe.model_copy(update={"model_name_or_path": recipe.value_model_path})))
    contexts = [getattr(config.get_text_config(), "max_position_embeddings", None) for config in configs]
    context = min((limit for limit in contexts if limit is not None), default=None)
    loaded = prompts_to_answer(recipe, written.template, context)
    stage = _prompts(recipe, loaded.rows, loaded.sources, written, _of_all(judges, [ANSWER.format(1)]))
    stage.skipped, stage.files, stage.formats = loaded.skipped, loaded.files, loaded.formats
    stage.limit = context
    return stage


def evaluated(recipe: EvaluateRecipe, written: Written) -> Stage:
    """Read the prompts that `alignment evaluate` asks its candidates.

    Raises: DataError as evaluation does; JudgeError where a file of a judge is missing.
    """
    judges = [Asked(entry, seed=recipe.seed) for entry in recipe.judges]
    held_out = held_out_prompts(recipe)
    asks = _of_all(judges, [ANSWER.format(number) for number in (1, 2)])
    stage = _prompts(recipe, held_out.prompts, held_out.sources, written, asks)
    stage.skipped, stage.files, stage.formats = held_out.skipped, held_out.files, held_out.formats
    return stage


def _of_all(judges: Sequence[Asked], answers: Sequence[str]) -> Asks:
    def asks(prompt: Prompt) -> str | None:
        return "\n\n".join(judge.question(prompt, answers) for judge in judges) or None

    return asks


def _prompts(recipe: Any, prompts: Sequence[Prompt], sources: Sequence[str], written: Written, asks: Asks) -> Stage:
    ids = [written.template.prompt_ids(prompt) for prompt in prompts]
    stage = Stage(
        recipe.stage,
        list(sources),
        lambda place: build(place),
        Lengths([len(each) for each in ids], [0] * len(ids)),
        [],
        {},
        {},
        {"prompts": {"to answer": len(prompts)}},
        unit="prompts",
    )

    def build(place: int) -> Row:
        tokens = Tokens(ids[place], [False] * len(ids[place]))
        source, prompt = sources[place], prompts[place]
        parts = parts_of_prompt(prompt)
        return Row(source, stage.layout(source), {"segments": tokens}, parts, question=asks(prompt))

    return stage
