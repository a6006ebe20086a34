"""Reward model: rankings and pairs in, a sequence classifier with one output out.

accelerate launch recipes/reward.py --config recipes/tiny/reward.yaml [--key value …]
"""

import sys

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from transformers import TrainingArguments, set_seed

from alignment.config.schema import RewardRecipe
from alignment.data import require_data
from alignment.data.prompts import kind_of_prompts
from alignment.data.template import Template
from alignment.policy.base import require_model
from alignment.policy.inference import context_limit
from alignment.policy.tokenizer import load_tokenizer
from alignment.preview.recorded import record_split
from alignment.run import signals
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.choosing import choose_weights
from alignment.train.running import run_training
from alignment.train.saving import generation_of, lineage_of, save_trained
from alignment.train.trial import require_accepted
from alignment.train.tuning import method_callbacks
from reward.models.batches import Encoded, encoded_split
from reward.models.loading import load_reward_model
from reward.models.members import finish_ensemble, is_trained, member_recipes
from reward.models.trainer import RewardTrainer
from reward.preview.rankings import ranking_stage, rankings

preview = rankings  # reads the rows that `alignment preview` shows


def load_data(
    recipe: RewardRecipe, run: RunDirectory, template: Template, *, limit: int | None, seed: int
) -> tuple[Encoded, Encoded]:
    """Read and tokenise the rankings, training and held out; the manifest keeps what was read and what was left out."""
    data, train, held_out = split = encoded_split(recipe, template, limit=limit, seed=seed)
    seen = {row.prompt for row in train.rows}
    kind = kind_of_prompts(ranking.prompt for ranking in data.train)
    return record_split(
        run,
        split,
        template,
        ranking_stage(*split, template, limit),
        prompt_kind=kind,
        answer_end=None if kind is None else template.end_of_answer(kind),
        evaluation={**held_out.counts(), "prompts_in_training": sum(row.prompt in seen for row in held_out.rows)},
    )


def train(recipe: RewardRecipe, run: RunDirectory, *, within: RunDirectory, data_seed: int) -> None:
    """Train one reward model.

    Args:
        within: the folder that is deleted too if an input is refused. data_seed: decides which prompts are held out.
    """
    set_seed(recipe.seed)
    with within.gone_if_refused(), run.gone_if_refused():
        trainer, template = build(recipe, run, data_seed=data_seed)
    choose_weights(trainer, recipe)
    trained = run_training(trainer, run)
    results = trainer.held_out_results()
    run.record(**trainer.score_scale())  # the reward's scale, for stages that score with it
    save_trained(trainer, run.path, generation_of(recipe, template))
    run.finish(train_loss=trained.training_loss, steps=trained.global_step, **results)


def build(recipe: RewardRecipe, run: RunDirectory, *, data_seed: int) -> tuple[RewardTrainer, Template]:
    """Load the model and the rankings, and build the trainer."""
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    lineage = lineage_of(recipe, tokenizer, template)
    run.record(lineage={key: value for key, value in lineage.items() if key != "pad_token_id"})  # it chooses its own
    # Before the model: ZeRO-3 cuts weights as they load.
    arguments = training_arguments(TrainingArguments, recipe, run, remove_unused_columns=False)
    model = load_reward_model(recipe, tokenizer, template.stop_token_ids, trainable=True, peft=recipe)

    train, held_out = load_data(recipe, run, template, limit=context_limit(model, recipe.max_length), seed=data_seed)
    trainer = RewardTrainer(
        model,
        arguments,
        tokenizer=tokenizer,
        train=train.rows,
        evaluation=held_out.rows,
        center_rewards_coefficient=recipe.center_rewards_coefficient,
        use_margin=recipe.use_margin,
        label_smoothing=recipe.label_smoothing,
        ties=recipe.ties,
        callbacks=[*callbacks_for(run, recipe), *method_callbacks(recipe, model)],
    )
    return trainer, template


def main(argv: list[str] | None = None) -> None:
    """Run the stage: one reward model, or `num_members` of them on the same data."""
    recipe = load_recipe(RewardRecipe, sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_data(recipe)
    require_model(recipe)
    run = RunDirectory.open(recipe)
    if recipe.num_members == 1:
        train(recipe, run, within=run, data_seed=recipe.seed)
        return
    members = member_recipes(recipe)
    for member in members:
        if not is_trained(member):
            own = RunDirectory.open(member)
            train(member, own, within=run if member is members[0] else own, data_seed=recipe.seed)
            signals.end_if_asked()
    finish_ensemble(recipe, run, members)


if __name__ == "__main__":
    script(main)
