"""Selection of a folder's files for a split, by the card's configurations and by names, as on the Hub."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.data import cards, overlaps
from alignment.data.overlaps import SPLITS
from alignment.data.readers import EXTENSIONS, extension
from alignment.errors import DataError
from alignment.manifest import MANIFEST, read_manifest
from alignment.strict_json import shown

MOST_FILES = 100_000  # maximum in a folder of data
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}", re.ASCII)  # as `datasets` names files of a split
_NOTES = ("dataset_info.json", "dataset_infos.json")  # of `datasets` and LLaMA-Factory, beside data


def named_split(split: str) -> str:
    """Return the split with this name, or with another name for it (dev, eval)."""
    return SPLITS.get(split, split)


def split_of(path: Path) -> str:
    """Return the split that a path names, or "".

    A file `train_sft-00000-of-00001` belongs to the split `train_sft`, which differs from `train_gen`.
    """
    shard = _SHARD.match(path.name.lower())
    if shard and shard[1] not in SPLITS and re.split(r"[^a-z]+", shard[1])[0] in SPLITS:
        return shard[1]
    words = [word for part in path.parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), "")


def files_of(folder: Path, split: str, card: cards.Card | None = None, name: str | None = None) -> list[Path]:
    """Return the data files in a folder that belong to `split`.

    A name that holds a word such as train, test or validation belongs to that split, as on the Hub; others are
    training data if no file has such a name. Text files count only if there are no other files; otherwise they are
    notes and licences. In a labelling run, only the rankings are data.

    Args:
        card: from `cards.configurations`. name: of one of them; None takes the only one, or the default.
    Raises: DataError if there are no files, several configurations, or files that may share rows.
    """
    if (folder / MANIFEST).is_file() and (folder / "labels.jsonl").is_file():
        return [folder / "labels.jsonl"]
    _refuse_run(folder)
    config = cards.chosen(folder, card, name) if card else {}
    by_split = _of_card(folder, config, split) if card else _by_names(folder)
    chosen = by_split.get(split) or by_split.get(named_split(split))
    if not chosen:
        known = ", ".join(sorted(by_split))
        raise DataError(f"{folder} has no split '{split}'; its file names give {known}.")
    if "data_files" not in config:
        overlaps.require_one_data_set(folder, chosen)
    return chosen


def _refuse_run(folder: Path) -> None:
    """Reject the folder of a run that made neither labels nor data: its files are not data.

    Raises: DataError.
    """
    from alignment.config.schema import STAGES

    manifest = read_manifest(folder)
    if "recipe_sha256" not in manifest:
        return  # another program's manifest.json, or none
    stage, finished = manifest.get("stage", ""), manifest.get("status") == "finished"
    makes = STAGES[stage].STAGE.makes if stage in STAGES else ""
    if makes == "data" and finished:
        return  # its README.md lists the files
    missing = {"labels": "labels.jsonl", "data": "data"}.get(makes)
    if missing and not finished:
        raise DataError(
            f"{folder} is an interrupted run of stage {stage} and has no {missing} yet; run `alignment {stage}` again "
            "with the same recipe to complete it."
        )
    raise DataError(
        f"{folder} is a run of stage {stage}, which holds no data; give a run that makes data or labels, or a file."
    )


def _of_card(folder: Path, config: Mapping[str, Any], split: str) -> dict[str, list[Path]]:
    """Return a configuration's files by split.

    Raises: DataError if a pattern of `split` matches no file that can be read.
    """
    if "data_files" not in config:
        inner = str(config.get("data_dir") or "")
        cards.require_inside(folder, inner)
        return _by_names(folder / inner)
    by_split = cards.patterns_of(config)
    for pattern in by_split.get(split) or by_split.get(named_split(split)) or ():
        if not cards.matching(folder, [pattern]):
            raise DataError(
                f"{folder / 'README.md'} names {shown(pattern)} for the split {split!r}, and no data file matches it; "
                "complete the folder, or give data_files."
            )
    found = {split: cards.matching(folder, patterns) for split, patterns in by_split.items()}
    return {split: files for split, files in found.items() if files}


def _by_names(folder: Path) -> dict[str, list[Path]]:
    by_split: dict[str, list[Path]] = {}
    for file in _data_files(folder):
        by_split.setdefault(split_of(file.relative_to(folder)), []).append(file)
    unnamed = by_split.pop("", [])
    shards: dict[str, list[Path]] = {}
    for file in unnamed:  # `datasets` takes the split of a file in data/ from its name
        shard = _SHARD.match(file.name) if file.relative_to(folder).parts[:-1] == ("data",) else None
        shards.setdefault(shard[1] if shard else "", []).append(file)
    if len(shards) > 1 and "" not in shards:
        return by_split | shards
    if unnamed and "train" not in by_split:
        by_split["train"] = unnamed
    return by_split


def _data_files(folder: Path) -> list[Path]:
    visible = (file for file in folder.rglob("*") if not re.search(r"(^|/)\.", file.relative_to(folder).as_posix()))
    everything = sorted(itertools.islice((file for file in visible if file.is_file()), MOST_FILES + 1))
    if len(everything) > MOST_FILES:
        raise DataError(f"{folder} holds more than {MOST_FILES:,} files; name those to read with data_files.")
    files = [file for file in everything if extension(file) and file.name not in _NOTES]
    files = [file for file in files if extension(file) != "txt"] or files
    if not files:
        wanted = ", ".join(f".{known}" for known in EXTENSIONS)
        kinds = sorted({file.suffix or file.name for file in everything})
        found = f"{len(everything)} files ({', '.join(kinds[:5])})" if everything else "nothing"
        raise DataError(f"{folder} holds no data files: expected {wanted} (or .gz of these), found {found}.")
    return files
