"""The documents of a text file, and the refusal of JSON in one."""

from collections.abc import Iterator

from alignment.errors import DataError, JsonError
from alignment.strict_json import parse

_END_OF_TEXT = "<|endoftext|>"


def documents(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield documents with their first lines' numbers, parted by lines of only <|endoftext|>, else by blank lines."""
    marked = any(line.strip() == _END_OF_TEXT for line in lines)
    document: list[str] = []
    for number, line in enumerate([*lines, _END_OF_TEXT if marked else ""], start=1):
        if line.strip() != (_END_OF_TEXT if marked else ""):
            document.append(line)
            continue
        if any(kept.strip() for kept in document):
            yield number - len(document), "\n".join(document).strip("\n")
        document = []


def refuse_json(lines: list[str], name: str) -> None:
    """Refuse a text file that holds JSON: each line an object, or the whole file an object or an array of objects.

    Raises: DataError.
    """
    filled = [line for line in lines if line.strip()]
    if not filled or not filled[0].lstrip().startswith(("{", "[")):
        return
    if all(_is_rows(line) for line in filled[:100]):
        kind = "jsonl"
    elif _is_rows("\n".join(lines)):
        kind = "json"
    else:
        return
    raise DataError(
        f"{name} holds JSON, and a .txt file is read as plain text: keys and brackets would be trained. Rename it to "
        f".{kind}; if the JSON is the text to learn, write it under the key text of a .jsonl file."
    )


def _is_rows(text: str) -> bool:
    """Whether a text is a JSON object, or an array of objects."""
    try:
        value = parse(text)
    except JsonError:
        return False
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))
