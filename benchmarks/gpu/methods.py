"""SFT for a few steps with every tuning method, and with optimizers that need a GPU, on a tiny model."""

import math
import traceback
from typing import Any

import yaml

from alignment.config.methods import TUNING_METHODS
from alignment.errors import AlignmentError
from alignment.run.files import read_jsonl
from benchmarks.gpu.data import Lengths, write_rows
from benchmarks.gpu.models import SMALL, let_go, make_small
from benchmarks.gpu.step import Findings, Place, run_step
from benchmarks.tuning import METHODS

SHAPE = {
    **SMALL["cpu"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "head_dim": 64,
    "num_key_value_heads": 4,
}  # what every default divides
LENGTHS, ROWS, STEPS = Lengths(48, 16), 4, 3
OPTIMIZERS = {"cuda": ("adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "adamw_torch_fused"), "cpu": ()}

QUANTISED = {4: ("lora", "dora", "freeze"), 8: ("lora", "ia3")}


def main(place: Place, found: Findings, variant: str) -> None:
    """Run each; one that raises has no finite loss, and its traceback is in the log."""
    import recipes.sft

    make_small(place.own / "model", SHAPE, place.device)
    write_rows(place.own / "data", LENGTHS, ROWS * STEPS)
    runs: dict[str, dict[str, Any]] = {name: {"peft_method": name} for name in TUNING_METHODS}
    runs |= {f"full, {name}": {"peft_method": "full", "optim": name} for name in OPTIMIZERS[place.device]}
    for bits in (4, 8):
        for name in QUANTISED[bits]:
            runs[f"{name}, {bits} bits"] = {"peft_method": name, f"load_in_{bits}bit": True}
    for name, keys in runs.items():
        recipe = recipe_of(place, name, keys)
        finite = 0.0
        try:
            recipes.sft.main(["--config", recipe])
            logged = [row["loss"] for row in read_jsonl(place.own / name / "metrics.jsonl") if "loss" in row]
            finite = sum(map(math.isfinite, logged)) / STEPS
        except (Exception, SystemExit) as fault:  # the others still run
            traceback.print_exc()
            kind = "refused" if isinstance(fault, AlignmentError) else type(fault).__name__
            found.numbers(**{name: {"fault": f"{kind}: {str(fault)[:200]}"}})
        found.check(f"{name}: steps whose loss is finite, of all", finite, least=1)
        let_go()


def recipe_of(place: Place, name: str, keys: dict[str, Any]) -> str:
    """Write the recipe of one run; returns its path."""
    recipe = {
        "stage": "sft",
        "output_dir": str(place.own / name),
        "model_name_or_path": str(place.own / "model"),
        "datasets": [{"path": str(place.own / "data" / "demonstrations.jsonl")}],
        "per_device_train_batch_size": ROWS,
        "max_steps": STEPS,
        "max_length": LENGTHS.prompt + LENGTHS.answer,
        "dtype": "float32" if keys.get("optim") else "auto",
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        **keys,
    }
    given = {**METHODS, "adalora": {"tinit": 1, "tfinal": 1}}.get(keys["peft_method"])
    if given:
        recipe["peft_config"] = given
    if "lora_r" in TUNING_METHODS[keys["peft_method"]].keys:
        recipe["lora_r"] = 4
    file = place.own / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return str(file)


if __name__ == "__main__":
    run_step(main)
