"""Every test of this folder is left out of `make test`."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("module", sorted(Path(__file__).parent.glob("test_*.py")), ids=lambda path: path.name)
def test_every_module_has_the_marker(module):
    assert re.search(r"\npytestmark = \[?pytest.mark.hostile\b", module.read_text())
