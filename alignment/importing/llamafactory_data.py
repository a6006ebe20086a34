"""LLaMA-Factory's `dataset_info.json`: data sets by name, with their columns and tags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.conversations import ROLES
from alignment.errors import AlignmentError
from alignment.importing.conversion import Conversion
from alignment.importing.keys import Ours, Refuse
from alignment.importing.values import listed
from alignment.strict_json import parse

INFO = "dataset_info.json"
TAGS = {"user_tag": ("human", "user"), "assistant_tag": ("gpt", "assistant"), "system_tag": ("system", "system"),
        "observation_tag": ("observation", "tool"), "function_tag": ("function_call", "function_call")}  # fmt: skip
SPEAKERS = (("from", "value"), ("role", "content"))  # names of a message's role and content that are read here
MEDIA = ("images", "videos", "audios")
FOLDERS_ABOVE = 4  # of the recipe's, that are searched for the folder of the data


@dataclass(frozen=True, slots=True)
class Info:
    """The entries of a `dataset_info.json`, and the folder of its files."""

    folder: str
    entries: dict[str, Any]


def find_info(path: str, dataset_dir: str) -> Info | None:
    """Find the data sets' file: in `dataset_dir`, beside the recipe, or in `dataset_dir` of a folder above it.

    Raises: Refuse if it cannot be read.
    """
    beside = Path(path).parent
    above = [folder / dataset_dir for folder in list(beside.absolute().parents)[:FOLDERS_ABOVE]]
    for folder in (Path(dataset_dir), beside / dataset_dir, beside, *above):
        file = folder / INFO
        if file.is_file():
            try:
                found = parse(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, AlignmentError) as error:
                raise Refuse(f"{file} cannot be read: {error}") from None
            if not isinstance(found, dict):
                raise Refuse(f"{file} holds no object of data sets by name")
            return Info(str(folder), found)
    return None


def datasets(ours: str) -> Any:
    """Return the conversion of a key that names data sets, into the key `ours`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        names = listed(value) if value else []
        if not names:
            raise Refuse("names no data set")
        folder = conversion.get("dataset_dir")
        if isinstance(folder, dict):
            info: Info | None = Info("", folder)
        elif folder == "ONLINE":
            return {ours: [{"path": name} for name in names]}
        elif str(folder).startswith("REMOTE:"):
            info = None
            folder = str(folder).removeprefix("REMOTE:")
        else:
            info = find_info(conversion.path, str(folder))
        if info is None:
            conversion.unsettled[ours] = f"{folder}/{INFO} was not found: correct the paths, and give columns"
            return {ours: [{"path": f"{folder}/{name}.json"} for name in names]}
        probabilities = _probabilities(conversion, len(names))
        entries = [_entry(conversion, info, name) for name in names]
        if probabilities:
            entries = [{**entry, "fraction": share} for entry, share in zip(entries, probabilities, strict=True)]
        return {ours: entries}

    return convert


def _probabilities(conversion: Conversion, count: int) -> list[float]:
    given = conversion.given.get("interleave_probs")
    if conversion.get("mix_strategy") != "interleave_under" or count < 2:
        return []
    shares = [float(word) for word in listed(given)] if given else [1 / count] * count
    if len(shares) != count:
        raise Refuse(f"interleave_probs has {len(shares)} shares for {count} data sets")
    return shares


def _entry(conversion: Conversion, info: Info, name: str) -> dict[str, Any]:
    if name not in info.entries:
        raise Refuse(f"{info.folder}/{INFO} has no data set {name}")
    given = info.entries[name]
    if not isinstance(given, dict):
        raise Refuse(f"{info.folder}/{INFO}: {name} is no object")
    entry = _place(info, name, given)
    columns = given.get("columns") or {}
    if media := [key for key in MEDIA if columns.get(key)]:
        raise Refuse(f"{name} has {', '.join(media)}; only text is trained here")
    split = str(given.get("split") or "train")
    most = [count for count in (given.get("num_samples"), conversion.given.get("max_samples")) if count]
    if most:
        entry["split"] = f"{split}[:{min(most)}]"
    elif split != "train":
        entry["split"] = split
    layout, mapping = _layout(conversion, name, given, columns)
    mapping = {key: column for key, column in mapping.items() if column and column != key}
    entry["format"] = layout
    return {**entry, **({"columns": mapping} if mapping else {})}


def _place(info: Info, name: str, given: dict[str, Any]) -> dict[str, Any]:
    if "hf_hub_url" in given:
        place: dict[str, Any] = {"path": given["hf_hub_url"]}
    elif "file_name" in given:
        place = {"path": str(Path(info.folder) / given["file_name"])}
    elif "script_url" in given:
        raise Refuse(f"{name} is a script that is run; save its rows as a file")
    elif "cloud_file_name" in given:
        raise Refuse(f"{name} is in a cloud's storage; copy the file here and name it")
    else:
        raise Refuse(f"{name} is on another hub than Hugging Face's; download it and name its folder")
    for theirs, ours in (("subset", "name"), ("folder", "data_dir")):
        if given.get(theirs):
            place[ours] = given[theirs]
    return place


def _layout(conversion: Conversion, name: str, given: dict[str, Any], columns: dict[str, Any]) -> tuple[str, Any]:
    """Return the layout here and its columns: key of the layout → column of the file."""
    ranking, label = bool(given.get("ranking")), columns.get("kto_tag")
    around = {key: columns.get(key) for key in ("system", "tools")}
    if given.get("formatting", "alpaca") == "alpaca":
        defaults = {} if "columns" in given else {"prompt": "instruction", "query": "input", "response": "output"}
        columns = {**defaults, **columns}
        if conversion.stage == "pretrain":
            return "text", {"text": columns.get("prompt")}
        asked = {"instruction": columns.get("prompt"), "input": columns.get("query"), "history": columns.get("history")}
        if ranking:
            compared = {key: columns.get(key) for key in ("chosen", "rejected")}
            return "alpaca_preference", {**asked, **compared, "system": columns.get("system")}
        demonstration = {**asked, "output": columns.get("response"), "system": columns.get("system")}
        return ("kto", {**demonstration, "label": label}) if label else ("alpaca", demonstration)
    key = _conversation(name, given)
    turns = columns.get("messages") or "conversations"
    if ranking:
        return "sharegpt_dpo", {key: turns, **{side: columns.get(side) for side in ("chosen", "rejected")}, **around}
    if label:
        return "kto", {key: turns, "label": label, **around}
    return ("messages" if key == "messages" else "sharegpt"), {key: turns, **around}


def _conversation(name: str, given: dict[str, Any]) -> str:
    """Return the key of a conversation here, whose messages have the names of the tags.

    Raises: Refuse for tags that are not read here.
    """
    tags = given.get("tags") or {}
    defaults = {"role_tag": "from", "content_tag": "value"} if "tags" not in given else {}
    speaker = tuple({**defaults, **tags}.get(key) for key in ("role_tag", "content_tag"))
    if speaker not in SPEAKERS:
        raise Refuse(
            f"{name} names role and content of a message {speaker[0]} and {speaker[1]}; rename them to role and content"
        )
    for tag, (_, role) in TAGS.items():
        word = tags.get(tag)
        if word is not None and ROLES.get(str(word).lower()) != role:
            raise Refuse(f"{name} has the {tag} {word}, which is not read as {role}; rename it")
    return "messages" if speaker[0] == "role" else "conversations"
