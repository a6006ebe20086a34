"""`alignment plan` of every recipe that ran before, beside the bytes that the GPU's tensors held at most.

The CUDA context and the slack that the plan adds for the allocator are no tensors and are left out of both.
"""

import json
from pathlib import Path

from alignment.config.loading import check_recipe
from alignment.planner.machine import Machine
from alignment.planner.memory import StagePlan, plan_stage
from benchmarks.gpu.stages import MEASURED
from benchmarks.gpu.step import Findings, Place, run_step

LEAST, MOST = 0.9, 1.1  # of predicted to measured
NOT_TENSORS = ("CUDA context", "allocator's slack")


def main(place: Place, found: Findings, variant: str) -> None:
    """Plan the recipes of all steps that left one."""
    machine = Machine(gpu=place.on_gpu)
    for recipe in sorted(place.own.parent.glob("*/*.yaml")):
        step, stage = recipe.parent.name, recipe.stem
        if step.startswith("stages-") or step == "memory-7b":
            compare(found, f"{step}, {stage}", plan_stage(check_recipe(str(recipe), []), machine), measured(recipe))
    if not found.content["numbers"]:
        found.skip("no step before left a recipe")


def measured(recipe: Path) -> float | None:
    """Bytes allocated at most; None if the stage did not end, or nothing is counted: on a CPU."""
    file = recipe.parent / MEASURED
    stages = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return stages.get(recipe.stem, {}).get("peak_allocated_bytes")


def compare(found: Findings, name: str, plan: StagePlan, held: float | None) -> None:
    """Keep what was predicted, and the ratio where something was measured."""
    phases = {p.name: sum(size for part, size in p.parts.items() if part not in NOT_TENSORS) for p in plan.phases}
    phase = max(phases, key=lambda each: phases[each])
    row = {"predicted GiB": phases[phase] / 2**30, "in": phase}
    found.numbers(**{name: row if held is None else {**row, "measured GiB": held / 2**30}})
    if held is not None:
        found.check(f"{name}: predicted to measured", phases[phase] / held, least=LEAST, most=MOST)


if __name__ == "__main__":
    run_step(main)
