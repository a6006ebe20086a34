"""The prompts that are answered, and what the judge is asked about the answers: label, ppo and evaluate."""

from collections.abc import Sequence

from alignment.config.schema import EvaluateRecipe, LabelRecipe, PolicyGradientRecipe
from alignment.config.schema.scorers import JudgeScorerEntry
from alignment.data.load import load_answers, load_rows
from alignment.data.prompts import prompts_to_answer
from alignment.data.rows import Prompt
from alignment.errors import DataError, named_inputs
from alignment.evaluate.inputs import read_inputs
from alignment.policy.base import config_of, require_loadable, task_of
from alignment.preview.origins import parts_of_prompt
from alignment.preview.rows import Lengths, Part, Row, Stage
from alignment.preview.stages import Question, Written, prompt_stage
from reward.models.ensemble import member_paths
from reward.models.loading import require_score_head
from reward.preview.questions import JudgePreview
from reward.scorers import build_functions, paths_of, score_entries, try_functions
from reward.scorers.outside import build_questions

ANSWER = "(answer {}, which the policy will write)"


def labelled(recipe: LabelRecipe, written: Written | None) -> Stage:
    """Read what `alignment label` answers or compares.

    Raises: DataError as labelling does; JudgeError if a file of the judge is missing.
    """
    judge = JudgePreview(recipe.judge, seed=recipe.seed)
    if recipe.responses == "given" or written is None:
        return _given(recipe, judge)
    require_loadable(recipe, trainable=False, peft=None, task=task_of(recipe))
    loaded = prompts_to_answer(recipe, written.template, getattr(written.model.config, "max_position_embeddings", None))
    answers = [ANSWER.format(number) for number in range(1, recipe.num_generations + 1)]
    return prompt_stage("label", loaded, loaded.rows, written.template, lambda prompt: judge.question(prompt, answers))


def _given(recipe: LabelRecipe, judge: JudgePreview) -> Stage:
    loaded = load_answers(
        recipe.datasets, on_bad_row=recipe.on_bad_row, seed=recipe.seed, max_samples=recipe.max_samples
    )
    if not loaded.rows:
        raise DataError("there are no answers to judge; every row was left out." if loaded.skipped else "no rows.")

    def build(place: int) -> Row:
        row = loaded.rows[place]
        answers = [Part(f"answer {number}", text) for number, text in enumerate(row.responses, 1)]
        question = judge.question(row.prompt, row.responses)
        return Row(row.source, {}, parts_of_prompt(row.prompt) + answers, question=question)

    return Stage(
        "label",
        loaded.sources,
        build,
        lambda: Lengths([], []),
        loaded.skipped,
        loaded.files,
        loaded.formats,
        {"answers": {"given": sum(len(row.responses) for row in loaded.rows)}},
        unit="prompts",
    )


def sampled(recipe: PolicyGradientRecipe, written: Written) -> Stage:
    """Read the prompts that the policy answers.

    Raises: DataError and ModelError as training does; JudgeError if a file of a judge is missing.
    """
    judges = [
        JudgePreview(entry.judge, seed=recipe.seed, pointwise=True)
        for entry in recipe.scorers
        if isinstance(entry, JudgeScorerEntry)
    ]
    require_loadable(recipe, trainable=True, peft=recipe)
    for path in paths_of(score_entries(recipe)):
        require_score_head(path)
    configs = [written.model.config]
    if recipe.value is not None and recipe.value.value_model_path:
        configs.append(config_of(recipe.model_copy(update={"model_name_or_path": recipe.value.value_model_path})))
    contexts = [getattr(config.get_text_config(), "max_position_embeddings", None) for config in configs]
    context = min((limit for limit in contexts if limit is not None), default=None)
    functions = build_functions(recipe)
    rows = load_rows(recipe)
    try_functions(recipe, functions, rows)
    loaded = prompts_to_answer(recipe, written.template, context, rows)
    stage = prompt_stage(recipe.stage, loaded, loaded.rows, written.template, _of_all(judges, [ANSWER.format(1)]))
    stage.limit = context
    return stage


@named_inputs()
def require_reward_models(recipe: EvaluateRecipe) -> None:
    """Refuse scores by a model that is no reward model, before answers are sampled.

    Raises: ModelError.
    """
    for path in member_paths(recipe.reward_model_path) if recipe.reward_model_path else ():
        require_score_head(path)


def evaluated(recipe: EvaluateRecipe, written: Written) -> Stage:
    """Read the prompts that `alignment evaluate` asks its candidates, as each of them reads these.

    Raises: DataError and ModelError as evaluation does; JudgeError if a file of a judge is missing.
    """
    judges = [JudgePreview(entry, seed=recipe.seed) for entry in recipe.judges]
    inputs = read_inputs(recipe, build_questions(recipe))
    require_reward_models(recipe)
    questions = _of_all(judges, [ANSWER.format(number) for number in (1, 2)])
    held_out = inputs.held_out
    return prompt_stage("evaluate", held_out, held_out.prompts, written.template, questions, inputs.templates)


def _of_all(judges: Sequence[JudgePreview], answers: Sequence[str]) -> Question:
    def question(prompt: Prompt) -> str | None:
        return "\n\n".join(judge.question(prompt, answers) for judge in judges) or None

    return question
