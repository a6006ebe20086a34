"""Tries a tuning method in a column of docs/tuning.md's table, each cell a small real run, and says what came of it.

A cell's outcome is `works`, with what vLLM is handed behind a colon; `refused: REASON` with the project's own message;
or `untried: REASON` where it needs hardware. Any other error is a fault, and ends the trial.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignment.config import load_recipe
from alignment.config.methods import TUNING_METHODS
from alignment.config.rules.combinations import broken_under, values_of
from alignment.errors import AlignmentError
from alignment.policy.merge import merge
from alignment.train.policy_gradient import engines
from tests.distributed.stage import Stage
from tests.tuning.runs import STORIES, Run, apart, logits, recipe_file, reloaded, run_stage

LN_2 = math.log(2)
# Differences of logits that may remain; 0 for the others. AdaLoRA is saved as plain LoRA.
RELOADED = {"adalora": 1e-3}
NOT_EXACT = {"full": 1e-6, "child_tuning": 1e-6, "deft": 1e-5, "hra": 1e-5, "osf": 1e-5}  # PPO's first KL, by rounding
MERGED, TWO_PROCESSES = 1e-3, 1e-4
STARTS_ANEW = ("adalora",)  # what SFT saves is LoRA, which the next stage continues with `peft_method: lora`


class Method:
    """A method's runs, each made once, when a cell first needs it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.runs: dict[str, Run] = {}

    def stage(self, stage: str, variant: str = "", **keys: Any) -> Run:
        """Run a stage as a pipeline does: DPO, PPO and GRPO start from SFT, with the reward model."""
        name = f"{stage}{variant}"
        if name not in self.runs:
            model, more = STORIES, dict(keys)
            if stage in ("dpo", "ppo", "grpo") and self.name not in STARTS_ANEW:
                model = self.stage("sft", variant, **keys).folder
            if stage in ("ppo", "grpo"):
                more["reward_model_path"] = str(self.stage("reward", variant, **keys).folder)
            self.runs[name] = run_stage(self.folder, stage, self.name, name=name, model=model, **more)
        return self.runs[name]


def try_cell(method: Method, column: str) -> str:
    """Return the outcome of a cell."""
    try:
        return TRIALS[column](method)
    except AlignmentError as error:
        return f"refused: {_reason(error, method.name)}"


def _reason(error: AlignmentError, name: str) -> str:
    """Return the first message without the folders of this trial and without the method's name."""
    line = re.sub(r"^\S+\.yaml(:\d+)?: ", "", str(error).splitlines()[0])
    line = re.sub(r"/\S*/", "", line)
    line = line.replace(f"adapter of {TUNING_METHODS[name].title},", "adapter of this method,")
    return re.sub(rf"peft_method {name}\b", "this peft_method", line)


def _stage(stage: str) -> Callable[[Method], str]:
    return lambda method: _sound(method, method.stage(stage), stage)


def _sound(method: Method, run: Run, stage: str, **held: Any) -> str:
    """Require that a run trained its weights and no others, and that what it saved is what it trained."""
    losses = run.metrics("loss")
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    assert run.changed, "nothing trained"
    assert run.changed <= set(run.trained), sorted(run.changed - set(run.trained))[:3]
    assert len(run.changed) > 0.4 * len(run.trained), f"{len(run.changed)} of {len(run.trained)} weights trained"
    if stage == "dpo":
        assert abs(losses[0] - LN_2) < 1e-5, losses
    if stage == "ppo":
        first = run.metrics("kl")[0]
        assert abs(first) <= NOT_EXACT.get(method.name, 0.0), f"PPO's first KL is {first:.2g}"
    assert run.logits is not None
    difference = apart(run.logits, reloaded(run, stage, **held))
    assert difference <= RELOADED.get(method.name, 0.0), f"{stage} reloads with a difference of {difference:.2g}"
    return "works"


def in_bits(bits: int) -> Callable[[Method], str]:
    """Every stage, on a base in 4 or 8 bits."""
    held = {f"load_in_{bits}bit": True}

    def trial(method: Method) -> str:
        for stage in ("sft", "reward", "dpo", "ppo"):
            _sound(method, method.stage(stage, f"-{bits}bit", **held), stage, **held)
        return "works"

    return trial


def merging(method: Method) -> str:
    """`alignment merge` of the policy and of the reward model."""
    if not TUNING_METHODS[method.name].has_adapter:
        return "works: a whole model, nothing to merge"
    for stage in ("sft", "reward"):
        run = method.stage(stage)
        merge(run.folder, run.folder.with_name(f"{stage}-merged"), MERGED)
    return "works"


def checkpointing(method: Method) -> str:
    """The same weights with gradient checkpointing as without, in every stage but GRPO."""
    for stage in ("sft", "reward", "dpo", "ppo"):
        plain, again = method.stage(stage), method.stage(stage, "-checkpointing", gradient_checkpointing=True)
        assert plain.logits is not None
        assert again.logits is not None
        difference = apart(plain.logits, again.logits)
        assert difference == 0, f"{stage} with gradient checkpointing differs by {difference:.2g}"
    return "works"


def two_processes(method: Method) -> str:
    """A step of SFT on two processes, as on one with the same batch."""
    keys = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1}
    one = method.stage("sft", "-one-process", **keys)
    file = recipe_file(
        method.folder, "sft", method.name, "sft-two-processes", STORIES, {**keys, "per_device_train_batch_size": 2}
    )
    log = method.folder / "two-processes"
    stage = Stage(["--config", str(file)], log, processes=2, stage="sft", WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    assert stage.ends_within(120)
    two = Run(method.folder / "sft-two-processes")
    assert one.logits is not None
    difference = apart(one.logits, reloaded(two, "sft"))
    moved = apart(one.logits, logits(AutoModelForCausalLM.from_pretrained(STORIES)))
    assert difference <= max(RELOADED.get(method.name, 0.0), min(TWO_PROCESSES, 0.1 * moved)), (difference, moved)
    return "works"


def shards(method: Method) -> str:
    """Whether ZeRO-3 and FSDP2 are refused; what is not refused needs GPUs."""
    recipe = _recipe(method, "sft", "sft-shards", use_cpu=False)
    for strategy in ("zero3", "fsdp2"):
        for broken in broken_under("sft", values_of(recipe), strategy, gpu=True):
            return f"refused: {broken.reason}; {broken.remedy}"
    return "untried: needs GPUs"


def _recipe(method: Method, stage: str, name: str, **keys: Any) -> Any:
    file = recipe_file(method.folder, stage, method.name, name, STORIES, keys)
    return load_recipe(stage, ["--config", str(file)])


def vllm(method: Method) -> str:
    """What PPO hands to vLLM equals the policy; vLLM itself needs a GPU, and a stand-in takes what it would get."""
    keys = {"reward_model_path": "unused", "rollout_engine": "vllm", "use_cpu": False}
    _recipe(method, "ppo", "ppo-vllm", **keys)  # which may be refused
    run = method.stage("ppo")
    roles, handed = run.trainer.roles, {}

    def stand_in(weights: Any, alone: Any, **settings: Any) -> Any:
        handed.update(weights=weights, alone=alone)

    recipe = run.trainer.recipe.model_copy(update={"rollout_engine": "vllm"})
    found, ready = engines.vllm_generation, engines.vllm_is_installed
    engines.vllm_generation, engines.vllm_is_installed = stand_in, lambda: True  # type: ignore[assignment]
    try:
        engines.build_engine(recipe, roles, run.trainer.template, ["Once"], Accelerator(cpu=True))
    finally:
        engines.vllm_generation, engines.vllm_is_installed = found, ready
    plain: Any = AutoModelForCausalLM.from_pretrained(STORIES)
    if handed["alone"] is not None:
        plain = PeftModel.from_pretrained(plain, handed["alone"].next_version()[2])
    else:
        _put(plain, dict(handed["weights"]()))
    assert run.logits is not None
    assert apart(logits(plain), run.logits) < MERGED
    return f"works: {'the adapter' if handed['alone'] is not None else 'merged weights'}"


@torch.no_grad()
def _put(model: Any, weights: dict[str, Tensor]) -> None:
    own = dict(model.named_parameters())
    assert set(weights) == set(own)
    for name, tensor in weights.items():
        own[name].copy_(tensor)


TRIALS: dict[str, Callable[[Method], str]] = {
    "sft": _stage("sft"),
    "reward": _stage("reward"),
    "dpo": _stage("dpo"),
    "ppo": _stage("ppo"),
    "grpo": _stage("grpo"),
    "4-bit": in_bits(4),
    "8-bit": in_bits(8),
    "merge": merging,
    "checkpointing": checkpointing,
    "two processes": two_processes,
    "shards": shards,
    "vLLM": vllm,
}
