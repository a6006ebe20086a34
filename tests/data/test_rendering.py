"""A chat template that never ends, or writes without end, is refused before it is used."""

import time
from pathlib import Path

import pytest

from alignment.data import template as templates
from alignment.data.rendering import is_plain, require_bounded
from alignment.data.template import Template
from alignment.errors import ModelError
from tests.models import CHAT_TEMPLATE, make_tokenizer

ROLES = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
OWN = sorted((Path(templates.__file__).parent / "templates").glob("*.jinja"))


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 'a' * 100000000 }}",
        "{% set ns = namespace(x='ab') %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x='ab') %}{% for a in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ 9 ** 99999999 }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for a in messages %}{% for b in 'x' * 9999 %}{% for c in 'x' * 9999 %}{% for d in 'x' * 9999 %}"
        "{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
        "{% if messages | length > 3 %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        "{% endif %}",
        "{% if tools %}{{ 'a' * 100000000 }}{% endif %}",
    ],
)
def test_a_template_without_bounds_is_refused(bomb):
    begin = time.monotonic()
    with pytest.raises(ModelError, match="the chat template takes more than"):
        require_bounded(bomb + ROLES)
    assert time.monotonic() - begin < 120  # of a busy machine; the limit is in processor time


@pytest.mark.parametrize("text", [ROLES, CHAT_TEMPLATE, *(path.read_text() for path in OWN)])
def test_templates_in_use_pass(text):
    require_bounded(text)


def test_a_plain_template_needs_no_trial():
    assert is_plain(ROLES)
    assert is_plain(CHAT_TEMPLATE)
    assert not is_plain("{% for a in range(3) %}{% endfor %}")
    assert not is_plain("{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}")


@pytest.mark.parametrize(
    ("template", "role"),
    [
        ("Answer the question.", "user"),
        ("{% for m in messages %}<|{{ m.role }}|>{% endfor %}", "user"),
        ("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>{% endfor %}", "user"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "assistant"),
    ],
)
def test_a_template_that_leaves_out_what_messages_hold_is_refused(template, role):
    with pytest.raises(ModelError, match=f"writes the same text for different messages of the {role}"):
        Template(make_tokenizer(chat_template=template))
