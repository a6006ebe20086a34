"""PPO: a fine-tuned policy and a reward model in, a policy that scores higher out.

accelerate launch recipes/ppo.py --config recipes/tiny/ppo.yaml [--key value …]
"""

import sys
from typing import Any

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from transformers import TrainingArguments, set_seed

from alignment.calls.store_rows import unanswered
from alignment.config.schema import PolicyGradientRecipe, PPORecipe
from alignment.data import load_rows, require_data
from alignment.data.prompts import kind_of_prompts, prompts_to_answer
from alignment.data.template import Template
from alignment.policy.base import require_model
from alignment.policy.generation import stop_at
from alignment.policy.load_roles import load_roles
from alignment.policy.reward_models import RewardModel, require_reward_models, resolve_on
from alignment.policy.roles import Roles
from alignment.policy.tokenizer import load_tokenizer
from alignment.preview.recorded import recorded
from alignment.preview.stages import prompt_stage
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.policy_gradient.engines import require_engine
from alignment.train.policy_gradient.monitoring import Monitor
from alignment.train.policy_gradient.scoring import Scoring, require_same_tokenizer
from alignment.train.policy_gradient.trainer import PPOTrainer
from alignment.train.policy_gradient.update_shape import UpdateShape
from alignment.train.running import run_training
from alignment.train.saving import generation_of, lineage_of, save_trained
from alignment.train.trial import require_accepted
from alignment.train.tuning import method_callbacks
from reward.preview.prompts import sampled
from reward.scorers import (
    build_functions,
    build_monitor,
    build_scoring,
    describe,
    paths_of,
    reward_models,
    score_entries,
    try_functions,
)
from reward.scorers.judge import judge_calls

preview = sampled  # reads the rows that `alignment preview` shows


def load_models(
    recipe: PolicyGradientRecipe, run: RunDirectory, lineage: dict[str, Any]
) -> tuple[Roles, Scoring, Monitor | None, TrainingArguments]:
    """Resolve each reward model once, load all models, and record the scorers in the manifest."""
    monitored = {path: RewardModel.resolve(path) for path in paths_of(recipe.watch_scorers)}
    calls = judge_calls(recipe)
    monitor = build_monitor(recipe, monitored, calls)
    require_same_tokenizer(recipe, lineage)
    rewards = resolve_on(recipe, reward_models(recipe), lineage)
    scoring = build_scoring(recipe, rewards, calls)
    # Under ZeRO-3 a model that is loaded after these arguments exist is sharded: the roles, but no scorer.
    arguments = training_arguments(TrainingArguments, recipe, run)
    roles = load_roles(recipe, rewards=list(rewards.values()))
    watched = {"watch_scorers": describe(recipe.watch_scorers, monitor.scoring, monitored)} if monitor else {}
    run.record(scorers=describe(score_entries(recipe), scoring, rewards), **watched)
    return roles, scoring, monitor, arguments


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    align(PPORecipe, argv)


def align(stage: type[PolicyGradientRecipe], argv: list[str] | None) -> None:
    """Run a stage that trains on the scores of sampled answers."""
    recipe = load_recipe(stage, sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_data(recipe)
    require_model(recipe)
    require_engine(recipe)
    require_reward_models([*reward_models(recipe), *paths_of(recipe.watch_scorers)])
    run = RunDirectory.open(recipe, expendable=unanswered)
    set_seed(recipe.seed)
    with run.gone_if_refused():
        trainer, template = build(recipe, run)
    run_training(trainer, run)
    save_trained(trainer, run.path, generation_of(recipe, template))
    run.finish(**trainer.results())


def build(recipe: PolicyGradientRecipe, run: RunDirectory) -> tuple[PPOTrainer, Template]:
    """Load the prompts and the models, and build the trainer."""
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    lineage = lineage_of(recipe, tokenizer, template)
    run.record(lineage=lineage)
    functions = build_functions(recipe)
    rows = load_rows(recipe)
    try_functions(recipe, functions, rows)
    roles, scoring, monitor, arguments = load_models(recipe, run, lineage)
    stop_at(roles.causal_lm("policy"), template.stop_token_ids)
    loaded = prompts_to_answer(recipe, template, roles.context, rows)
    kept = recorded(prompt_stage(recipe.stage, loaded, loaded.rows, template), template)
    run.record(
        data=loaded.files,
        prompts=len(loaded.rows),
        prompt_kind=kind_of_prompts(loaded.rows),
        skipped=loaded.skipped,
        preview=kept,
    )

    shape = UpdateShape.of(
        recipe,
        per_device_train_batch_size=arguments.per_device_train_batch_size,
        world_size=arguments.world_size,
    )
    trainer = PPOTrainer(
        roles,
        training_arguments(TrainingArguments, recipe, run, **shape.forced_arguments()),
        recipe=recipe,
        template=template,
        prompts=loaded.rows,
        columns=loaded.columns,
        scorer=scoring,
        monitor=monitor,
        run=run,
        callbacks=[*callbacks_for(run, recipe), *method_callbacks(recipe, roles)],
    )
    return trainer, template


if __name__ == "__main__":
    script(main)
