"""Imports point down only, and the command line stays light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [  # from the top; a package may import its own floor and those below
    {"alignment.cli"},
    {"recipes"},
    {
        "alignment.train",
        "alignment.run",
        "alignment.pipeline",
        "alignment.launch",
        "alignment.report",
        "alignment.planner",
        "alignment.doctor",
        "alignment.preview",
        "alignment.calls",
        "alignment.serving",
        "reward",
    },
    {"alignment.data", "alignment.policy", "alignment.evaluate", "alignment.config"},
    {
        "alignment.ops",
        "alignment.rollout",
        "alignment.errors",
        "alignment.meter",
        "alignment.bounded_http",
        "alignment.strict_json",
        "alignment.json_lines",
        "alignment.manifest",
        "alignment.secrecy",
        "alignment.hub",
    },
]


def floor_of(module: str) -> int | None:
    for number, packages in enumerate(FLOORS):
        if any(module == package or module.startswith(package + ".") for package in packages):
            return number
    return None


def imported_modules(tree: ast.AST, package: str) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package}: relative imports hide the floor"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def upward_imports(files: list[Path]) -> list[str]:
    upward = []
    for file in files:
        name = module_name(file)
        here = floor_of(name)
        for line, imported in imported_modules(ast.parse(file.read_text()), name):
            there = floor_of(imported)
            if here is not None and there is not None and there < here:
                upward.append(f"{name}:{line} imports {imported}")
    return upward


def sources() -> list[Path]:
    return [file for package in ("alignment", "reward", "recipes") for file in sorted((ROOT / package).rglob("*.py"))]


def test_no_import_points_up():
    assert upward_imports(sources()) == []


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


def test_the_walk_sees_an_upward_arrow(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "alignment" / "ops").mkdir(parents=True)
    bad = tmp_path / "alignment" / "ops" / "kl.py"
    bad.write_text("def f():\n    from alignment.train import ppo\n")
    assert upward_imports([bad]) == ["alignment.ops.kl:2 imports alignment.train.ppo"]


def test_scripts_turn_telemetry_off_before_the_libraries_read_that_setting():
    libraries = {"torch", "transformers", "trl", "peft", "datasets", "huggingface_hub", "wandb"}
    for file in sorted((ROOT / "recipes").glob("*.py")):
        order = [name.split(".")[0] for _, name in imported_modules(ast.parse(file.read_text()), file.name)]
        first = order.index("alignment") if "alignment" in order else len(order)
        assert libraries.isdisjoint(order[:first]), file.name


def test_telemetry_is_off_unless_the_user_says_otherwise():
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
