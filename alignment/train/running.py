"""Training as every stage does it: what cannot work is refused, progress shown, and only whole checkpoints left."""

from typing import Any

from transformers.trainer_callback import PrinterCallback, ProgressCallback

from alignment.run.callbacks import TrainingProgress
from alignment.run.checkpoints import only_whole_checkpoints
from alignment.run.directory import RunDirectory
from alignment.run.divergence import naming_overflow
from alignment.train.sharding import require_possible, require_what_was_asked


def run_training(trainer: Any, run: RunDirectory) -> Any:
    """Train from the run's last whole checkpoint; the Trainer's own printing of every log is left out.

    Raises: TrainingError where the strategy that really runs is not the one asked for, or cannot work with the recipe.
    """
    require_what_was_asked(trainer.accelerator)
    require_possible(run.recipe, trainer.model, trainer.accelerator)
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    progress = TrainingProgress(run.recipe.stage)
    trainer.add_callback(progress)
    try:
        with only_whole_checkpoints(run.path), naming_overflow(run.path, trainer):
            return trainer.train(resume_from_checkpoint=run.checkpoint)
    finally:
        progress.close()
