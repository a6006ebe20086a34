"""What a process of `stages_vs_trl` measures: the time and the work of each optimizer step, and the peak of memory."""

import argparse
import itertools
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer


def stage_arguments(description: str | None) -> argparse.Namespace:
    """Read what a process of either system is given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--work", required=True)
    return parser.parse_args()


class StepClock:
    """Notes the time at the start of each batch's training step, and what the batch holds.

    A step lasts until the next one starts, so the optimizer, the logs and the next batch's collation are part of it.
    The first step is a warm-up, and the last one has no end; both are left out.
    """

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []
        self.tokens: list[int] = []
        self.pairs: list[int] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch every trainer of this process."""
        original = Trainer.training_step

        def noted(trainer: Any, model: Any, inputs: dict[str, Any], *others: Any, **options: Any) -> Any:
            self.note(inputs)
            return original(trainer, model, inputs, *others, **options)

        Trainer.training_step = noted
        try:
            yield
        finally:
            Trainer.training_step = original

    def note(self, inputs: dict[str, Any]) -> None:
        """Note a batch of either system."""
        self.times.append((time.perf_counter(), time.process_time()))
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        self.tokens.append(ids.numel() if mask is None else int(mask.sum()))
        self.pairs.append(len(inputs["first"]) if "first" in inputs else len(ids) // 2)

    def print_figures(self, system: str, work: str) -> None:
        """Print one JSON object; work: `tokens` without padding, or `pairs`."""
        noted = getattr(self, work)
        steps = [
            [later - earlier for earlier, later in zip(*both, strict=True)] for both in itertools.pairwise(self.times)
        ]
        seconds, cpu = (sum(times) for times in zip(*steps[1:], strict=True))
        done = sum(noted[1:-1])
        found = {
            "system": system,
            "step_seconds": [step[0] for step in steps],
            "step_cpu_seconds": [step[1] for step in steps],
            work: noted,
            f"{work}_per_second": done / seconds,
            f"{work}_per_cpu_second": done / cpu,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(found))
