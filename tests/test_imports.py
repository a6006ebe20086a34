"""Imports point down only, no folders import each other in a circle, and the command line stays light."""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
OURS = ("alignment", "reward", "recipes")
FLOORS = [  # from the top; a folder imports from its own floor, unless that closes a circle, and from those below
    {"alignment.cli"},
    {"recipes"},
    {"alignment.doctor", "alignment.launch", "alignment.importing"},
    {"reward.scorers", "reward.feedback", "reward.preview", "reward.serving"},
    {"reward.judges", "reward.people"},
    {"reward.audit", "reward.bench"},
    {"reward.labels", "reward.models", "reward.functions", "reward.time_limit", "reward.verifiers"},
    {"alignment.prepare"},
    {"alignment.chat", "alignment.export", "alignment.pipeline", "alignment.report", "alignment.preview"},
    {"alignment.standings"},
    {"alignment.planner"},
    {"alignment.train", "alignment.synthesize", "alignment.serve"},
    {"alignment.run"},
    {"alignment.calls", "alignment.serving"},
    {"alignment.evaluate"},
    {"alignment.policy"},
    {"alignment.data"},
    {"alignment.config"},
    {"alignment.ops", "alignment.rollout"},
    {  # modules of their own
        "alignment.errors",
        "alignment.meter",
        "alignment.bounded_http",
        "alignment.strict_json",
        "alignment.json_lines",
        "alignment.manifest",
        "alignment.secrecy",
        "alignment.hub",
        "alignment.stages",
    },
]
CHILD_PROCESSES = {  # modules that another process runs by name (`python -m`): (who names it, what it names)
    ("alignment.config.pipelines", "recipes"),  # the command of a pipeline's stage
    ("alignment.launch.command", "recipes"),  # the command of a job
    ("alignment.launch.jobs", "alignment.cli"),  # the command of a job with several stages
    ("alignment.run.processes", "alignment.launch.workers"),  # the launcher of a stage's processes
}
MODULE = re.compile(rf"({'|'.join(OURS)})(\.\w+)*\.?(:\w+)?")


class Import(NamedTuple):
    """One import: who imports what, where, and whether a string names it."""

    name: str
    line: int
    imported: str
    by_string: bool = False


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return [file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))]


def imported_modules(tree: ast.AST, package: str) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package}: relative imports hide the floor"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def modules_in_strings(tree: ast.AST) -> list[tuple[int, str]]:
    """Return the modules that strings name: "alignment.cli", "recipes.tiny.judge:prefer", f"recipes.{stage}"."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.fullmatch(node.value):
            name = node.value.partition(":")[0]
            module = name.removesuffix(".").replace(".", "/")
            if "." in name and ((ROOT / module).is_dir() or (ROOT / f"{module}.py").is_file()):
                found.append((node.lineno, name.removesuffix(".")))
    return found


def imports_of(files: list[Path]) -> Iterator[Import]:
    for file in files:
        name, tree = module_name(file), ast.parse(file.read_text())
        yield from (Import(name, *found) for found in imported_modules(tree, name))
        for line, imported in modules_in_strings(tree):
            if (name, imported) not in CHILD_PROCESSES:
                yield Import(name, line, imported, by_string=True)


def folder_of(module: str) -> str:
    """Return the folder of a module, alignment.data say; recipes are one folder."""
    return module.split(".")[0] if module.startswith("recipes") else ".".join(module.split(".")[:2])


def floor_of(module: str) -> int | None:
    return next((number for number, folders in enumerate(FLOORS) if folder_of(module) in folders), None)


def upward_imports(files: list[Path]) -> list[str]:
    upward = []
    for each in imports_of(files):
        here, there = floor_of(each.name), floor_of(each.imported)
        if here is not None and there is not None and there < here:
            upward.append(f"{each.name}:{each.line} imports {each.imported}")
    return upward


def folder_cycles(files: list[Path]) -> list[list[str]]:
    """Return the groups of folders that import each other, directly or through others."""
    below: dict[str, set[str]] = defaultdict(set)
    for each in imports_of(files):
        here, there = folder_of(each.name), folder_of(each.imported)
        if each.imported.split(".")[0] in OURS and here != there and "." in there + there.removeprefix("recipes"):
            below[here].add(there)

    def reached(start: str) -> set[str]:
        found, todo = set(), [start]
        while todo:
            for folder in below[todo.pop()] - found:
                found.add(folder)
                todo.append(folder)
        return found

    reach = {folder: reached(folder) for folder in list(below)}
    groups = {
        tuple(sorted({folder} | {other for other in reach[folder] if folder in reach.get(other, ())}))
        for folder in reach
        if folder in reach[folder]
    }
    return [list(group) for group in sorted(groups)]


def test_no_import_points_up():
    assert upward_imports(sources()) == []


def test_no_folders_import_each_other_in_a_circle():
    assert folder_cycles(sources()) == []


def test_every_folder_has_a_floor():
    folders = {folder_of(module_name(file)) for file in sources()} - set(OURS[:2])
    assert folders - set().union(*FLOORS) == set()


def test_every_child_process_has_the_name_in_the_table():
    named = {
        (module_name(file), name) for file in sources() for _, name in modules_in_strings(ast.parse(file.read_text()))
    }
    assert CHILD_PROCESSES - named == set()


def test_alignment_never_imports_reward_or_recipes():
    found = []
    for file in sorted((ROOT / "alignment").rglob("*.py")):
        if module_name(file).startswith("alignment.cli"):
            continue
        found += [
            f"{file}:{line} {name}"
            for line, name in imported_modules(ast.parse(file.read_text()), str(file))
            if name.split(".")[0] in ("reward", "recipes")
        ]
    assert found == []


def write(root: Path, **modules: str) -> list[Path]:
    """Write modules, named as `alignment__ops__kl`, and return their files."""
    files = []
    for name, text in modules.items():
        file = root.joinpath(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        files.append(file)
    return files


def test_the_walk_sees_an_upward_import(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    files = write(tmp_path, alignment__ops__kl="def f():\n    from alignment.train import ppo\n")
    assert upward_imports(files) == ["alignment.ops.kl:2 imports alignment.train.ppo"]


def test_the_walk_sees_an_upward_import_by_a_string(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    files = write(
        tmp_path,
        recipes__sft="",
        recipes__tiny__judge="",
        alignment__train__lazy='import importlib\nimportlib.import_module(f"recipes.{name}")\n',
        alignment__data__named='JUDGE = "recipes.tiny.judge:prefer"\nTEXT = "recipes.txt and recipes.nothing"\n',
    )
    assert upward_imports(files) == [
        "alignment.train.lazy:2 imports recipes",
        "alignment.data.named:1 imports recipes.tiny.judge",
    ]


def test_the_walk_sees_a_circle_of_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    files = write(
        tmp_path,
        reward__audit__gate="from reward.feedback.store import f\n",
        reward__feedback__store="def f():\n    import reward.judges.backends.replay\n",
        reward__judges__replay='import alignment.errors\nNAMED = "reward.audit.gate"\n',
        alignment__errors="",
    )
    assert folder_cycles(files) == [["reward.audit", "reward.feedback", "reward.judges"]]
    assert folder_cycles(files[:2]) == []


def test_scripts_turn_telemetry_off_before_the_libraries_read_that_setting():
    libraries = {"torch", "transformers", "trl", "peft", "datasets", "huggingface_hub", "wandb"}
    for file in sorted((ROOT / "recipes").glob("*.py")):
        order = [name.split(".")[0] for _, name in imported_modules(ast.parse(file.read_text()), file.name)]
        first = order.index("alignment") if "alignment" in order else len(order)
        assert libraries.isdisjoint(order[:first]), file.name


def test_telemetry_is_off_unless_the_user_turns_it_on():
    code = "import alignment; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    without = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and key != "DO_NOT_TRACK"}
    for given, off in (({}, "True"), ({"HF_HUB_DISABLE_TELEMETRY": "0"}, "False")):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=without | given
        )
        assert run.stdout.strip() == off


def test_the_command_imports_no_torch():
    code = "import sys, alignment.cli, alignment.config; print({'torch', 'transformers', 'trl'} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "set()"
