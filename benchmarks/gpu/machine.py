"""What the machine is: the device, folders with room, versions; and small helpers that need no library."""

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MEMORY_FOLDER = Path("/dev/shm")
ROOM = 24 * 2**30  # bytes that all models together need on a GPU machine
NEEDED = ("trl", "datasets", "bitsandbytes", "pydantic", "openai", "peft", "accelerate", "transformers")
SHOWN = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "deepspeed", "numpy")


def has_cuda() -> bool:
    """Whether torch can compute on a GPU here."""
    import torch

    return torch.cuda.is_available()


def device(kind: str) -> dict[str, Any]:
    """Describe what the steps run on."""
    if kind == "cpu":
        return {"kind": "cpu", "name": _processor(), "cores": os.cpu_count()}
    import torch

    free, whole = torch.cuda.mem_get_info()
    gib = {"memory_gib": round(whole / 2**30, 2), "free_gib": round(free / 2**30, 2)}
    return {"kind": "cuda", "name": torch.cuda.get_device_name(), "cuda": torch.version.cuda, **gib}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def roomy_folder(kind: str) -> str:
    """Return a folder in memory if there is one with room, else the one for temporary files."""
    room = ROOM if kind == "cuda" else 2**30
    fits = MEMORY_FOLDER.is_dir() and os.access(MEMORY_FOLDER, os.W_OK) and shutil.disk_usage(MEMORY_FOLDER).free > room
    return str(MEMORY_FOLDER) if fits else tempfile.gettempdir()


def site_of(work: Path) -> str:
    return str(work / "site")


def can_import(environment: dict[str, str]) -> bool:
    """Whether a process with this environment finds every library, without loading any."""
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {NEEDED!r})))"
    return subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def versions(environment: dict[str, str]) -> dict[str, str]:
    """Return the versions that the steps see."""
    code = (
        "import importlib.metadata as m, json\nfound = {}\n"
        f"for name in {SHOWN!r}:\n"
        "    try:\n        found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError:\n        pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return {"python": platform.python_version(), **json.loads(done.stdout)}


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; {} if there is no such file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def now() -> str:
    """The time, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
