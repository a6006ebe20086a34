"""Patterns that choose modules by name, tried within a time limit before PEFT matches them without one."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from alignment.errors import ModelError
from alignment.strict_json import shown

SECONDS = 2  # of processor time, for all patterns on all names; useful ones take milliseconds
WAIT_SECONDS = 60  # for a process on a machine that is busy with others
MEMORY_BYTES = 2 << 30
PLAIN = re.compile(r"[\w-]+(\.[\w-]+)*")  # a module's name: no character that makes the time of a match grow
# Runs apart from this process, which nothing can stop while it matches.
MATCH = """
import json, re, resource, sys
asked = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"]))
for pattern in asked["patterns"]:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        sys.exit(json.dumps([pattern, str(error)]))
    for name in asked["names"]:
        compiled.fullmatch(name)
"""


def require_patterns(config: Any, names: Sequence[str], where: str) -> None:
    """Refuse an adapter configuration with a pattern that is none, or takes too long on the modules' names.

    Args:
        config: PEFT's LoraConfig. names: of all modules of the base. where: begins the message.

    Raises: ModelError.
    """
    targets = [given for given in (config.target_modules, config.exclude_modules) if isinstance(given, str)]
    ranks = [rf"(.*\.)?({key})$" for key in [*(config.rank_pattern or {}), *(config.alpha_pattern or {})]]
    patterns = [*(given for given in targets if given != "all-linear"), *ranks]
    asked = list(dict.fromkeys(pattern for pattern in patterns if not PLAIN.fullmatch(pattern)))
    if not asked:
        return
    limits = {"seconds": SECONDS, "memory": MEMORY_BYTES}
    given = json.dumps({"patterns": asked, "names": list(dict.fromkeys(names)), **limits})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MATCH],
            input=given,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            env={"PATH": os.environ.get("PATH", "")},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_long(where, asked) from None
    if done.returncode == 1 and done.stderr.startswith("["):
        pattern, reason = json.loads(done.stderr)
        raise ModelError(f"{where}: {shown(pattern)} is no pattern: {reason}.")
    if done.returncode:
        raise _too_long(where, asked)


def _too_long(where: str, patterns: list[str]) -> ModelError:
    return ModelError(
        f"{where}: the pattern {shown(patterns[0])} takes more than {SECONDS} s on the modules' names; write one "
        "without a repetition inside a repetition, or a list of names."
    )
