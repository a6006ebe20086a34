"""What a tuning method does during training, in every stage: a callback whose state is part of each checkpoint."""

from pathlib import Path

from torch import Tensor
from transformers import TrainerCallback


class MethodCallback(TrainerCallback):
    """A callback of a tuning method; `callbacks(model, keys)` of its family returns it."""

    def rate(self, parameter: str) -> float:
        """Return the factor of a parameter's learning rate, by its name."""
        return 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Return the state that a checkpoint holds, so that a resumed run goes on exactly."""
        return {}

    def restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned; called once training begins."""

    def finish(self, folder: Path) -> None:
        """Change the files of the trained adapter, before they are moved into the run's folder."""
