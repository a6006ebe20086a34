"""Chat templates come with models: how long one renders and how much it writes is tried apart, before it is used."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import jinja2
import markupsafe
from jinja2 import nodes

from alignment.errors import ModelError

SECONDS = 3  # of processor time for all the trial conversations; useful templates take milliseconds
WAIT_SECONDS = 60  # for a process on a machine that is busy with others
MEMORY_BYTES = 1 << 30
LONGEST = 1 << 20  # characters that a trial conversation of a few words may become
MOST_NESTED = 2  # loops over messages inside one another that need no trial
# Filters and methods that may write more than they are given.
GROWING = frozenset(
    {"center", "indent", "format", "wordwrap", "replace", "join", "ljust", "rjust", "zfill", "expandtabs"}
)
GROWING |= {"batch", "slice", "tojson", "pprint", "encode", "map", "list", "string"}
# Runs apart from this process, which nothing can stop while it renders; the environment is that of transformers.
RENDER = """
import datetime, json, resource, sys
asked = json.load(sys.stdin)
sys.path.extend(asked["path"])
import jinja2, jinja2.ext, jinja2.sandbox
resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"]))

class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

def refuse(message):
    raise jinja2.exceptions.TemplateError(message)

environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = lambda x, **options: json.dumps(x, **options)
environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: "", "bos_token": "", "eos_token": ""}
for given in asked["conversations"]:
    written = 0
    try:
        for piece in environment.from_string(asked["template"]).generate(**given):
            written += len(piece)
            if written > asked["longest"]:
                sys.exit(3)
    except MemoryError:
        sys.exit(3)
    except Exception:
        pass  # what a template refuses is found where it is used
"""
_USER, _ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
_SYSTEM = {"role": "system", "content": "Be kind."}
_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
_CONVERSATIONS = [
    {"messages": messages, "add_generation_prompt": asks, "tools": tools}
    for messages in ([_USER], [_SYSTEM, _USER, _ASSISTANT], [_USER, _ASSISTANT, _USER, _ASSISTANT, _USER])
    for asks in (True, False)
    for tools in (None, [_TOOL])
]


@functools.lru_cache
def require_bounded(template: str) -> None:
    """Refuse a chat template that takes long, or much memory, to write a few words.

    Raises: ModelError.
    """
    if is_plain(template):
        return
    folders = sorted({str(Path(module.__file__ or "").parents[1]) for module in (jinja2, markupsafe)})
    limits = {"seconds": SECONDS, "memory": MEMORY_BYTES, "longest": LONGEST}
    given = json.dumps({"template": template, "conversations": _CONVERSATIONS, "path": folders, **limits})
    command = [sys.executable, "-I", "-S", "-c", RENDER]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        raise ModelError(
            f"the chat template takes more than {SECONDS} s, {MEMORY_BYTES >> 30} GiB or {LONGEST:,} characters to "
            "write a conversation of a few words; use the model's own template, or give chat_template."
        )


def is_plain(template: str) -> bool:
    """Whether a template is too simple to take long: loops over messages alone, and nothing that grows text."""
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (jinja2.TemplateError, RecursionError):
        return False
    growing: tuple[type[nodes.Node], ...] = (
        nodes.Mul,
        nodes.Pow,
        nodes.Mod,
        nodes.Macro,
        nodes.AssignBlock,
        nodes.Call,
    )
    if tree.find(nodes.Assign) is not None:  # a sum that is kept may grow with every round of a loop
        growing += (nodes.Add, nodes.Concat)
    if any(True for _ in tree.find_all(growing)):
        return False
    if any(node.name in GROWING for node in tree.find_all(nodes.Filter)):
        return False
    return _nested_loops(tree) <= MOST_NESTED


def _nested_loops(node: nodes.Node) -> int:
    inner = max((_nested_loops(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)
