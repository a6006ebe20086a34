"""A copy of the packages, to which a test adds code as a user would."""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("alignment", "reward", "recipes")


class PackageCopy:
    """The packages in another folder, and the files that were changed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))

    def changed(self) -> list[str]:
        """Return the Python files that differ from the repository's."""
        files = [file.relative_to(self.folder) for file in self.folder.rglob("*.py")]
        return sorted(
            str(file)
            for file in files
            if not (ROOT / file).is_file() or not filecmp.cmp(ROOT / file, self.folder / file, shallow=False)
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run Python with the copy's packages, in the copy."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=self.folder, timeout=240
        )
