"""How this process was launched: with how many others, and what cuts the model over them."""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.schema import STAGES, Recipe
from alignment.errors import TrainingError

BATCH_KEYS = frozenset({"per_device_train_batch_size", "gradient_accumulation_steps"})
PER_DEVICE = 8  # transformers' default of per_device_train_batch_size


def is_sharded() -> bool:
    """Whether DeepSpeed or FSDP will place the weights; they refuse a model that is on a device already."""
    return is_fsdp() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def is_fsdp() -> bool:
    """Whether the launcher asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"


def is_compiled() -> bool:
    """Whether `accelerate launch` has models compiled, by `--dynamo_backend` or `dynamo_config`."""
    return os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("", "no")


@dataclass(frozen=True, slots=True)
class Launch:
    """What a checkpoint depends on beside the recipe."""

    processes: int
    engine: str  # "none" for one process and plain data parallelism, else "fsdp", "zero1", "zero2", "zero3"

    @classmethod
    def of(cls, recipe: Recipe) -> "Launch":
        """Read the environment that launchers set, after adding the recipe's `deepspeed` and `fsdp`.

        `TrainingArguments` would put them there too, but only after the processes met; and on a CPU it would then
        forget that there are several.
        """
        given = recipe.library.get("deepspeed")
        if given:
            file = given if isinstance(given, str) else base64.urlsafe_b64encode(json.dumps(given).encode()).decode()
            os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": file}
        if recipe.library.get("fsdp"):
            os.environ["ACCELERATE_USE_FSDP"] = "true"
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
            return cls(processes, "fsdp")
        if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
            return cls(processes, f"zero{_zero_stage(given)}")
        return cls(processes, "none")

    def require_own_store(self) -> None:
        """Refuse workers that were started again where they would look for one another at the dead ones' addresses.

        torchrun (2.13) keeps one store for all its restarts unless this is turned off; the workers would wait forever.

        Raises: TrainingError.
        """
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        if self.processes > 1 and again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            raise TrainingError(
                "torchrun started the processes again, with a store in which they find the addresses of those that "
                "died. Start it with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, and --standalone or "
                "--rdzv-backend c10d; the same command resumes from the last complete checkpoint"
            )

    def rows(self, recipe: dict[str, Any]) -> int:
        """Rows that an optimizer step learns from."""
        per_device = _count(recipe.get("per_device_train_batch_size", PER_DEVICE))
        return self.processes * per_device * _count(recipe.get("gradient_accumulation_steps", 1))

    def why_it_cannot_follow(self, before: "Launch", was: dict[str, Any], now: dict[str, Any]) -> str | None:
        """Return why a run started by `before` cannot resume here; None: it can. `was` and `now` are its recipes."""
        if self.engine != before.engine:
            named = {"none": "no DeepSpeed and no FSDP", "fsdp": "FSDP"}
            kinds = [named.get(kind, kind.replace("zero", "ZeRO-")) for kind in (before.engine, self.engine)]
            return f"it began with {kinds[0]}, this start has {kinds[1]}, and each keeps the optimizer in its own files"
        if self.processes == before.processes:
            return None
        counts = f"it began on {before.processes} processes, this start has {self.processes}"
        about = STAGES[now["stage"]].STAGE
        if about.is_online:
            return f"{counts}, and each process of {about.title} keeps a part of the update under way"
        if self.engine.startswith("zero"):
            return f"{counts}, and DeepSpeed keeps the optimizer in as many parts as there were processes"
        if self.rows(now) != before.rows(was):
            return (
                f"{counts}, so a step would learn from {self.rows(now)} rows where it learned from {before.rows(was)}. "
                "Set per_device_train_batch_size and gradient_accumulation_steps so that, times the processes, they "
                f"make {before.rows(was)} again"
            )
        return None


def _count(value: Any) -> int:
    """A number of rows or steps; 0 if a manifest that was changed holds none, which is equal to no recipe's."""
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0


def _zero_stage(given: Any) -> str:
    """Return ZeRO's stage, from the recipe's `deepspeed` or the launcher's environment; "" without ZeRO."""
    file = given or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if isinstance(file, str) and Path(file).is_file():
        try:
            given = json.loads(Path(file).read_text(encoding="utf-8"))
        except ValueError:
            return ""
    if isinstance(given, dict):
        return str(given.get("zero_optimization", {}).get("stage", ""))
    return os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
