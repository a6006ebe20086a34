"""Runs a trainer: refuses impossible strategies, shows progress, and keeps only complete checkpoints."""

from typing import Any

from transformers.trainer_callback import PrinterCallback, ProgressCallback

from alignment.config.schema import TrainingRecipe
from alignment.data.template import Template
from alignment.errors import TrainingError
from alignment.run.callbacks import TrainingProgress
from alignment.run.checkpoints import only_whole_checkpoints
from alignment.run.directory import RunDirectory
from alignment.run.divergence import naming_overflow
from alignment.train.choosing import choose_weights
from alignment.train.saving import generation_of, save_trained
from alignment.train.sharding import require_possible, require_what_was_asked


def run_training(trainer: Any, run: RunDirectory) -> Any:
    """Train from the run's last complete checkpoint, without the Trainer's own printing of logs.

    Raises: TrainingError if another strategy runs than the launcher requests, it cannot work with the recipe, or no
        step is taken.
    """
    require_what_was_asked(trainer.accelerator)
    require_possible(run.recipe, trainer.model, trainer.accelerator)
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    progress = TrainingProgress(run.recipe.stage)
    trainer.add_callback(progress)
    try:
        with only_whole_checkpoints(run.path), naming_overflow(run.path, trainer):
            trained = trainer.train(resume_from_checkpoint=run.checkpoint)
    finally:
        progress.close()
    _require_steps(trainer)
    return trained


def train_and_save(
    trainer: Any, run: RunDirectory, recipe: TrainingRecipe, template: Template | None, *, evaluates: bool
) -> None:
    """Train a model, evaluate it if rows are held out, save it, and finish the run.

    Args:
        template: whose stop tokens the generation settings name; None: the model generates nothing, and gets none.
    """
    choose_weights(trainer, recipe)
    trained = run_training(trainer, run)
    results = trainer.evaluate() if evaluates else {}
    save_trained(trainer, run.path, generation_of(recipe, template) if template else None)
    run.finish(train_loss=trained.training_loss, steps=trained.global_step, **results)


def _require_steps(trainer: Any) -> None:
    if trainer.state.global_step == 0:
        raise TrainingError(
            "no step was taken: dataloader_drop_last leaves out a batch that is not full, and the training rows fill "
            "none. Set dataloader_drop_last: false, lower per_device_train_batch_size, or give more rows."
        )
