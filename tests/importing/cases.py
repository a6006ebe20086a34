"""A peer's recipe, and what it becomes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignment.config import check_file
from alignment.data.template_texts import template_text
from alignment.importing.command import convert
from alignment.importing.conversion import Conversion, Options
from alignment.importing.training import effective_batch
from alignment.importing.writing import recipe_text


@dataclass(frozen=True)
class Case:
    """One configuration, written after the peer's schema."""

    text: str
    stage: str
    batch: int  # rows of an optimizer step, over all processes
    recipe: dict[str, Any]  # keys that the result has, with their values
    absent: tuple[str, ...] = ()  # keys that it does not have
    dropped: tuple[str, ...] = ()  # keys of the peer that are dropped
    files: dict[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=Options)


def imported(folder: Path, case: Case, peer: str) -> Conversion:
    """Convert a case's file, whose peer is found by its keys."""
    for name, text in {"recipe.yaml": case.text, **case.files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    conversion = convert(str(folder / "recipe.yaml"), None, case.options)
    assert conversion.peer.name == peer
    return conversion


def require(folder: Path, case: Case, peer: str) -> None:
    """Assert that a case becomes its recipe, which `alignment check` accepts, and that no key is lost."""
    conversion = imported(folder, case, peer)
    refused = [outcome for outcome in conversion.outcomes if outcome.fate == "refused"]
    assert refused == []
    text = recipe_text(conversion)
    (folder / "ours.yaml").write_text(text, encoding="utf-8")
    check_file(str(folder / "ours.yaml"))
    written = yaml.safe_load(text)
    assert {key: written.get(key, "absent") for key in case.recipe} == case.recipe
    assert [key for key in case.absent if key in written] == []
    assert (written["stage"], effective_batch(written, conversion.processes)) == (case.stage, case.batch)
    fates = {outcome.key: outcome.fate for outcome in conversion.outcomes}
    assert set(conversion.given) <= fates.keys()
    assert {key: fates[key] for key in case.dropped} == dict.fromkeys(case.dropped, "dropped")
    assert all(outcome.reason for outcome in conversion.outcomes if outcome.fate == "dropped")


def rendered(template: str, first: str = "Why?") -> str:
    """Return the text of three messages, of which the last is to be answered."""
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And?"},
    ]
    (text,), _ = render_jinja_template(
        conversations=[talk],
        chat_template=template_text(template),
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    return str(text)
