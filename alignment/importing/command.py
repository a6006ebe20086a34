"""`alignment import`: converts a peer's file, checks the result, and writes it."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alignment.config import check_file
from alignment.config.documents import read_bytes, read_yaml
from alignment.config.faults import did_you_mean
from alignment.config.schema import STAGES
from alignment.config.secrets import keys_in
from alignment.config.yaml_text import a_kind, spoken
from alignment.errors import AlignmentError, JsonError, NotJson, RecipeError
from alignment.importing.conversion import Conversion, Options
from alignment.importing.detecting import detect, refuse_other_files
from alignment.importing.training import effective_batch
from alignment.importing.writing import outcome_lines, recipe_text
from alignment.run.files import naming_the_disk, write_atomic
from alignment.strict_json import parse
from alignment.train.trial import require_accepted

GROUPED = re.compile(r"[1-9]\d{0,2}(_\d{3})+")
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
REFERENCE = re.compile(r"\$\{(?![A-Za-z_]\w*\})[^}]*\}")  # of another form than ${NAME}
TEXTS = (
    "strategy",
    "name",
    "config",
    "split",
    "path",
    "id",
    "type",
    "revision",
    "project",
    "dir",
    "token",
    "template",
    "tag",
    "entity",
    "model",
)  # ends of keys whose values are texts
WORDS = {"yes": True, "on": True, "no": False, "off": False}  # truth values of YAML 1.1, which the peers' loader reads


def convert(path: str, wanted: str | None, options: Options) -> Conversion:
    """Convert a peer's file.

    Raises: RecipeError if it is no recipe of a peer, or holds a key or password.
    """
    _require_options(options)
    given = _read(path)
    peer = detect(path, given, wanted)
    try:
        stage = options.stage or peer.stage(path, given)
    except RecipeError as error:
        raise RecipeError([f"{path}: {fault}" for fault in error.faults]) from None
    conversion = Conversion(peer, path, given, stage, options)
    conversion.run()
    return conversion


def _require_options(options: Options) -> None:
    """Refuse a stage that does not exist or does not train.

    Raises: RecipeError.
    """
    known = [name for name, cls in STAGES.items() if cls.STAGE.trains]
    if options.stage is not None and options.stage not in known:
        near = did_you_mean(options.stage, known)
        raise RecipeError([f"--stage {options.stage}: must be one of {', '.join(known)}{near}"])


def import_file(path: str, wanted: str | None, options: Options, folder: Path, say: Callable[[str], None]) -> Path:
    """Convert a peer's file, list the fate of each key, and write the recipe into a folder.

    Returns: the recipe's file. Raises: RecipeError, before anything is written, if a key is refused.
    """
    conversion = convert(path, wanted, options)
    for line in outcome_lines(conversion):
        say(line)
    refused = [each for each in conversion.outcomes if each.fate == "refused"]
    if refused:
        raise RecipeError(
            [
                f"{path}: {each.key}: {each.reason}"
                + (f". To import without it: --drop {each.key}" if each.optional else "")
                for each in refused
            ]
        )
    asked = [each.key for each in conversion.outcomes if each.reason.startswith(f"--drop {each.key} ")]
    if unused := [key for key in options.dropped if key not in asked]:
        raise RecipeError([f"--drop {key}: {path} has no refused key of this name; take it out" for key in unused])
    text = recipe_text(conversion)
    _require_sound(text, path)
    out = folder / f"{Path(path).stem}.{conversion.stage}.yaml"
    with naming_the_disk(out):
        changed = out.exists() and out.read_bytes() != text.encode()
    if changed:
        raise AlignmentError(f"{out}: exists with other content; remove it, or name another folder with --output_dir.")
    write_atomic(out, text)
    batch = effective_batch(conversion.recipe, conversion.processes)
    say(f"{out}: stage {conversion.stage}, {batch} rows a step on {conversion.processes} process(es)")
    return out


def _require_sound(text: str, path: str) -> None:
    """Refuse a recipe that `alignment check` refuses, in its words.

    Raises: RecipeError.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            require_accepted(check_file(str(file)), here=False)
        except RecipeError as error:
            faults = [fault.partition(": ")[2] for fault in error.faults]
            raise RecipeError([f"{path}: the recipe that it becomes: {fault}" for fault in faults]) from None


def _read(path: str) -> dict[str, Any]:
    value = _json(path) if _is_json(path) else read_yaml(path)[1]
    if not isinstance(value, dict) or not value:
        found = "is empty" if not value else f"holds {a_kind(value)}"
        raise RecipeError([f"{path}: {found}; a recipe is a mapping of keys to values"])
    refuse_other_files(path, value)
    if faults := [f"{path}: {spoken(at)}: {fault}" for at, fault in keys_in(value)]:
        raise RecipeError(faults)
    if faults := [f"{path}: {key}: {found} is not resolved; write the value" for key, found in _references(value)]:
        raise RecipeError(faults)
    return {key: _plain(key, each) for key, each in value.items()}


def _references(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Return keys whose texts refer to other values, as `${oc.env:NAME}` does in OmegaConf, with the reference."""
    found = [(key, REFERENCE.search(each)) for key, each in value.items() if isinstance(each, str) and "{%" not in each]
    return [(key, match[0]) for key, match in found if match is not None]


def _is_json(path: str) -> bool:
    """Whether a file is read as JSON: by its name, or by its text if it has another ending than that of YAML."""
    ending = Path(path).suffix.lower()
    if ending in (".json", ".yaml", ".yml"):
        return ending == ".json"
    return read_bytes(path).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _json(path: str) -> Any:
    """Read a JSON file; YAML, which holds JSON, allows no tabs."""
    try:
        return parse(read_bytes(path, "JSON").decode("utf-8-sig"))
    except (UnicodeDecodeError, JsonError, NotJson) as error:
        raise RecipeError([f"{path}: not JSON: {error}"]) from None


def _plain(key: str, value: Any) -> Any:
    """Return a value as the peers read it, and those within it: `yes` is true, 200_000 and "2e-5" are numbers."""
    if isinstance(value, dict):
        return {name: _plain(name, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(key, each) if isinstance(each, dict) else each for each in value]
    if not isinstance(value, str):
        return value
    if GROUPED.fullmatch(value):
        return int(value.replace("_", ""))
    if key.endswith(TEXTS):
        return value
    if NUMBER.fullmatch(value):
        return int(value) if value.lstrip("+-").isdecimal() else float(value)
    return WORDS.get(value.lower(), value)
