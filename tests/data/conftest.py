"""Tokenizers and templates of each kind in `tests.data.kinds`."""

import pytest

from alignment.data.template import Template
from tests.data.kinds import TEMPLATES, tokenizer_of


@pytest.fixture(scope="module")
def tokenizers(request):
    """The tokenizer of a kind; those of ../shared/models/kinds skip where these are not there."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = None if kind in TEMPLATES else request.getfixturevalue("shared") / "models/kinds"
            made[kind] = tokenizer_of(kind, folder)
        return made[kind]

    return of


@pytest.fixture(scope="module")
def templates(tokenizers):
    """The template of a kind."""
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = Template(tokenizers(kind))
        return made[kind]

    return of
