"""Supervised fine-tuning: trains a model or an adapter on demonstrations.

accelerate launch recipes/sft.py --config recipes/tiny/sft.yaml [--key value …]
"""

import sys

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from accelerate import PartialState
from transformers import set_seed
from trl import SFTConfig

from alignment.config.schema import SFTRecipe
from alignment.data import require_data
from alignment.data.prompts import kind_of_prompts
from alignment.data.template import Template
from alignment.policy.added_tokens import with_added_tokens
from alignment.policy.base import load_policy, require_model
from alignment.policy.generation import stop_at
from alignment.policy.inference import sequence_limit
from alignment.policy.methods.eva import start_from_rows
from alignment.policy.tokenizer import load_tokenizer
from alignment.preview.recorded import record_split
from alignment.preview.stages import demonstration_stage, demonstrations
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.demonstration_trainers import DemonstrationTrainer
from alignment.train.running import train_and_save
from alignment.train.saving import lineage_of
from alignment.train.sft import (
    Tokenised,
    require_learnable,
    sft_trainer,
    tokenised_split,
)
from alignment.train.trial import require_accepted
from alignment.train.tuning import method_callbacks

preview = demonstrations  # reads the rows that `alignment preview` shows


def load_data(recipe: SFTRecipe, run: RunDirectory, template: Template, limit: int) -> tuple[Tokenised, Tokenised]:
    """Read and tokenise demonstrations, training and held out; the manifest keeps what was read and left out."""
    split = tokenised_split(recipe, template, limit)
    kind = kind_of_prompts(row.prompt for row in split[0].train)
    return record_split(run, split, template, demonstration_stage(*split, template, limit), prompt_kind=kind)


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(SFTRecipe, sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_data(recipe)
    require_model(recipe)
    run = RunDirectory.open(recipe)
    set_seed(recipe.seed)

    with run.gone_if_refused():
        trainer, recipe, template = build(recipe, run)
    held_out = trainer.eval_dataset is not None
    train_and_save(trainer, run, recipe, template, evaluates=held_out)


def build(recipe: SFTRecipe, run: RunDirectory) -> tuple[DemonstrationTrainer, SFTRecipe, Template]:
    """Load the model and the rows, and build the trainer; the recipe names the tokens that were added."""
    with PartialState().main_process_first():
        recipe = with_added_tokens(recipe, run.path, main=run.main_process)
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    run.record(lineage=lineage_of(recipe, tokenizer, template))
    arguments = training_arguments(SFTConfig, recipe, run, max_length=None)  # first: ZeRO-3 cuts weights as they load
    model = load_policy(recipe, trainable=True, peft=recipe)
    stop_at(model, template.stop_token_ids)

    limit = sequence_limit(model, recipe.max_length)
    train, held_out = load_data(recipe, run, template, limit)
    require_learnable(train.rows, template.stop_token_ids, train.skipped)
    start_from_rows(model, train.rows, tokenizer.pad_token_id)
    arguments.max_length = limit if arguments.packing else None  # rows are cut already; a pack still needs its length
    trainer = sft_trainer(
        model,
        tokenizer,
        arguments,
        train=train.rows,
        evaluation=held_out.rows,
        callbacks=[*callbacks_for(run, recipe), *method_callbacks(recipe, model)],
    )
    return trainer, recipe, template


if __name__ == "__main__":
    script(main)
