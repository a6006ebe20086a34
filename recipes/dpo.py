"""Direct preference optimisation: trains a policy on rankings.

accelerate launch recipes/dpo.py --config recipes/tiny/dpo.yaml [--key value …]
"""

import sys

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from transformers import set_seed
from trl import DPOConfig

from alignment.config.schema import DPORecipe
from alignment.data import require_data
from alignment.data.prompts import kind_of_prompts
from alignment.data.template import Template
from alignment.policy.base import load_causal_lm, require_model
from alignment.policy.generation import stop_at
from alignment.policy.inference import sequence_limit
from alignment.policy.tokenizer import load_tokenizer
from alignment.preview.recorded import record_split
from alignment.preview.stages import dpo_pairs, pair_stage
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.dpo import ProbabilityDPOTrainer, dpo_trainer, takes_ties
from alignment.train.preference_pairs import tokenised_split
from alignment.train.reference_free import forced_arguments, reference_free_trainer
from alignment.train.running import train_and_save
from alignment.train.saving import lineage_of
from alignment.train.sft import Tokenised
from alignment.train.trial import require_accepted
from alignment.train.tuning import method_callbacks

preview = dpo_pairs  # reads the rows that `alignment preview` shows


def load_data(
    recipe: DPORecipe, run: RunDirectory, template: Template, *, limit: int, ties: bool
) -> tuple[Tokenised, Tokenised]:
    """Read and tokenise pairs, training and held out by prompt; the manifest keeps what was read and left out."""
    split = tokenised_split(recipe, template, limit, ties=ties)
    kind = kind_of_prompts(row.prompt for row in split[0].train)
    return record_split(run, split, template, pair_stage(*split, template, limit), prompt_kind=kind)


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(DPORecipe, sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_data(recipe)
    require_model(recipe)
    run = RunDirectory.open(recipe)
    set_seed(recipe.seed)

    with run.gone_if_refused():
        trainer, template = build(recipe, run)
    train_and_save(trainer, run, recipe, template, evaluates=trainer.eval_dataset is not None)


def build(recipe: DPORecipe, run: RunDirectory) -> tuple[ProbabilityDPOTrainer, Template]:
    """Load the models and the pairs, and build the trainer."""
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    run.record(lineage=lineage_of(recipe, tokenizer, template))
    # Pairs are never cut, so TRL has nothing to truncate. Before the model: ZeRO-3 cuts weights as they load.
    forced = {} if recipe.has_reference else forced_arguments()
    arguments = training_arguments(DPOConfig, recipe, run, max_length=None, **forced)
    model = load_causal_lm(recipe, trainable=True, peft=recipe)
    stop_at(model, template.stop_token_ids)

    ties = takes_ties(arguments.loss_type)
    limit = sequence_limit(model, recipe.max_length)
    train, held_out = load_data(recipe, run, template, limit=limit, ties=ties)
    own_reference = not recipe.has_reference or not recipe.method.copies_reference or arguments.precompute_ref_log_probs
    trainer = dpo_trainer(
        model,
        tokenizer,
        arguments,
        trainer_class=ProbabilityDPOTrainer if recipe.has_reference else reference_free_trainer(recipe),
        reference=None if own_reference else load_causal_lm(recipe, trainable=False),
        train=train.rows,
        evaluation=held_out.rows,
        callbacks=[*callbacks_for(run, recipe), *method_callbacks(recipe, model)],
    )
    return trainer, template


if __name__ == "__main__":
    script(main)
