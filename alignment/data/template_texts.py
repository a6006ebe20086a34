"""The Jinja text of chat templates: a recipe's, the package's own, and those that a tokenizer has by name."""

from pathlib import Path
from typing import Any

from alignment.errors import ModelError, printable

DEFAULT, WITH_TOOLS = "default", "tool_use"  # transformers' names for two templates of one tokenizer
_OWN = Path(__file__).parent / "templates"


def template_text(given: str, by_name: Any = None) -> str:
    """Return Jinja text: as given, by its name in `by_name`, read from a file, or one of the package's own by name.

    Raises: ModelError if it is not of these.
    """
    if isinstance(by_name, dict) and given in by_name:
        return str(by_name[given])
    if "{%" in given or "{{" in given:
        return given
    for path in (Path(given).expanduser(), _OWN / f"{given}.jinja"):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ModelError(f"chat_template {path} cannot be read: {error}") from error
    names = [*sorted(path.stem for path in _OWN.glob("*.jinja")), *(by_name if isinstance(by_name, dict) else ())]
    known = ", ".join(names)
    raise ModelError(f"chat_template {printable(given)} is neither Jinja text nor a file, nor one of {known}.")


def templates_of(tokenizer: Any) -> tuple[str | None, str | None]:
    """Return a tokenizer's chat template, and the one for conversations with tools where it has such a one.

    Of templates by name, transformers takes `tool_use` where tools are given, and else `default`.

    Raises: ModelError if none is the default.
    """
    template = tokenizer.chat_template
    if not isinstance(template, dict) or not template:
        return template or None, None
    if DEFAULT not in template:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path} has the chat templates {', '.join(template)} and none is named "
            "default; name one of them with chat_template."
        )
    return template[DEFAULT] or None, template.get(WITH_TOOLS) or None
