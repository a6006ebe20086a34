"""What the documentation's build adds to the pages: links that leave docs/, and the commands' help."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTWARD = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
COMMANDS = re.compile(r"^<!-- help: (.+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write a file outside docs/ as its path, for the site has no copy of it, and put in the help of commands."""

    def path(found: re.Match[str]) -> str:
        target = (ROOT / "docs" / page.file.src_uri).parent / found[2]
        if not target.resolve().exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {found[2]}, which does not exist")
        name = target.resolve().relative_to(ROOT).as_posix()
        return found[1] if name in found[1] else f"{found[1]} (`{name}`)"

    return COMMANDS.sub(lambda found: _help(found[1]), OUTWARD.sub(path, markdown))


def _help(command: str) -> str:
    """Return the help of a command as a block of text."""
    words = [] if command == "alignment" else command.removeprefix("alignment ").split()
    done = subprocess.run(
        [sys.executable, "-m", "alignment.cli", *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PATH": "", "NO_COLOR": "1", "TERM": "dumb"},
    )
    lines = [line.rstrip() for line in done.stdout.replace("python -m alignment.cli", "alignment").splitlines()]
    return "```text\n" + "\n".join(lines).strip("\n") + "\n```"
