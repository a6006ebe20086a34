"""Rows that Accelerate adds to fill the last batch do not count in an evaluation."""

from pathlib import Path

import pytest

from alignment.manifest import read_manifest
from tests.distributed.test_stages import inputs, launch, write_recipe  # noqa: F401 # a fixture

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

KEYS = {"max_steps": 1, "learning_rate": 1e-3, "gradient_accumulation_steps": 1, "save_steps": 100}


def test_two_processes_measure_what_one_does(inputs: Path, tmp_path: Path) -> None:  # noqa: F811
    jobs, found = {}, {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        jobs[processes] = [
            write_recipe(
                inputs,
                folder / f"{stage}-{batch}{'-precomputed' if more else ''}",
                stage,
                processes=processes,
                per_device_eval_batch_size=batch,
                **KEYS,
                **more,
            )
            for stage, more in (("sft", {}), ("dpo", {}), ("dpo", {"precompute_ref_log_probs": True}))
            for batch in (2, 3)
        ]
        launch("cpu" if processes > 1 else "single", jobs[processes], folder / "work", processes=processes)
        for job in jobs[processes]:
            results = read_manifest(Path(job["out"]))["results"]
            found[processes, Path(job["out"]).name] = results["eval_loss"]
    for (processes, name), loss in found.items():
        other = found[3 - processes, name]
        assert loss == pytest.approx(other, rel=1e-6), (name, found)
