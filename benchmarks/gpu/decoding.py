"""A step of sampling: milliseconds, kernels and waits for the device, at several batch sizes.

Variant `roles`:

    nf4         four roles on an NF4 base, the policy a LoRA adapter, as PPO samples
    nf4-static  the same with fixed shapes and CUDA graphs
    merged      the same roles, sampled from a merged bf16 copy with fixed shapes and CUDA graphs

Variant `plain`:

    bf16        the same shape in bf16 without an adapter, as after a merge
    bf16-static the same with fixed shapes and CUDA graphs
    continuous  as bf16 with transformers' continuous batching

A step's time is the difference of two runs' lengths, so that the prompt's pass falls out. Nothing stops an answer.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.policy.load_roles import load_roles
from alignment.policy.merged import bfloat16_copy, policy_weights
from alignment.rollout.continuous_batching import ContinuousBatchingEngine
from alignment.rollout.engine import Engine, Sampling
from alignment.rollout.merged_engine import MergedEngine
from alignment.rollout.static_batch import static_decoder
from alignment.rollout.transformers_engine import TransformersEngine
from benchmarks.gpu.models import LARGE, large, let_go
from benchmarks.gpu.step import Findings, Place, run_step
from benchmarks.shapes import SHAPES

BATCHES = {"cuda": (1, 16, 64, 128), "cpu": (1, 4)}
PROMPT, SHORT, LONG = {"cuda": 64, "cpu": 8}, {"cuda": 8, "cpu": 4}, {"cuda": 24, "cpu": 12}  # tokens
SLOW, FEW = ("nf4", "bf16"), {"cuda": (1, 64), "cpu": (1,)}  # without graphs the host takes as long for each batch
COUNTED = (2, 4)  # tokens of the runs whose kernels are counted: a profiler takes long over many
WAITS_A_STEP = 1 / 16  # of the device, where nothing is padded and nothing stops


KINDS = {"roles": ("nf4", "nf4-static", "merged"), "plain": ("bf16", "bf16-static", "continuous")}


def main(place: Place, found: Findings, variant: str) -> None:
    """Measure each kind at each batch size."""
    roles = four_roles(place) if variant == "roles" else None
    model = plain(place) if roles is None else roles.policy_lm
    for kind in KINDS[variant]:
        of_kind(place, found, kind, model, roles)
        let_go()
    for name, row in found.content["numbers"].items():
        if "waits a step" in row:
            found.check(f"{name}: waits for the device a step", row["waits a step"], most=WAITS_A_STEP)


def of_kind(place: Place, found: Findings, kind: str, model: Any, roles: Any) -> None:
    """Measure one kind at each batch size."""
    cast = torch.autocast("cuda", torch.bfloat16) if place.on_gpu and roles is not None else nullcontext()
    copy = bfloat16_copy(roles) if kind == "merged" else None
    for batch in BATCHES[place.device] if kind not in SLOW else FEW[place.device]:
        engine: Engine
        if kind == "continuous":
            engine = ContinuousBatchingEngine(model, 0, batch)
        elif copy is not None:
            sampler_of = TransformersEngine(
                copy, 0, batch, decoder=static_decoder(copy), keeps_memory=True, with_logp=True
            )
            engine = MergedEngine(sampler_of, partial(policy_weights, roles))
        else:
            decoder = static_decoder(model) if kind.endswith("static") else None
            engine = TransformersEngine(model, 0, batch, decoder=decoder, keeps_memory=decoder is not None)
        sample = sampler(engine, place, batch, SHAPES[LARGE[place.device]]["vocab_size"])
        with cast:
            row = of_batch(place, batch, sample, counted=kind != "continuous")
        found.numbers(**{f"{kind}, batch {batch}": row})


def of_batch(place: Place, batch: int, sample: Callable[[int], None], *, counted: bool) -> dict[str, float]:
    """One batch size; kernels and waits are `counted` where one process of Python gives them to the device."""
    if place.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    sample(LONG[place.device])  # first kernels, memory and graphs
    ms = 1000 * a_step(place, lambda steps: timed(place, lambda: sample(steps)))
    row = {"ms a step": ms, "tokens a second": 1000 * batch / ms}
    if place.on_gpu and counted:
        few, more = (kernels(partial(sample, steps)) for steps in COUNTED)
        row["kernels a step"] = (more - few) / (COUNTED[1] - COUNTED[0])
        row["waits a step"] = a_step(place, lambda steps: waits_for_device(lambda: sample(steps)))
    if place.on_gpu:
        row["GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def four_roles(place: Place) -> Any:
    """PPO's roles on the NF4 base."""
    recipe = PPORecipe(
        stage="ppo",
        output_dir=str(place.own),
        datasets=[DatasetEntry(path="unused")],
        model_name_or_path=str(large(place)),
        reward_model_path="unused",
        total_episodes=64,
        dtype="bfloat16" if place.on_gpu else "float32",
        load_in_4bit=True,
    )
    roles = load_roles(recipe)
    return roles.to(place.device).eval()


def plain(place: Place) -> Any:
    """A model of the same shape, made where it computes."""
    shape = SHAPES[LARGE[place.device]]
    dtype = torch.bfloat16 if place.on_gpu else torch.float32
    torch.manual_seed(0)
    with torch.device(place.device):
        model = LlamaForCausalLM._from_config(LlamaConfig(**shape, max_position_embeddings=4096), dtype=dtype)
    return model.eval()


def sampler(engine: Engine, place: Place, batch: int, vocabulary: int) -> Callable[[int], None]:
    """Return what samples a number of tokens for each of `batch` prompts of one length."""
    source = torch.Generator().manual_seed(0)
    prompts = torch.randint(4, vocabulary, (batch, PROMPT[place.device]), generator=source).tolist()

    def sample(steps: int) -> None:
        answers = engine.generate(prompts, Sampling(steps))
        assert all(len(answer.ids) == steps for answer in answers)

    return sample


def a_step(place: Place, measure: Callable[[int], float]) -> float:
    """Return the measure of one step, from two runs of different lengths."""
    short, long = SHORT[place.device], LONG[place.device]
    return (measure(long) - measure(short)) / (long - short)


def timed(place: Place, do: Callable[[], None]) -> float:
    """Seconds until the device has done it."""
    if place.on_gpu:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    do()
    if place.on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def waits_for_device(do: Callable[[], None]) -> float:
    """Return how often the host waited for the device, by PyTorch's warnings."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            do()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return float(sum("synchronizing CUDA operation" in str(warning.message) for warning in said))


def kernels(do: Callable[[], None]) -> float:
    """How many kernels, copies and fills the device was given."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        do()
        torch.cuda.synchronize()
    return float(sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events()))


if __name__ == "__main__":
    run_step(main)
