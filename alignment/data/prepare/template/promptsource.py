"""Reads promptsource's template files: YAML with the tags `!Template` and `!TemplateMetadata`, as plain mappings."""

from pathlib import Path
from typing import Any

import yaml

from alignment.config.schema.steps.templates import JinjaTemplate
from alignment.data.prepare.step import StepError
from alignment.errors import first_line

TAGS = ("!Template", "!TemplateMetadata")
LARGEST = 10_000_000  # bytes


class _Loader(yaml.SafeLoader):
    """Builds plain values only; a tag that promptsource has no use for is an error."""


def _mapping(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, f"{node.tag} is not a mapping", node.start_mark)
    return loader.construct_mapping(node, deep=True)


for _tag in TAGS:
    _Loader.add_constructor(_tag, _mapping)


def read_promptsource(path: str) -> list[JinjaTemplate]:
    """Return the templates of a file.

    Raises: StepError if it cannot be read, or is not of promptsource's form.
    """
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST:
            raise StepError(f"{path}: is larger than {LARGEST / 1e6:g} MB, which no file of templates is")
        value = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path}: cannot be read: {first_line(error)}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where is not None else ""
        told = getattr(error, "problem", None) or first_line(error)
        raise StepError(f"{path}: {line}{told}; promptsource's files have the tags {' and '.join(TAGS)} only") from None
    templates = value.get("templates") if isinstance(value, dict) else None
    if not isinstance(templates, dict) or not templates:
        raise StepError(f"{path}: has no `templates:`, the mapping of ids to `!Template` of promptsource's files")
    return [_template(path, key, one) for key, one in templates.items()]


def _template(path: str, key: Any, value: Any) -> JinjaTemplate:
    given = value if isinstance(value, dict) else {}
    name, text, choices = (given.get(field) for field in ("name", "jinja", "answer_choices"))
    if not isinstance(name, str) or not isinstance(text, str) or not isinstance(choices, str | None):
        raise StepError(f"{path}: the template {key} needs `name` and `jinja`, texts, and perhaps `answer_choices`")
    return JinjaTemplate(name=name, template=text, answer_choices=choices)
