"""`benchmarks.serving`: `alignment serve` against `transformers serve`, on the model of Qwen3-0.6B's shape."""

import importlib.util

from benchmarks import serving
from benchmarks.gpu.models import small
from benchmarks.gpu.step import Findings, Place, run_step

IN_FLIGHT, TOKENS = {"cuda": [1, 16, 64], "cpu": [1, 4]}, {"cuda": 64, "cpu": 8}
NEEDED = ("starlette", "uvicorn", "fastapi")


def main(place: Place, found: Findings, variant: str) -> None:
    """Run it and keep the rows of its table."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        found.skip(f"{', '.join(missing)} not installed")
        return
    rounds = 2 if place.on_gpu else 1
    model, device = str(small(place)), place.device
    for row in serving.compare(model, IN_FLIGHT[device], device=device, rounds=rounds, tokens=TOKENS[device]):
        numbers = {"tokens a second": row.speed, "p50, s": row.half, "p99, s": row.slow}
        found.numbers(**{f"{row.server}, {row.in_flight} in flight": numbers})


if __name__ == "__main__":
    run_step(main)
