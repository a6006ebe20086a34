"""The fused LoRA layers against PEFT's own, stage by stage: processor time of a step, and peak memory.

    python -m benchmarks.fused_lora --models natural
    python -m benchmarks.fused_lora --models equal --precisions float32 bf16 autocast

Each stage runs as a recipe, once for each figure, in a process of its own. Models are those of `workload.py`: `equal`,
a random Llama of 15M parameters with a vocabulary of 32,000 tokens, and `natural`, stories260K. A step has 8 rows of
about 128 tokens, of `equal` 2 (DPO: half as many pairs; PPO and GRPO: answers of 64 tokens). LoRA has rank 16 on all
linear layers.

- float32: weights and products in float32.
- bf16: the base in bfloat16, the adapter in float32.
- autocast: weights in float32, products in bfloat16.
- nf4: the base in 4 bits, products in float32. `equal` is 288 wide, which is refused in 4 bits on CPUs with AVX-512:
  bitsandbytes dequantises it to wrong weights there.

Seconds are processor time of the fastest of 8 steps, of `equal` 3, without sampling, on one thread; fused steps and
PEFT's take turns in one run, so that other work slows both. Memory is the peak of a run of two steps above that before
the model loads, in MiB, of everything: logits of 32,000 tokens are most of it for `equal`.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

from alignment.json_lines import read_ours
from benchmarks.comparison import WORK, conditions, make_model
from benchmarks.tuning import memory, run_recipe
from benchmarks.workload import model_folder, prompts_file

MODELS = {"equal": (2, 3), "natural": (8, 8)}  # rows of a step; steps
STAGES = ("sft", "reward", "dpo", "ppo", "grpo")
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "autocast": {"dtype": "float32", "bf16": True},
    "nf4": {"dtype": "float32", "load_in_4bit": True},
}
PROMPT, ANSWER = 64, 64  # tokens


def main() -> None:
    """Measure, and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=[*MODELS])
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--precisions", nargs="+", default=[*PRECISIONS], choices=[*PRECISIONS])
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the model that `equal` makes")
    given = parser.parse_args()
    fork = multiprocessing.get_context("forkserver")  # the libraries load once, and each run has its own memory
    fork.set_forkserver_preload([f"recipes.{stage}" for stage in STAGES])
    runs = []
    print("| model | stage | precision | seconds a step | PEFT's | ratio | peak MiB | PEFT's | ratio |")
    print("|---" * 9 + "|")
    with tempfile.TemporaryDirectory() as folder, fork.Pool(1, maxtasksperchild=1) as pool:
        for model in given.models:
            make_model(model, given.work)
            path = model_folder(model, given.work)
            own_folder = Path(folder, model)
            own_folder.mkdir()
            write_rows(model, own_folder)
            rows, steps = MODELS[model]
            job = {"model": str(path), "folder": str(own_folder), "rows": rows, "steps": steps}
            if {"ppo", "grpo"} & {*given.stages}:
                pool.apply(make_reward_model, ({**job, "stage": "reward", "precision": "float32"},))
            for stage in given.stages:
                for precision in given.precisions:
                    own = {**job, "stage": stage, "precision": precision}
                    fused, peft = pool.apply(seconds_of, (own,))
                    peaks = [pool.apply(peak_of, (own, kept)) for kept in (True, False)]
                    runs.append({
                        "model": model, "stage": stage, "precision": precision,
                        "fused": {"seconds": fused, "mib": peaks[0]}, "peft": {"seconds": peft, "mib": peaks[1]},
                    })  # fmt: skip
                    print(line(runs[-1]), flush=True)
    print(json.dumps({"runs": runs, **conditions(1, "cpu")}))


def line(run: dict[str, Any]) -> str:
    """Return a row of the table."""
    ours, theirs = run["fused"], run["peft"]
    seconds, peak = (ours[key] / theirs[key] for key in ("seconds", "mib"))
    return (
        f"| `{run['model']}` | {run['stage']} | {run['precision']} | {ours['seconds']:.3f} | {theirs['seconds']:.3f} | "
        f"**{seconds:.2f}** | {ours['mib']:.0f} | {theirs['mib']:.0f} | **{peak:.2f}** |"
    )


def seconds_of(job: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds of a fused step and of PEFT's."""
    from transformers import TrainerCallback

    from alignment.policy.lora import FUSED

    class InTurn(TrainerCallback):
        def on_step_begin(self, _args: Any, state: Any, _control: Any, *, model: Any, **_: Any) -> None:
            classes = FUSED if state.global_step % 2 == 0 else {ours: theirs for theirs, ours in FUSED.items()}
            for module in model.modules():
                module.__class__ = classes.get(type(module), type(module))

    seconds = _run(job, 2 * job["steps"] + 2, InTurn())["seconds"][2:]  # the first of each warm up
    return min(seconds[0::2]), min(seconds[1::2])


def peak_of(job: dict[str, Any], fused: bool) -> float:
    """Return the peak memory of a run."""
    from alignment.policy.lora import FUSED

    if not fused:
        FUSED.clear()
    before = memory("VmRSS")
    _run(job, 2)
    return (memory("VmHWM") - before) / 1024


def make_reward_model(job: dict[str, Any]) -> None:
    """Train the reward model of PPO and GRPO for a step."""
    run_recipe(recipe_of(job, 1, Path(job["folder"], "reward_model")))


def _run(job: dict[str, Any], steps: int, *callbacks: Any) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        return run_recipe(recipe_of(job, steps, Path(folder, job["stage"])), *callbacks)


def recipe_of(job: dict[str, Any], steps: int, out: Path) -> dict[str, Any]:
    """Return a stage's recipe."""
    stage, rows = job["stage"], job["rows"]
    recipe: dict[str, Any] = {
        "stage": stage, "model_name_or_path": job["model"], "output_dir": str(out),
        "datasets": [{"path": f"{job['folder']}/{'sft' if stage == 'sft' else 'pairs'}.jsonl"}],
        "peft_method": "lora", "lora_r": 16, "lora_alpha": 32, "learning_rate": 1e-4,
        "per_device_train_batch_size": rows, "save_strategy": "no", "use_cpu": True, **PRECISIONS[job["precision"]],
    }  # fmt: skip
    if "stories" in job["model"]:
        recipe["eos_token"] = "<s>"
    if stage in ("ppo", "grpo"):
        recipe |= {
            "reward_model_path": f"{job['folder']}/reward_model", "rollout_batch_size": rows,
            "rollout_eval_batch_size": rows, "total_episodes": rows * steps, "max_new_tokens": ANSWER,
            "num_sample_generations": 0, "num_mini_batches": 1,
            "num_ppo_epochs" if stage == "ppo" else "num_iterations": 1,
        }  # fmt: skip
        return recipe | ({"num_generations": min(rows, 8)} if stage == "grpo" else {})
    rows //= 1 if stage == "sft" else 2
    return recipe | {"max_steps": steps, "max_length": 2 * (PROMPT + ANSWER), "per_device_train_batch_size": rows}


def write_rows(model: str, folder: Path) -> None:
    """Write demonstrations and pairs: random words of the vocabulary, or sentences of stories."""
    dice = random.Random(0)
    stories = prompts_file(model)
    words = [word for row in read_ours(stories)[:2000] for word in row["text"].split()] if stories else []
    sft, pairs = [], []
    for _ in range(64):
        parts = [_words(dice, words, count) for count in (PROMPT, ANSWER, ANSWER)]
        prompt, chosen, rejected = parts[0], f" {parts[1]}", f" {parts[2]}"
        sft.append({"prompt": prompt, "completion": chosen})
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    for name, rows in (("sft", sft), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _words(dice: random.Random, words: list[str], tokens: int) -> str:
    """Return a text of about so many tokens; a word of a story has two."""
    if not words:
        return " ".join(f"w{dice.randrange(3_000, 10_000)}" for _ in range(tokens))  # `w2` ends an answer
    start = dice.randrange(len(words) - tokens)
    return " ".join(words[start : start + tokens // 2])


if __name__ == "__main__":
    main()
