"""Time GRPO updates of TRL's GRPOTrainer on a workload; the last line printed is one JSON object.

Everything is TRL's, but for the prompts, which are given as token ids, and the stop token, which is the workload's.
Started by `grpo_vs_trl.py`, once per repetition.
"""

import argparse
import itertools
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.workload import WORKLOADS, Workload, prompt_ids, reward


class Clock(TrainerCallback):
    """Notes wall and processor time at the end of every update."""

    def __init__(self, steps_per_update: int) -> None:
        self.steps_per_update = steps_per_update
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def read(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps_per_update == 0:
            self.read()


class OnIds(GRPOTrainer):
    """Answers `ids[number]` for the prompt "number"; `seconds` and `tokens` are those of each generation."""

    ids: list[list[int]]

    def __init__(self, *args: Any, ids: list[list[int]], stop: int | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ids, self.seconds, self.tokens = ids, [], []
        self.eos_token_ids = [-1] if stop is None else [stop]
        self.generation_config.eos_token_id = None if stop is None else [stop]
        self.generation_kwargs["eos_token_id"] = self.generation_config.eos_token_id

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        return [self.ids[int(prompt)] for prompt in prompts], None, {}

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        found = super()._generate_single_turn(*args, **options)
        self.seconds.append(time.perf_counter() - start)
        self.tokens.append(sum(map(len, found[0])))
        return found


def checksum(completions: list[str], **_: Any) -> list[float]:
    """The workload's reward in TRL's signature."""
    return [reward(completion) for completion in completions]


def make_trainer(args: argparse.Namespace, workload: Workload, out: str) -> tuple[OnIds, Clock]:
    """TRL's trainer with the workload's numbers."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    steps = args.epochs * args.mini_batches
    config = GRPOConfig(
        output_dir=out,
        per_device_train_batch_size=workload.batch // args.mini_batches,
        gradient_accumulation_steps=1,
        steps_per_generation=args.mini_batches,
        num_iterations=args.epochs,
        num_generations=workload.num_generations,
        max_completion_length=workload.response_len,
        max_steps=steps * args.updates,
        beta=args.beta,
        learning_rate=3e-6,
        gradient_checkpointing=args.gradient_checkpointing,
        shuffle_dataset=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=steps,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model)
    count = workload.batch * (args.updates + 1)
    ids = prompt_ids(tokenizer, workload, args.prompts, count, model.config.vocab_size)
    clock = Clock(steps)
    trainer = OnIds(
        model=model,
        reward_funcs=checksum,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": list(map(str, range(count)))}),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
        ids=ids,
        stop=workload.stop_token_id,
    )
    return trainer, clock


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--mini_batches", type=int, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        trainer, clock = make_trainer(args, WORKLOADS[args.workload], out)
        clock.read()
        trainer.train()
    seconds, cpu = ([b - a for a, b in itertools.pairwise(times)] for times in (clock.wall, clock.cpu))
    found = {
        "system": "trl",
        "update_seconds": seconds,
        "update_cpu_seconds": cpu,
        "response_tokens": trainer.tokens,
        "seconds_sample": trainer.seconds,
        "response_tokens_per_second": statistics.median(trainer.tokens[1:]) / statistics.median(seconds[1:]),
        "response_tokens_per_cpu_second": statistics.median(trainer.tokens[1:]) / statistics.median(cpu[1:]),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if torch.cuda.is_available():
        found["peak_cuda_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(found))


if __name__ == "__main__":
    main()
