"""Which names may be Hub ids of models and data sets, and whether the Hugging Face Hub responds."""

import functools
import os
import re
import sys
from pathlib import Path

from alignment.meter import say
from alignment.secrecy import key_in

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
LONGEST_ID = 96  # characters, the Hub's own limit
OF_FILES = re.compile(  # such names are files, or folders of a run
    r"\.(jsonl?|ndjson|csv|tsv|txt|md|parquet|arrow|ya?ml|toml|gz|zst|zip|tar|safetensors|bin|pt|pth|ckpt|py|html|log)$"
    r"|(^|/)checkpoint-[0-9]+$",
    re.IGNORECASE,
)
FOLDERS = frozenset(  # usual local folders: a path that begins with one is not a Hub id
    "run runs out output outputs result results checkpoint checkpoints ckpt ckpts data dataset datasets model models "
    "adapter adapters log logs tmp temp work experiments".split()
)
SECONDS = 4.0  # time-out of the Hub; after it, the process uses the cache only
ENDPOINT = "https://huggingface.co"


def local(path: str) -> Path | None:
    """Return the local file or folder of a name; None if there is none."""
    try:
        place = Path(path).expanduser()
        return place if place.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown user
        return None


def why_not_on_hub(name: str) -> str | None:
    """Return why a name without a local file cannot be a Hub id; None if it can."""
    if not HUB_ID.fullmatch(name) or len(name) > LONGEST_ID or "--" in name or ".." in name:
        return "it is not a Hub id, which has the form owner/name"
    if key_in(name) is not None:
        return "it looks like a key"
    if OF_FILES.search(name):
        return "it ends like a file or a checkpoint, so it is not looked up on the Hub"
    first, slash, _ = name.partition("/")
    if slash and (first.lower() in FOLDERS or os.path.isdir(first)):
        return f"{first}/ is a local folder, so it is not looked up on the Hub"
    return None


def may_be_on_hub(name: str) -> bool:
    """Whether a name without a local file may be a Hub id."""
    return why_not_on_hub(name) is None


def is_offline() -> bool:
    """Whether this process does not use the Hub, by the user's setting or after an earlier failure."""
    return any(_is_true(os.environ.get(name, "")) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def endpoint() -> str:
    """Return the Hub's address."""
    return os.environ.get("HF_ENDPOINT") or ENDPOINT


def reach() -> bool:
    """Check once whether the Hub responds; if not, make the libraries use only their caches.

    Each of them would retry for more than a minute. `HF_HUB_OFFLINE=1` skips the check.
    """
    return not is_offline() and _reached(endpoint())


@functools.cache
def _reached(address: str) -> bool:
    if _answers(address):
        return True
    say(f"{address} does not respond: models and data sets of the Hub are read from the cache only")
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
