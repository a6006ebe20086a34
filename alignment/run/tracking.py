"""What goes to a tracker beside the numbers that the Trainer sends it."""

import sys
from collections.abc import Sequence
from typing import Any


def log_table(name: str, rows: Sequence[dict[str, Any]], step: int) -> None:
    """Send rows as a table to the W&B run that is live in this process, if one is.

    Args:
        rows: all with the keys of the first.
        step: the Trainer's, in optimizer steps, which its own callback plots everything over.
    """
    wandb = sys.modules.get("wandb")  # a run that is live was begun by someone who imported it
    if wandb is None or getattr(wandb, "run", None) is None or not rows:
        return
    columns = list(rows[0])
    table = wandb.Table(columns=["step", *columns], data=[[step, *(row[key] for key in columns)] for row in rows])
    wandb.log({name: table, "train/global_step": step})
