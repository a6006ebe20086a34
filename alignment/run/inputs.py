"""Hashes of everything that a pipeline's stage depends on: recipe, inputs, code and library versions."""

import hashlib
import importlib.util
import json
import os
from functools import cache
from pathlib import Path

from alignment.config.input_paths import input_modules, input_paths
from alignment.config.pipelines import Stage
from alignment.manifest import read_manifest
from alignment.policy.saved_files import WHOLE
from alignment.policy.weights import sampled_hash
from alignment.run.checkpoints import ASIDE
from alignment.run.directory import recipe_digest, resolved_recipe, versions
from alignment.run.files import text_hash
from alignment.run.last_resort import LOGS
from alignment.run.repair import DAMAGED

# Files about the run itself: times, logs, states to resume from. Later stages do not read them.
ACCOUNTS = {"manifest.json", "recipe.yaml", "metrics.jsonl", "samples.jsonl", "README.md", "training_args.bin"}
# Results of audits do not change the labels.
ACCOUNTS |= {"audit.html", "audit.json", "suggested.jsonl", "people.jsonl", "suggested.people.jsonl", "thumbs.jsonl"}
ACCOUNTS |= {"calibrated.jsonl", "calibrated.json"}
ACCOUNTS |= {WHOLE}  # sizes and hashes of the files themselves


def dependencies(stage: Stage) -> dict[str, str]:
    """Return the hash of everything that makes a stage stale when it changes, by name."""
    found = {f"library {name}": version for name, version in versions().items()}
    if stage.recipe is None:
        found["command"] = text_hash(json.dumps(stage.arguments))
        paths, modules = set(stage.inputs), {stage.arguments[0]}
    else:
        found["recipe"] = recipe_digest(resolved_recipe(stage.recipe))
        paths, modules = set(input_paths(stage.recipe)), set(input_modules(stage.recipe))
    found |= {path: content_hash(path) for path in sorted(paths)}
    found |= {f"code of {module}": code_hash(module) for module in sorted(modules)}
    return found


def is_finished(stage: Stage) -> bool:
    """Return whether a stage's outputs exist and come from this recipe."""
    if stage.recipe is None:
        return all(os.path.exists(output) for output in stage.outputs)
    manifest = read_manifest(stage.outputs[0])
    digest = recipe_digest(resolved_recipe(stage.recipe))
    return manifest.get("status") == "finished" and manifest.get("recipe_sha256") == digest


def content_hash(path: str) -> str:
    """Hash a file, or the files of a folder except `ACCOUNTS`. A path that does not exist is a Hub id."""
    root = Path(path)
    if root.is_file():
        return _file_hash(root)
    if not root.is_dir():
        return f"not on disk: {path}"
    digest = hashlib.sha256()
    status = read_manifest(root).get("status", "")
    digest.update(str(status).encode())
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_account(name))
        for name in sorted(files):
            account = name in ACCOUNTS or LOGS.fullmatch(name) or name.endswith(DAMAGED)
            if not account and not name.startswith(".") and ".sqlite" not in name:
                file = Path(folder, name)
                digest.update(f"{file.relative_to(root)}:{_file_hash(file)}\n".encode())
    return digest.hexdigest()


def _is_account(folder: str) -> bool:
    """Whether later stages do not read a subfolder of a run."""
    return folder.startswith((".", "checkpoint-", f"{ASIDE}checkpoint-", "__pycache__")) or folder == "wandb"


def _file_hash(file: Path) -> str:
    status = file.stat()
    return _hash_of_version(file, status.st_mtime_ns, status.st_size)


@cache
def _hash_of_version(file: Path, modified: int, size: int) -> str:
    if file.suffix in (".safetensors", ".bin", ".gguf"):
        return sampled_hash(file)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def code_hash(module: str) -> str:
    """Hash a module with the other modules in its package's folder, which it may import."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return "not found"
    file = Path(spec.origin)
    beside = sorted(file.parent.glob("*.py")) if "." in module else [file]
    return text_hash("".join(f"{other.name}:{_file_hash(other)}\n" for other in beside))
