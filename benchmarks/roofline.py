"""The arithmetic of each phase of a PPO update against this machine's rate of matrix products, and what the rest is.

    python -m benchmarks.roofline --workload equal|natural [--value_model adapter|head]

Four updates of `benchmarks.ppo_ours`: a warm-up; one whose phases are timed, by processor time; one whose operators are
counted; one under torch's profiler. The phases are sampling, scoring (log-probabilities, values and scores before the
update), and of training the forward pass, the backward pass and the optimizer with the clipping of gradients; "other"
is the rest of the update.

    arithmetic    floating-point operations of matrix products, and of the products inside attention, 2 a multiply-add
    rate          arithmetic over processor time
    of large      rate over that of `torch.mm` on matrices of 1024 x 1024, the median of three measurements in the run
    of its own    time of the phase's own products alone, each repeated on matrices of the same sizes and strides, with
                  attention at the large rate, over the phase's time: what is lost to everything but products

The second table gives each phase's processor time by kinds of operators, in per cent; "Python" is time outside of
operators. The last line is one JSON object.
"""

import argparse
import bisect
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from benchmarks.comparison import WORK, conditions, make_model
from benchmarks.ppo_ours import make_trainer, recipe_of
from benchmarks.workload import WORKLOADS, model_folder, prompts_file

PHASES = ("sampling", "scoring", "forward", "backward", "optimizer", "other")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
ATTENTION = "_scaled_dot_product"
KINDS = {  # parts of operators' names, the first that fits
    "products": ("mm", "matmul", "linear"),
    "attention": (ATTENTION, "_softmax", "scaled_dot"),
    "optimizer": ("foreach", "adam"),
    "copies": ("copy", "clone", "cat", "index", "gather", "embedding", "zero", "fill", "empty", "scatter", "slice"),
    "log-probabilities": ("logsumexp", "log_softmax", "softmax", "multinomial", "sort"),
}
ELEMENTWISE, PYTHON = "elementwise", "Python"
LARGE = 1024
Product = tuple[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]]  # name, and sizes and strides of its matrices


class Counted(TorchDispatchMode):  # type: ignore[misc]
    """Counts the arithmetic of each phase."""

    def __init__(self, phases: "Phases") -> None:
        super().__init__()
        self.phases = phases
        self.products: dict[str, Counter[Product]] = defaultdict(Counter)
        self.attention: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            matrices = tuple((tuple(each.shape), each.stride()) for each in args if isinstance(each, torch.Tensor))
            self.products[self.phases.now][name, matrices] += 1
        elif name.startswith(ATTENTION):
            query, key = args[1:3] if "backward" in name else args[:2]
            times = 5 if "backward" in name else 2  # products of queries, keys and the width of a head
            batch, heads, time_of_query, width = query.shape
            self.attention[self.phases.now] += times * 2 * batch * heads * time_of_query * key.shape[2] * width
        return func(*args, **(kwargs or {}))


def operations(product: Product) -> int:
    """Return the floating-point operations of a product."""
    (first, _), (second, _) = product[1][-2:]
    batch = first[0] if len(first) == 3 else 1
    return 2 * batch * first[-2] * first[-1] * second[-1]


class Phases:
    """Knows which phase runs, and times each."""

    def __init__(self) -> None:
        self.now = "other"
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before, self.now = self.now, name
        start = time.process_time()
        try:
            with record_function(f"phase:{name}"):
                yield
        finally:
            self.seconds[name] += time.process_time() - start
            self.now = before

    def within(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as part of a phase."""

        def called(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*args, **options)

        return called


class Updates(TrainerCallback):  # type: ignore[misc]
    """Times the second update, counts the third and profiles the fourth."""

    def __init__(self, steps: int) -> None:
        self.steps, self.phases = steps, Phases()
        self.counted = Counted(self.phases)
        self.profiler = profile(activities=[ProfilerActivity.CPU])
        self.seconds: Counter[str] = Counter()
        self.large: list[float] = []
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        optimizer.step = self.phases.within("optimizer", optimizer.step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps:
            return
        update = state.global_step // self.steps  # that ends
        if update == 2:
            self.seconds = Counter(self.phases.seconds)
            self.seconds["other"] = time.process_time() - self.started - sum(self.seconds.values())
        elif update == 3:
            self.counted.__exit__(None, None, None)
        elif update == 4:
            self.profiler.stop()
            return
        self.large.append(large_rate())
        if update == 1:
            self.phases.seconds.clear()
            self.started = time.process_time()
        elif update == 2:
            self.counted.__enter__()
        elif update == 3:
            self.profiler.start()


def large_rate() -> float:
    """Floating-point operations a second of processor time of large products."""
    first, second = torch.randn(2, LARGE, LARGE)
    return 2 * LARGE**3 / seconds_of(lambda: torch.mm(first, second))


def seconds_of(call: Callable[[], Any], least: float = 0.05) -> float:
    """Return the processor time of a call, the mean over calls of `least` seconds in sum."""
    call()
    start, calls = time.process_time(), 0
    while time.process_time() - start < least:
        call()
        calls += 1
    return (time.process_time() - start) / calls


def seconds_alone(products: Counter[Product], share: float = 0.98) -> float:
    """Return the processor time of products alone; of the smallest, `1 - share` of the arithmetic, in proportion."""
    total = sum(operations(product) * count for product, count in products.items())
    seconds, done = 0.0, 0
    for product, count in sorted(products.items(), key=lambda each: -operations(each[0]) * each[1]):
        if done >= share * total:
            break
        matrices = [_random(size, stride) for size, stride in product[1]]
        seconds += count * seconds_of(partial(getattr(torch, product[0]), *matrices), 0.02)
        done += operations(product) * count
    return seconds * total / done if done else 0.0


def _random(size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """Return a matrix of this size and these strides, which may overlap as those of an expanded bias do."""
    last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    return torch.randn(last + 1).as_strided(size, stride)


def kinds_of(events: Any) -> dict[str, dict[str, float]]:
    """Return the share of each kind of operator in each phase's processor time."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name.removeprefix("phase:"))
        for event in events
        if event.name.startswith("phase:")
    )
    starts = [start for start, _, _ in spans]
    for event in events:
        place = bisect.bisect_right(starts, event.time_range.start) - 1
        inside = place >= 0 and event.time_range.start < spans[place][1]
        kind = PYTHON if event.name.startswith("phase:") else kind_of(event.name)
        if inside:
            found[spans[place][2]][kind] += event.self_cpu_time_total
    return {
        phase: {kind: time_taken / sum(times.values()) for kind, time_taken in times.items()}
        for phase, times in found.items()
    }


def kind_of(name: str) -> str:
    """Return the kind of an operator."""
    if not name.startswith(("aten::", "Optimizer.")):
        return PYTHON
    return next((kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)), ELEMENTWISE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="equal")
    parser.add_argument("--value_model", choices=("adapter", "head"), default="adapter")
    parser.add_argument("--lora_layers", type=int)
    parser.add_argument("--work", type=Path, default=WORK)
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_model(args.workload, args.work)
    workload = WORKLOADS[args.workload]
    args.model, args.prompts = str(model_folder(args.workload, args.work)), prompts_file(args.workload)
    args.updates, args.microbatch = 4, workload.batch // workload.mini_batches
    with tempfile.TemporaryDirectory() as out:
        trainer, _ = make_trainer(args, workload, recipe_of(args, workload, Path(out)))
        updates = Updates(workload.epochs * workload.mini_batches)
        within = updates.phases.within
        trainer.generate = within("sampling", trainer.generate)
        trainer.score = within("scoring", trainer.score)
        trainer.compute_role_outputs = within("scoring", trainer.compute_role_outputs)
        trainer.compute_loss = within("forward", trainer.compute_loss)
        trainer.accelerator.backward = within("backward", trainer.accelerator.backward)
        trainer.accelerator.clip_grad_norm_ = within("optimizer", trainer.accelerator.clip_grad_norm_)
        trainer.add_callback(updates)
        trainer.train()
    found = figures(updates)
    print(table(found))
    print(json.dumps({"workload": args.workload, "value_model": args.value_model, **found, **conditions(1, "cpu")}))


def figures(updates: Updates) -> dict[str, Any]:
    """Return the large rate and each phase's figures."""
    large = statistics.median(updates.large)
    kinds = kinds_of(updates.profiler.events())
    phases = {}
    for phase in PHASES:
        products, attention = updates.counted.products[phase], updates.counted.attention[phase]
        arithmetic = sum(operations(product) * count for product, count in products.items()) + attention
        seconds = updates.seconds[phase]
        phases[phase] = {
            "cpu_seconds": seconds,
            "gflop": arithmetic / 1e9,
            "attention_gflop": attention / 1e9,
            "gflop_per_second": arithmetic / 1e9 / seconds,
            "of_large": arithmetic / seconds / large,
            "of_its_own": (seconds_alone(products) + attention / large) / seconds,
            "kinds": kinds.get(phase, {}),
        }
    return {"large_gflop_per_second": large / 1e9, "phases": phases}


def table(found: dict[str, Any]) -> str:
    """Both Markdown tables."""
    lines = [f"`torch.mm` on {LARGE} x {LARGE}: {found['large_gflop_per_second']:.1f} GFLOP/s", ""]
    lines += ["| phase | CPU s | arithmetic, GFLOP | of it attention | rate, GFLOP/s | of large | of its own |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for phase, each in found["phases"].items():
        lines.append(
            f"| {phase} | {each['cpu_seconds']:.2f} | {each['gflop']:.1f} | {each['attention_gflop']:.1f} "
            f"| {each['gflop_per_second']:.1f} | {each['of_large']:.0%} | {each['of_its_own']:.0%} |"
        )
    kinds = [*KINDS, ELEMENTWISE, PYTHON]
    lines += ["", f"| phase | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for phase, each in found["phases"].items():
        if each["kinds"]:
            shares = [f"{each['kinds'].get(kind, 0):.0%}" for kind in kinds]
            lines.append(f"| {phase} | {' | '.join(shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
