"""Kahneman-Tversky optimisation: trains a policy on answers that are labelled good or bad.

accelerate launch recipes/kto.py --config recipes/tiny/kto.yaml [--key value …]
"""

import sys

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from types import SimpleNamespace

from transformers import set_seed
from trl import KTOConfig

from alignment.config.schema import KTORecipe
from alignment.data import require_data
from alignment.data.answer_labels import require_both_labels
from alignment.data.prompts import kind_of_prompts
from alignment.data.template import Template
from alignment.meter import say_once
from alignment.policy.base import load_causal_lm, require_model
from alignment.policy.generation import stop_at
from alignment.policy.inference import sequence_limit
from alignment.policy.tokenizer import load_tokenizer
from alignment.preview.recorded import record_split
from alignment.preview.stages import config_of
from alignment.preview.unpaired import labelled_answers, unpaired_stage
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.kto import ProbabilityKTOTrainer, kto_trainer
from alignment.train.label_weights import LabelWeights, label_weights
from alignment.train.running import train_and_save
from alignment.train.saving import lineage_of
from alignment.train.sft import Tokenised
from alignment.train.trial import require_accepted
from alignment.train.tuning import method_callbacks
from alignment.train.unpaired_rows import require_evaluable, tokenised_split

preview = labelled_answers  # reads the rows that `alignment preview` shows


def load_data(recipe: KTORecipe, run: RunDirectory, template: Template) -> tuple[Tokenised, Tokenised, LabelWeights]:
    """Read and tokenise labelled answers, training and held out by prompt, and weigh the labels."""
    limit = sequence_limit(SimpleNamespace(config=config_of(recipe)), recipe.max_length)
    split = tokenised_split(recipe, template, limit)
    train = split[1]
    require_both_labels([row["probability"] for row in train.rows])
    best_by = recipe.library.get("metric_for_best_model")
    require_evaluable(split[2].rows, loss_type=recipe.loss_type, best_by=best_by)
    given = {key: getattr(recipe, key) for key in ("desirable_weight", "undesirable_weight")}
    weights = label_weights((row["probability"] for row in train.rows), **given)
    say_once(weights.warning() or weights.told())
    kind = kind_of_prompts(row.prompt for row in split[0].train)
    stage = unpaired_stage(*split, template, limit)
    record_split(run, split, template, stage, labels=weights.facts(), prompt_kind=kind)
    return train, split[2], weights


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(KTORecipe, sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_data(recipe)
    require_model(recipe)
    run = RunDirectory.open(recipe)
    set_seed(recipe.seed)

    with run.gone_if_refused():
        trainer, template = build(recipe, run)
    train_and_save(trainer, run, recipe, template, evaluates=trainer.eval_dataset is not None)


def build(recipe: KTORecipe, run: RunDirectory) -> tuple[ProbabilityKTOTrainer, Template]:
    """Load the labelled answers and the models, and build the trainer."""
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    run.record(lineage=lineage_of(recipe, tokenizer, template))
    train, held_out, weights = load_data(recipe, run, template)
    # Answers are never cut, so TRL has nothing to truncate. Before the model: ZeRO-3 cuts weights as they load.
    forced = {"desirable_weight": weights.desirable_weight, "undesirable_weight": weights.undesirable_weight}
    arguments = training_arguments(KTOConfig, recipe, run, max_length=None, **forced)
    model = load_causal_lm(recipe, trainable=True, peft=recipe)
    stop_at(model, template.stop_token_ids)

    own_reference = not recipe.method.copies_reference or arguments.precompute_ref_log_probs
    trainer = kto_trainer(
        model,
        tokenizer,
        arguments,
        reference=None if own_reference else load_causal_lm(recipe, trainable=False),
        train=train.rows,
        evaluation=held_out.rows,
        callbacks=[*callbacks_for(run, recipe), *method_callbacks(recipe, model)],
    )
    return trainer, template


if __name__ == "__main__":
    script(main)
