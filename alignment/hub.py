"""Which names may be asked of the Hugging Face Hub, and whether it answers: one home for models and data sets."""

import functools
import os
import re
import sys
from pathlib import Path

from alignment.meter import say
from alignment.secrecy import key_in

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
LONGEST_ID = 96  # characters, the Hub's own limit
OF_FILES = re.compile(  # names that end so are files, or folders of a run
    r"\.(jsonl?|ndjson|csv|tsv|txt|md|parquet|arrow|ya?ml|toml|gz|zst|zip|tar|safetensors|bin|pt|pth|ckpt|py|html|log)$"
    r"|(^|/)checkpoint-[0-9]+$",
    re.IGNORECASE,
)
FOLDERS = frozenset(  # where people keep their own: what begins so is never on the Hub
    "run runs out output outputs result results checkpoint checkpoints ckpt ckpts data dataset datasets model models "
    "adapter adapters log logs tmp temp work experiments".split()
)
SECONDS = 4.0  # that the Hub has to answer; then it counts as absent for the whole process
ENDPOINT = "https://huggingface.co"


def local(path: str) -> Path | None:
    """The file or folder that a name stands for here; None if there is none."""
    try:
        place = Path(path).expanduser()
        return place if place.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a user that is none
        return None


def why_not_on_hub(name: str) -> str | None:
    """Say why a name that is not here cannot be the Hub's either; None if it may be."""
    if not HUB_ID.fullmatch(name) or len(name) > LONGEST_ID or "--" in name or ".." in name:
        return "it is no Hub id, which is written owner/name"
    if key_in(name) is not None:
        return "it looks like a key"
    if OF_FILES.search(name):
        return "it ends as a file or a checkpoint does, so the Hub is not asked"
    first, slash, _ = name.partition("/")
    if slash and (first.lower() in FOLDERS or os.path.isdir(first)):
        return f"{first}/ is a folder of yours, so the Hub is not asked"
    return None


def may_be_on_hub(name: str) -> bool:
    """Whether a name that is not here may be the Hub's."""
    return why_not_on_hub(name) is None


def is_offline() -> bool:
    """Whether the user, or an earlier failure to reach it, keeps this process from the Hub."""
    return any(_is_true(os.environ.get(name, "")) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def endpoint() -> str:
    """The Hub's address."""
    return os.environ.get("HF_ENDPOINT") or ENDPOINT


def reach() -> bool:
    """Look once whether the Hub answers; where it does not, have the libraries use their caches alone.

    They would each try for a minute and more. `HF_HUB_OFFLINE=1` skips the look.
    """
    return not is_offline() and _reached(endpoint())


@functools.cache
def _reached(address: str) -> bool:
    if _answers(address):
        return True
    say(f"{address} does not answer: models and data sets of the Hub are looked for in the cache alone")
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module, name in (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE")):
        if module in sys.modules:  # read when it was imported
            setattr(sys.modules[module], name, True)
    return False


def _answers(address: str) -> bool:
    import httpx2

    from alignment.bounded_http import BoundedClient

    try:
        with BoundedClient(seconds=SECONDS, connect_seconds=SECONDS, largest_bytes=0) as client:
            client.head(address)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False
    return True


def _is_true(value: str) -> bool:
    return value.upper() in ("1", "TRUE", "YES", "ON")
