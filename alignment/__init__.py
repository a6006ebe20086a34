"""Align a language model to what people, or an AI judge standing in for them, prefer."""

import os

__version__ = "0.1.0"

# Libraries below ping home unless told not to; here nothing does unless the user sets these variables.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
