"""Pretraining: trains a model, or an adapter, on text, from random weights or continued.

accelerate launch recipes/pretrain.py --config recipes/replay/pretrain.yaml [--key value …]
"""

import sys

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from accelerate import PartialState
from transformers import TrainingArguments, set_seed

from alignment.config.schema import PretrainRecipe
from alignment.data import require_data
from alignment.data.template import Template
from alignment.policy.base import load_model, require_model
from alignment.policy.fresh import with_fresh_weights
from alignment.policy.generation import stop_at
from alignment.policy.inference import sequence_limit
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.preview.pretraining import documents_shown, pretraining_stage
from alignment.preview.recorded import record_split
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.pretraining.isolation import require_apart
from alignment.train.pretraining.objectives import objective_of, require_objective
from alignment.train.pretraining.rows import prepared_split, require_rows
from alignment.train.pretraining.stream import text_of
from alignment.train.pretraining.trainer import PretrainTrainer, forced
from alignment.train.running import train_and_save
from alignment.train.saving import lineage_of
from alignment.train.trial import require_accepted
from alignment.train.tuning import method_callbacks

preview = documents_shown  # reads the rows that `alignment preview` shows


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(PretrainRecipe, sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_data(recipe)
    require_model(recipe)
    require_objective(recipe)
    run = RunDirectory.open(recipe)
    set_seed(recipe.seed)
    with run.gone_if_refused():
        trainer, recipe, template = build(recipe, run)
    held_out = trainer.eval_dataset is not None
    train_and_save(trainer, run, recipe, template if recipe.generates else None, evaluates=held_out)


def build(recipe: PretrainRecipe, run: RunDirectory) -> tuple[PretrainTrainer, PretrainRecipe, Template]:
    """Load the model and the text, and build the trainer; the recipe names the weights that it starts from."""
    with PartialState().main_process_first():
        recipe = with_fresh_weights(recipe, run.path, main=run.main_process)
    tokenizer = load_tokenizer(recipe)
    template = template_of(recipe, tokenizer)
    run.record(lineage=lineage_of(recipe, tokenizer, template), task=recipe.task)
    arguments = training_arguments(TrainingArguments, recipe, run, **forced(recipe))
    model = load_model(recipe.task, recipe, trainable=True, peft=recipe)
    if recipe.generates:
        stop_at(model, template.stop_token_ids)

    limit = sequence_limit(model, recipe.max_length)
    objective = objective_of(recipe, template, limit)
    require_apart(model, objective, arguments)
    split = prepared_split(recipe, template, limit)
    train, held_out = record_split(run, split, template, pretraining_stage(*split, template, objective))
    require_rows(train)
    trainer = PretrainTrainer(
        model,
        arguments,
        objective,
        text_of(recipe, template, objective, train),
        held_out,
        callbacks=[*callbacks_for(run, recipe), *method_callbacks(recipe, model)],
    )
    return trainer, recipe, template


if __name__ == "__main__":
    script(main)
