"""The prompts that are answered, and what the judge is asked about the answers: label, ppo and evaluate."""

from collections.abc import Callable, Sequence

from alignment.config.schema import EvaluateRecipe, LabelRecipe, PPORecipe
from alignment.data.load import Loaded, load_answers
from alignment.data.prompts import prompts_to_answer
from alignment.data.rows import Prompt
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.evaluate.heldout import HeldOut, held_out_prompts
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
    return prompt_stage("label", loaded, written.template, lambda prompt: judge.question(prompt, answers))


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
        lambda: Lengths([], []),
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
    stage = prompt_stage("ppo", loaded, written.template, _of_all(judges, [ANSWER.format(1)]))
    stage.limit = context
    return stage


def evaluated(recipe: EvaluateRecipe, written: Written) -> Stage:
    """Read the prompts that `alignment evaluate` asks its candidates.

    Raises: DataError as evaluation does; JudgeError where a file of a judge is missing.
    """
    judges = [Asked(entry, seed=recipe.seed) for entry in recipe.judges]
    held_out = held_out_prompts(recipe)
    asks = _of_all(judges, [ANSWER.format(number) for number in (1, 2)])
    return prompt_stage("evaluate", held_out, written.template, asks)


def _of_all(judges: Sequence[Asked], answers: Sequence[str]) -> Asks:
    def asks(prompt: Prompt) -> str | None:
        return "\n\n".join(judge.question(prompt, answers) for judge in judges) or None

    return asks


def prompt_stage(name: str, loaded: Loaded[Prompt] | HeldOut, template: Template, asks: Asks = lambda _: None) -> Stage:
    """Return the prompts of `prompts_to_answer` or `held_out_prompts`; `asks` tells what the judge is asked of one."""
    prompts = loaded.rows if isinstance(loaded, Loaded) else loaded.prompts
    stage = Stage(
        name,
        loaded.sources,
        lambda place: build(place),
        lambda: Lengths([len(template.prompt_ids(prompt)) for prompt in prompts], [0] * len(prompts)),
        loaded.skipped,
        loaded.files,
        loaded.formats,
        {"prompts": {"to answer": len(prompts)}},
        unit="prompts",
    )

    def build(place: int) -> Row:
        source, prompt = loaded.sources[place], prompts[place]
        ids = template.prompt_ids(prompt)
        tokens = {"segments": Tokens(ids, [False] * len(ids))}
        return Row(source, stage.layout(source), tokens, parts_of_prompt(prompt), question=asks(prompt))

    return stage
