"""The same batch on a CPU in float32 and on the device in float32, in bf16 and over NF4: how far apart the numbers are.

What is compared: log-probabilities, entropy and values of each answer token, a policy loss and a value loss made of
them, and the gradients of all LoRA weights. NF4 is compared with the CPU's own NF4 in float32, as quantisation itself
changes the model. The adapters are random ones that change the model's function. Differences are norms over norms.
Rounding alone moves some numbers in bf16 by more than the limit: a number may be 1.5 times as far off as the CPU's own
bf16.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.policy.load_roles import load_roles
from alignment.policy.reward_models import RewardModel, name_roles
from benchmarks.gpu.models import SMALL, let_go, save_tokenizer, small
from benchmarks.gpu.step import Findings, Place, run_step

ROWS, TIME, ANSWER = {"cuda": 2, "cpu": 2}, {"cuda": 96, "cpu": 24}, {"cuda": 32, "cpu": 8}
LIMITS = {"float32": 1e-4, "bf16": 2e-2, "nf4": 2e-2}  # of a difference's norm to the number's own
ROUNDING = 1.5  # most that the device's bf16 may be off, in those of the CPU's bf16
REFERENCE = {"float32": "float32", "bf16": "float32", "nf4": "nf4"}


def main(place: Place, found: Findings, variant: str) -> None:
    """Measure here and on the CPU, and compare; in the CPU's process, with a variant, measure there alone."""
    torch.set_float32_matmul_precision("highest")  # no TF32
    torch.backends.cudnn.allow_tf32 = False
    if variant:
        for kind in ("float32", "nf4"):
            for in_bf16 in (False, True):
                torch.save(measure(place, kind, "cpu", in_bf16=in_bf16), cpu_file(place, kind, in_bf16=in_bf16))
        return
    make_adapters(place)
    measure_on_cpu(place)
    for kind, limit in LIMITS.items():
        in_bf16 = kind != "float32"
        expected = torch.load(cpu_file(place, REFERENCE[kind], in_bf16=False), weights_only=True)
        rounded = torch.load(cpu_file(place, REFERENCE[kind], in_bf16=in_bf16), weights_only=True)
        ours = measure(place, kind, place.device, in_bf16=in_bf16)
        for name in expected:
            most = max(limit, ROUNDING * off(rounded[name], expected[name]))
            found.check(f"{kind}: {name}", off(ours[name], expected[name]), most=most)
        let_go()


def off(ours: Tensor, expected: Tensor) -> float:
    """Return the difference's norm, over that of what is expected."""
    return float((ours - expected).norm() / expected.norm())


def cpu_file(place: Place, kind: str, *, in_bf16: bool) -> Path:
    """Return the path of what the CPU computed."""
    return place.own / f"cpu-{kind}{'-bf16' if in_bf16 else ''}.pt"


def measure_on_cpu(place: Place) -> None:
    """Measure in a process that sees no GPU, as the project puts a model on one if there is one."""
    options = ["--name", place.own.name, "--device", place.device, "--work", str(place.own.parent), "--variant", "cpu"]
    command = [sys.executable, "-m", "benchmarks.gpu.agreement", *options, "--found", str(place.own / "cpu.json")]
    subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True)


def make_adapters(place: Place) -> None:
    """A policy's and a reward model's adapter on the small base, with random weights in both of their matrices."""
    kinds: dict[str, Any] = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_CLS": AutoModelForSequenceClassification}
    for seed, (task, cls) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        head = {"num_labels": 1} if task == "SEQ_CLS" else {}
        base = cls.from_pretrained(small(place), dtype=torch.float32, **head)
        lora = LoraConfig(task_type=task, r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(base, lora)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(0.05)  # a twentieth of the base's own weights' effect
        model.save_pretrained(place.own / task)
        save_tokenizer(place.own / task, SMALL[place.device]["vocab_size"])


def measure(place: Place, kind: str, device: str, *, in_bf16: bool) -> dict[str, Tensor]:
    """One batch through policy and value, and back."""
    recipe = PPORecipe(
        stage="ppo",
        output_dir=str(place.own),
        datasets=[DatasetEntry(path="unused")],
        model_name_or_path=str(place.own / "CAUSAL_LM"),
        reward_model_path=str(place.own / "SEQ_CLS"),
        total_episodes=64,
        dtype="bfloat16" if in_bf16 else "float32",
        load_in_4bit=kind == "nf4",
        lora_r=16,
        lora_alpha=32,
    )
    roles = (
        load_roles(recipe, rewards=name_roles([RewardModel.resolve(str(place.own / "SEQ_CLS"))])).to(device).train()
    )  # nothing is dropped, and no kernel without a backward pass is taken
    batch = {name: tensor.to(device) for name, tensor in make_batch(place).items()}
    with torch.autocast(device, torch.bfloat16, enabled=in_bf16):
        logp, entropy, values = roles(batch["input_ids"], batch["answer_mask"], temperature=1.0, with_entropy=True)
    policy_loss = -(batch["advantages"] * logp.float()).mean()
    value_loss = (values.float() - batch["returns"]).square().mean()
    (policy_loss + value_loss).backward()
    gradients = [p.grad.flatten().float().cpu() for _, p in sorted(roles.named_parameters()) if p.grad is not None]
    found = {"log-probabilities": logp, "entropy": entropy, "values": values}
    found |= {"policy loss": policy_loss, "value loss": value_loss}
    return {name: part.detach().float().cpu() for name, part in found.items()} | {
        "LoRA gradients": torch.cat(gradients)
    }


def make_batch(place: Place) -> dict[str, Tensor]:
    """Random tokens; each row ends with an answer."""
    rows, time, answer = ROWS[place.device], TIME[place.device], ANSWER[place.device]
    source = torch.Generator().manual_seed(0)
    input_ids = torch.randint(4, SMALL[place.device]["vocab_size"], (rows, time), generator=source)
    answer_mask = (torch.arange(time) >= time - answer).expand(rows, time).clone()
    advantages, returns = torch.randn(2, rows * answer, generator=source)
    return {"input_ids": input_ids, "answer_mask": answer_mask, "advantages": advantages, "returns": returns}


if __name__ == "__main__":
    run_step(main)
