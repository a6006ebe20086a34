"""The devices of a plan: memory, speed, and the strategy that shards the model over them."""

import math
import re
from dataclasses import dataclass, replace

from alignment.errors import RecipeError
from alignment.strict_json import shown

STAGES = {  # of ZeRO: what is sharded over processes
    "single": 0, "ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero3-offload": 3, "zero3-nvme": 3, "fsdp2": 3,
}  # fmt: skip
STRATEGIES = tuple(STAGES)
GIB = 2**30
LEAST = 2**20  # bytes; less is a size without its unit
MOST_BYTES = 2**50  # of one device
MOST_GPUS = 100_000
CUDA_CONTEXT = int(0.6 * GIB)  # the driver's own and the libraries' kernels; 0.4 to 0.8 GiB on Ampere and Hopper
SLACK = 0.05  # share of the activations that PyTorch's allocator rounds up and cannot reuse
CPU_CORE = {"tflops": 0.05, "bandwidth": 0.01}  # roughly, in float32
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, slots=True)
class Machine:
    """Identical devices, and the strategy that shards a model over them."""

    gpus: int = 1  # processes; each has a device
    memory: int = 80 * GIB  # bytes of each
    strategy: str = "single"
    gpu: bool = True  # False: CPU processes, in float32 and without autocast
    tflops: float = 312.0  # dense peak in bf16; the default is an A100's
    bandwidth: float = 2.0  # TB/s of device memory, an 80 GB A100's
    utilization: float = 0.4  # share of the peak that training reaches

    @property
    def shards(self) -> "Shards":
        """The number of processes over which each kind of state is sharded."""
        n, stage = self.gpus, STAGES[self.strategy]
        return Shards(
            weights=n if stage >= 3 else 1, gradients=n if stage >= 2 else 1, optimizer=n if stage >= 1 else 1
        )

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed holds the weights: in bf16, with float32 copies in the optimizer's shards."""
        return self.strategy.startswith("zero")

    @property
    def offloads(self) -> bool:
        """Whether optimizer states and weights are offloaded from the devices."""
        return self.strategy in ("zero3-offload", "zero3-nvme")

    @property
    def nvme(self) -> bool:
        """Whether they are offloaded to a disk; the host's memory only buffers them."""
        return self.strategy == "zero3-nvme"

    @property
    def alone(self) -> "Machine":
        """Return one of the devices, for a stage that runs in one process."""
        return replace(self, gpus=1, strategy="single")

    def using(self, strategy: str) -> "Machine":
        """Return the same devices under another strategy."""
        return replace(self, strategy=strategy)


@dataclass(frozen=True, slots=True)
class Shards:
    """The number of shards of each kind of state."""

    weights: int
    gradients: int
    optimizer: int


def machine(*, gpus: int, memory: str, strategy: str | None, cpu: bool = False, **speeds: float | None) -> Machine:
    """Build a machine from the options of a command. `speeds`: tflops, bandwidth and utilization; None: the default.

    Raises: RecipeError if a number is impossible or the strategy is unknown.
    """
    cpu, strategy = cpu or strategy == "cpu", None if strategy == "cpu" else strategy  # launch's name for CPU processes
    chosen = strategy if strategy is not None else ("single" if gpus == 1 else "ddp")
    speed = {**(CPU_CORE if cpu else {}), **{name: value for name, value in speeds.items() if value is not None}}
    faults = []
    if chosen not in STRATEGIES:
        faults.append(f"--strategy {chosen} is not known; give one of {', '.join(STRATEGIES)}")
    if not 1 <= gpus <= MOST_GPUS:
        least = "at least one device is needed" if gpus < 1 else f"at most {MOST_GPUS} are planned for"
        faults.append(f"--gpus {shown(gpus)}: {least}")
    if chosen == "single" and gpus > 1:
        faults.append(f"--strategy single is one process, but --gpus is {gpus}; use ddp, zero2 or zero3")
    faults += [f"--{name} {value}: give a number above 0" for name, value in speed.items() if not 0 < value < math.inf]
    if speeds.get("utilization") is not None and 1 < speed["utilization"] < math.inf:
        faults.append(f"--utilization {speed['utilization']} is a share of the peak; write 0.4 for 40 %")
    size = parse_bytes(memory)
    if size is None:
        faults.append(f"--memory {shown(memory)} is not a size; write it like 80GiB or 24GB")
    elif size < LEAST:
        faults.append(f"--memory {memory!r} is {size} bytes; write it like 80GiB or 24GB")
    if faults or size is None:
        raise RecipeError(faults)
    return Machine(gpus=gpus, memory=size, strategy=chosen, gpu=not cpu, **speed)


def parse_bytes(text: str) -> int | None:
    """Read a size such as `80GiB` or `24 GB`; None if the text is not a size."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(|[kKmMgGtT]i?)[bB]?\s*", text)
    if found is None:
        return None
    size = float(found[1]) * UNITS[found[2].lower()]
    return int(size) if 1 <= size <= MOST_BYTES else None
