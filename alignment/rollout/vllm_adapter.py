"""Handing vLLM the policy's adapter alone, under a new name each time."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as max_lora_rank


class VersionedAdapter:
    """The policy's adapter in files, a new folder, name and number for each version.

    vLLM keys its prefix cache by the adapter's name, so a second adapter of the same name is answered from blocks that
    the first one computed (https://github.com/vllm-project/vllm/issues/42125).

    Args:
        save: write the present adapter into a folder as PEFT does. rank: the adapter's largest.
        memory: where folders are made; in memory where the system has such a place.
    """

    def __init__(self, save: Callable[[Path], None], rank: int, memory: Path = Path("/dev/shm")) -> None:
        self.save = save
        self.version = 0
        self.largest_rank = next(size for size in RANKS if size >= rank)
        self._folder = Path(tempfile.mkdtemp(prefix="policy-", dir=memory if memory.is_dir() else None))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # at the process's end, too

    def next_version(self) -> tuple[str, int, str]:
        """Write the policy as it is now; return name, number and folder. The version before is removed."""
        old = self._folder / str(self.version)
        self.version += 1
        new = self._folder / str(self.version)
        self.save(new)
        shutil.rmtree(old, ignore_errors=True)
        return f"policy-{self.version}", self.version, str(new)


class WithAdapter:
    """A `vllm.LLM` whose every `generate` uses the adapter that `request` names."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.request: Any = None

    def generate(self, *prompts: Any, **settings: Any) -> Any:
        """Do what `LLM.generate` does, with the adapter."""
        return self.llm.generate(*prompts, lora_request=self.request, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.llm, name)
