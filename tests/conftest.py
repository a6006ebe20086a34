"""Fixtures that every test may use."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from alignment.meter import say_once

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Generated inputs are the same on every machine and in every run, and may take long where the machine is slow.
# `pytest --hypothesis-profile=default` tries new ones.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

# A background job ignores SIGINT, and what it starts inherits that; many tests send it to commands that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def lines_not_written_yet() -> None:
    """Begin each test as a run begins: no line has been written once."""
    say_once.cache_clear()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, models and golden numbers beside the checkout."""
    path = Path(__file__).parents[1] / ".." / "shared"
    if not path.is_dir():
        pytest.skip("../shared is not beside the checkout")
    return path.resolve()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with tokenizer and chat template; read only, see `tests.models` for variants."""
    from tests.models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def wide_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in widths that every CPU holds right in 4 bits: whole blocks of 64; read only."""
    from tests.models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("models") / "wide", hidden_size=64)
