"""Regular expressions that choose modules by name, tried within a time limit before PEFT matches them without one."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence

from alignment.strict_json import shown

WHOLE_LAYERS = ("all-linear",)  # not a pattern: a name that PEFT defines
LONGEST = 4_096  # characters
SECONDS = 2  # of processor time, for all patterns on all names; useful ones take milliseconds
WAIT_SECONDS = 60  # for a process on a machine that is busy with others
MEMORY_BYTES = 2 << 30
PLAIN = re.compile(r"[\w-]+(\.[\w-]+)*")  # a module's name: no character that makes the time of a match grow
PARTS = ("self_attn.q_proj", "mlp.down_proj", "attn.c_attn", "block_sparse_moe.experts.63.w1", "input_layernorm")
HEADS = ("model.layers", "transformer.h")
USUAL_NAMES = (
    *(f"{head}.{layer}.{part}" for head in HEADS for layer in (0, 31, 127) for part in PARTS),
    *("lm_head", "score", "a" * 64, "0" * 64, "_" * 64),  # the last three: what a repetition could match
)
# Runs apart from this process, which nothing can stop while it matches.
MATCH = """
import json, re, resource, sys, warnings
warnings.simplefilter("ignore")
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


def fault_of_patterns(patterns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the fault of a pattern that is invalid, or too slow on the modules' names; None if all are valid."""
    asked = list(dict.fromkeys(pattern for pattern in patterns if not PLAIN.fullmatch(pattern)))
    if not asked:
        return None
    longest = max(asked, key=len)
    if len(longest) > LONGEST:
        return f"{shown(longest)} is a pattern of {len(longest):,} characters, and {LONGEST:,} is the most"
    limits = {"seconds": SECONDS, "memory": MEMORY_BYTES}
    given = json.dumps({"patterns": asked, "names": list(dict.fromkeys(names)), **limits})
    too_long = (
        f"the pattern {shown(asked[0])} takes more than {SECONDS} s on the modules' names; write one without a "
        "repetition inside a repetition, or a list of names"
    )
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
        return too_long
    if done.returncode == 1 and done.stderr.startswith("["):
        pattern, reason = json.loads(done.stderr)
        return f"{shown(pattern)} is not a pattern: {reason}"
    return too_long if done.returncode else None
