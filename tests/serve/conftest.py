"""A base, adapters on it, and a server of all."""

import pytest

from tests.models import save_tiny_model
from tests.policy.test_many_adapters import OTHERS, saved
from tests.serve.running import Running


@pytest.fixture(scope="package")
def base(tmp_path_factory):
    """A model whose random answers are of many tokens."""
    return save_tiny_model(tmp_path_factory.mktemp("served") / "base", initializer_range=0.3)


@pytest.fixture(scope="package")
def folders(base, tmp_path_factory):
    """Adapters on the base: two plain ones, and one of another type."""
    place = tmp_path_factory.mktemp("adapters")
    return {
        "one": saved(base, place / "one", "LORA", 1, r=2),
        "two": saved(base, place / "two", "LORA", 2, r=4),
        "ia3": saved(base, place / "ia3", "IA3", 3, **OTHERS["IA3"][1]),
    }


@pytest.fixture(scope="package")
def running(base, folders):
    """A server of the base and its adapters."""
    place = folders["one"].parent
    with Running({"base": base, **folders}, folders=[place], rows=32) as server:
        yield server
