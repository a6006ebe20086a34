"""Tasks of a recipe with their documents, loaded once for all policies and before any model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.schema.lm_tasks import TaskEntry
from alignment.errors import DataError, RecipeError, first_line, named_inputs, printable
from alignment.evaluate.tasks.extra import prepare_checks, require_lm_eval

BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of one key of lm-eval
SAMPLING = ("until", "do_sample", "temperature", "top_p", "top_k", *LENGTHS)
NEUTRAL: Mapping[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0}  # other keys whose value changes nothing
DEFAULT_LENGTH = 256  # tokens of an answer where a task has none: lm-eval's
_SPLIT = "test"  # of one file
_SPLITS = ("train", "validation", "valid", "val", "dev", "test")  # names that tasks give their splits


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """An entry of `tasks` with lm-eval's tasks and groups."""

    entry: TaskEntry
    tasks: dict[str, Any]  # lm-eval's tasks by name
    groups: dict[str, Any]  # lm-eval's groups by name

    @property
    def longest_answer(self) -> int:
        """Most tokens of an answer that its tasks ask for; 0 if none writes answers."""
        lengths = [0]
        for task in self.tasks.values():
            if task.OUTPUT_TYPE == "generate_until":
                keys = task.config.generation_kwargs or {}
                given = [keys[name] for name in LENGTHS if keys.get(name) is not None]
                lengths.append(int(given[0]) if given else DEFAULT_LENGTH)
        return max(lengths)


@named_inputs(DataError)
def load_tasks(entries: Sequence[TaskEntry], seed: int) -> list[LoadedTask]:
    """Load lm-eval's tasks and their documents.

    Args:
        seed: of the choice of examples.

    Raises: RecipeError if lm-eval is not installed, or a task or a key of it is not known. DataError if the data of a
        task cannot be loaded.
    """
    if not entries:
        return []
    require_lm_eval()
    prepare_checks()
    return [_loaded(entry, seed) for entry in entries]


def _loaded(entry: TaskEntry, seed: int) -> LoadedTask:
    found = _from_index(entry)
    loaded = LoadedTask(entry, found["tasks"], found["groups"])
    if not loaded.tasks:
        raise RecipeError([f"tasks: {entry.label} has no tasks"])
    for name, task in loaded.tasks.items():
        _require_answerable(entry, name, task)
        _set_examples(entry, name, task, seed)
        if task.OUTPUT_TYPE == "generate_until":
            _set_sampling(entry, name, task)
    return loaded


def _from_index(entry: TaskEntry) -> dict[str, Any]:
    """Find the task in its own folder first: an index of all of lm-eval's tasks takes seconds."""
    import lm_eval.tasks

    places: list[dict[str, Any]]
    if entry.task_path is not None:
        if not Path(entry.task_path).is_dir():
            raise RecipeError([f"tasks: {entry.label}: task_path {entry.task_path} is no folder"])
        places = [{"include_path": entry.task_path, "include_defaults": False}, {"include_path": entry.task_path}]
    else:
        own = Path(lm_eval.tasks.__file__).parent / entry.task
        places = [{"include_path": str(own), "include_defaults": False}] if own.is_dir() else []
        places.append({})
    data = _data_of(entry)
    for place in places:
        manager = lm_eval.tasks.TaskManager(**place)
        if entry.task not in manager.all_tasks:
            continue
        try:
            return _built(manager, entry.task, data)
        except Exception as error:
            # Of an index without the other folders: a group may name tasks of those.
            if place is not places[-1] and _is_incomplete(error):
                continue
            raise _data_error(entry, error) from error
    near = f" in {entry.task_path}" if entry.task_path else " of lm-eval; `lm-eval ls tasks` lists them"
    raise RecipeError([f"tasks: {printable(entry.task)} is no task, group or tag{near}"])


def _built(manager: Any, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return a task, or those of a group or tag, with `data` in place of their own keys.

    The manager's own `load` reads a mapping with `task` as a task without a definition.
    """
    index = manager.task_index
    found = manager._factory.build(index[name], overrides=data or None, registry=index)
    return dict(manager.load(found if isinstance(found, list) else [found]))


def _is_incomplete(error: Exception) -> bool:
    return not isinstance(error, OSError) and "Hub" not in str(error)


def _data_error(entry: TaskEntry, error: Exception) -> DataError:
    told = (
        "its data set cannot be loaded" if isinstance(error, OSError | ValueError | KeyError) else "it cannot be loaded"
    )
    return DataError(
        f"task {entry.label}: {told} ({type(error).__name__}: {first_line(error)}). Give local data with dataset_path: "
        "a folder in the layout of the Hub, or one file."
    )


def _data_of(entry: TaskEntry) -> dict[str, Any]:
    """Return the keys of a task that `dataset_path` replaces."""
    if entry.dataset_path is None:
        return {}
    path = Path(entry.dataset_path)
    if path.is_file():
        builder = BUILDERS.get(path.suffix)
        if builder is None:
            raise DataError(f"task {entry.label}: dataset_path {path} ends with none of {', '.join(BUILDERS)}.")
        splits = {"test_split": _SPLIT, "validation_split": None, "training_split": None, "fewshot_split": None}
        files = {"data_files": {_SPLIT: str(path)}}
        return {"dataset_path": builder, "dataset_name": None, "dataset_kwargs": files, **splits}
    if not path.is_dir():
        return {"dataset_path": entry.dataset_path}  # a Hub id
    named = _files_by_split(path)
    if named is not None:
        return {"dataset_path": named[0], "dataset_name": None, "dataset_kwargs": {"data_files": named[1]}}
    import datasets

    try:
        names = datasets.get_dataset_config_names(str(path))
    except Exception as error:
        raise _data_error(entry, error) from error
    alone = {"dataset_name": None} if names == ["default"] else {}
    return {"dataset_path": str(path), **alone}


def _files_by_split(folder: Path) -> tuple[str, dict[str, list[str]]] | None:
    """Return the files of a folder without a card by the split that each is named for; `datasets` renames some."""
    if (folder / "README.md").exists():
        return None
    splits: dict[str, list[str]] = {}
    builders = set()
    for file in sorted(folder.iterdir()):
        split = re.sub(r"-\d+-of-\d+$", "", file.stem)
        if file.suffix in BUILDERS and split in _SPLITS:
            builders.add(BUILDERS[file.suffix])
            splits.setdefault(split, []).append(str(file))
    return (builders.pop(), splits) if len(builders) == 1 else None


def _require_answerable(entry: TaskEntry, name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False) or getattr(task.config, "unsafe_code", False):
        raise RecipeError([f"tasks: {entry.label}: {name} runs code that a model writes, which evaluate does not do"])
    if getattr(task, "MULTIMODAL", False):
        raise RecipeError([f"tasks: {entry.label}: {name} has images or sound, and policies read text"])


def _set_examples(entry: TaskEntry, name: str, task: Any, seed: int) -> None:
    own = task.config.num_fewshot
    if entry.num_fewshot is not None and entry.num_fewshot != own:
        if own == 0:  # lm-eval leaves the key of such a task out
            raise RecipeError(
                [f"tasks: {entry.label}: {name} has num_fewshot 0, which lm-eval does not change; take it out"]
            )
        task.set_config(key="num_fewshot", value=entry.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    count = task.config.num_fewshot
    if count and entry.dataset_path is not None and Path(entry.dataset_path).is_file():
        raise DataError(
            f"task {entry.label}: {name} takes {count} examples from another split than it answers, and dataset_path "
            "is one file. Give a folder with both splits, or num_fewshot: 0."
        )
    task.set_fewshot_seed(seed=seed)


def _set_sampling(entry: TaskEntry, name: str, task: Any) -> None:
    if entry.gen_kwargs:
        own = task.config.generation_kwargs or {}
        given = entry.gen_kwargs
        if any(key in given for key in LENGTHS):
            own = {key: value for key, value in own.items() if key not in LENGTHS}
        task.set_config(key="generation_kwargs", value={**own, **given})
    unread = [
        key
        for key, value in (task.config.generation_kwargs or {}).items()
        if key not in SAMPLING and NEUTRAL.get(key, not value) != value
    ]
    if unread:
        raise RecipeError(
            [f"tasks: {entry.label}: {name} samples with {', '.join(unread)}; policies read {', '.join(SAMPLING[:6])}"]
        )
