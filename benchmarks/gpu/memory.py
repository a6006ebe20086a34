"""`benchmarks.ppo_memory`: two updates of PPO with four roles on an NF4 base of 7B's shape, in 24 GiB."""

import argparse

import torch
import yaml

from alignment.run.files import write_json
from benchmarks import ppo_memory
from benchmarks.gpu.models import LARGE, large
from benchmarks.gpu.stages import MEASURED
from benchmarks.gpu.step import Findings, Place, run_step

SIZES = {  # GiB, answers, tokens of a prompt, tokens of an answer, microbatch
    "cuda": (24.0, 16, 256, 128, 4),
    "cpu": (24.0, 4, 16, 4, 2),
}


def main(place: Place, found: Findings, variant: str) -> None:
    """Run it and keep its output."""
    memory, answers, prompt, answer, microbatch = SIZES[place.device]
    args = argparse.Namespace(shape=LARGE[place.device], memory=memory, device=place.device, answers=answers)
    args.prompt_tokens, args.answer_tokens, args.microbatch = prompt, answer, microbatch
    base = place.own / "base"  # where the benchmark looks for it; the tokenizer there is the benchmark's own
    base.mkdir()
    for file in large(place).iterdir():
        if "token" not in file.name and file.suffix != ".jinja":
            (base / file.name).symlink_to(file)
    if place.on_gpu:
        ppo_memory.hold_to(memory)
    said = ppo_memory.measure(args, place.own)
    found.numbers(**{key: value for key, value in said.items() if isinstance(value, float)})
    peak = said["peak_reserved_gib" if place.on_gpu else "peak_memory_gib"]
    found.check("most GiB reserved, with CUDA's own", peak + ppo_memory.CONTEXT_GIB, most=memory)
    if place.on_gpu:
        write_json(place.own / MEASURED, {"ppo": {"peak_allocated_bytes": torch.cuda.max_memory_allocated()}})
    recipe = yaml.safe_load((place.own / "ppo.yaml").read_text(encoding="utf-8"))
    (place.own / "ppo.yaml").write_text(yaml.safe_dump({**recipe, "max_prompt_length": prompt}), encoding="utf-8")


if __name__ == "__main__":
    run_step(main)
