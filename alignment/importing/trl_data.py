"""TRL's and the alignment-handbook's data: `dataset_name`, `datasets`, `dataset_mixture`, `dataset_mixer`."""

from typing import Any

from alignment.importing.conversion import Conversion
from alignment.importing.keys import Drop, Ours, Refuse
from alignment.importing.values import held_out

KEYS = ("path", "name", "data_dir", "data_files", "split", "columns", "fraction")
MIXED = {"id": "path", "config": "name", "split": "split", "columns": "columns"}
EVALUATED = ("eval", "test", "validation", "val")  # beginnings of the splits that dataset_mixer evaluates on


def of_name(conversion: Conversion, value: Any) -> Ours:
    """Return the data sets of `dataset_name`, with its configuration and splits."""
    if conversion.given.get("datasets") or conversion.given.get("dataset_mixture"):
        raise Drop("datasets are given, which TRL takes instead")
    entry: dict[str, Any] = {"path": value}
    if conversion.given.get("dataset_config"):
        entry["name"] = conversion.given["dataset_config"]
    train, test = (conversion.get(f"dataset_{kind}_split") for kind in ("train", "test"))
    ours: dict[str, Any] = {"datasets": [entry if train == "train" else {**entry, "split": train}]}
    if conversion.get("eval_strategy") not in (None, "no", False):
        ours["eval_datasets"] = [{**entry, "split": test}]
    return ours


def of_list(conversion: Conversion, value: Any) -> Ours:
    """Return the data sets of `datasets`, whose keys are those of TRL's `DatasetConfig`."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Refuse("must be a list of mappings, each with path")
    for number, entry in enumerate(value):
        if unknown := [key for key in entry if key not in KEYS]:
            raise Refuse(f"entry {number}: {unknown[0]} is no key of TRL's DatasetConfig")
        if isinstance(entry.get("data_files"), dict):
            raise Refuse(f"entry {number}: data_files by split; name the files of one split")
    return {"datasets": [{key: each for key, each in entry.items() if each is not None} for entry in value]}


def of_mixture(conversion: Conversion, value: Any) -> Ours:
    """Return the data sets of the alignment-handbook's `dataset_mixture`."""
    entries = value.get("datasets") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Refuse("must be a mapping with a list of datasets")
    if unknown := [key for key in value if key not in ("datasets", "seed", "test_split_size")]:
        raise Refuse(f"{unknown[0]} is no key of a mixture")
    conversion.recipe["datasets"] = [_mixed(entry) for entry in entries]
    notes = (
        ["mixed by seed, not by a seed of their own"] if value.get("seed") not in (None, conversion.get("seed")) else []
    )
    if any("%" in entry.get("split", "") for entry in conversion.recipe["datasets"]):
        notes.append("a share is that of the first rows; the handbook draws them")
    if notes:
        conversion.note("datasets", "; ".join(notes))
    size = value.get("test_split_size")
    held = held_out(conversion, size) if size else {}
    return {"datasets": conversion.recipe["datasets"], **held}


def _mixed(given: dict[str, Any]) -> dict[str, Any]:
    if unknown := [key for key in given if key not in (*MIXED, "weight")]:
        raise Refuse(f"{unknown[0]} is no key of a data set of a mixture")
    if "chat_template_kwargs" in (given.get("columns") or []):
        raise Refuse("the column chat_template_kwargs changes the template by the row; render such rows beforehand")
    entry = {ours: given[key] for key, ours in MIXED.items() if given.get(key) not in (None, "default", "train")}
    return _share(entry, given.get("weight"))


def _share(entry: dict[str, Any], share: Any) -> dict[str, Any]:
    """Take a share of a data set's rows, the first ones."""
    if share is None or share >= 1:
        return entry
    if not share > 0:
        raise Refuse(f"a share of {share} leaves no row")
    return {**entry, "split": f"{entry.get('split', 'train')}[:{round(share * 100, 6):g}%]"}


def of_mixer(conversion: Conversion, value: Any) -> Ours:
    """Return the data sets of the alignment-handbook's older `dataset_mixer`, with `dataset_splits`."""
    if not isinstance(value, dict) or not value:
        raise Refuse("must be a mapping of data sets to shares")
    splits = conversion.given.get("dataset_splits") or ["train", "test"]
    configs = conversion.given.get("dataset_configs") or [None] * len(value)
    found: dict[str, list[dict[str, Any]]] = {"datasets": [], "eval_datasets": []}
    for (path, share), config in zip(value.items(), configs, strict=False):
        for split in splits:
            evaluated = split.startswith(EVALUATED)
            entry = {
                "path": path,
                **({"name": config} if config else {}),
                **({} if split == "train" else {"split": split}),
            }
            entry = entry if evaluated else _share(entry, share)
            found["eval_datasets" if evaluated else "datasets"].append(entry)
    return {key: entries for key, entries in found.items() if entries}
