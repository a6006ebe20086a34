"""Loads DeepSpeed's part of a checkpoint without running code.

DeepSpeed calls `torch.load(weights_only=False)`, which runs any code that a pickle names, and opens the folder that the
file `latest` names. Here an environment variable of PyTorch overrides that argument, and the name is checked first.
"""

import contextlib
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from alignment.errors import TrainingError
from alignment.strict_json import shown

# Environment variables of torch.load: the first makes it read tensors and plain values alone, the second anything.
_TENSORS_ALONE, _ANY_OBJECT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def load_deepspeed(engine: Any, folder: str) -> None:
    """Load what `policy_gradient.sharding.save_optimizer` wrote; the frozen base stays as it was loaded.

    Raises: TrainingError if the checkpoint is not DeepSpeed's, or holds more than tensors and numbers.
    """
    with only_tensors(folder):
        engine.load_checkpoint(folder, load_module_strict=False)


@contextlib.contextmanager
def only_tensors(folder: str) -> Iterator[None]:
    """Restrict `torch.load` to tensors, plain values and the small objects that DeepSpeed writes.

    Raises: TrainingError if the checkpoint is not DeepSpeed's, or holds more.
    """
    from deepspeed.runtime.fp16 import loss_scaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    _require_deepspeed_files(Path(folder))
    own: list[Any] = [ZeroStageEnum, fragment_address, loss_scaler.LossScaler, loss_scaler.DynamicLossScaler]
    before = {name: os.environ.pop(name, None) for name in (_TENSORS_ALONE, _ANY_OBJECT)}
    os.environ[_TENSORS_ALONE] = "1"
    try:
        with torch.serialization.safe_globals(own):
            yield
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"the object {found[1]}" if found else "something other than tensors"
        raise TrainingError(
            f"{folder} holds {what}, which no checkpoint of DeepSpeed holds, and which could run code; "
            "resume from a folder of your own run"
        ) from error
    finally:
        del os.environ[_TENSORS_ALONE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _require_deepspeed_files(folder: Path) -> None:
    """Check the folder that the file `latest` names: DeepSpeed would open any."""
    try:
        tag = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        tag = ""
    if not tag:
        raise TrainingError(f"{folder} was not written under DeepSpeed; start the run with the launcher it began with")
    step = folder / tag
    links = step.is_symlink() or any(file.is_symlink() for file in step.glob("*"))
    if not re.fullmatch(r"global_step\d{1,18}", tag) or not step.is_dir() or links:
        raise TrainingError(
            f"{folder / 'latest'} names {shown(tag)}, which is not a folder of that checkpoint with DeepSpeed's "
            "files; resume from a folder of your own run"
        )
