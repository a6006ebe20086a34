"""Tuning methods on one small model: what each trains, learns, costs and saves.

    python -m benchmarks.tuning                                   # every method, three seeds; a JSON line for each run
    python -m benchmarks.tuning --methods lora dora --seeds 0     # some
    python -m benchmarks.tuning --search                          # with each of three learning rates, and another seed
    python -m benchmarks.tuning --variants                        # of LoRA and of soft prompts' starts: SFT alone
    python -m benchmarks.tuning --table FILE                      # the table of docs/tuning.md, of such JSON lines

stories260K, which has read children's stories alone, learns to write sentences of film reviews (stage sft), and to
prefer a story's second sentence to the same with two words exchanged (stage reward). Both run as recipes, for `--steps`
steps of 8 rows; sentences have up to 120 characters.

- trained: weights that train in stage sft, as a share of the base's.
- held-out loss: of 128 other sentences, in nats a token.
- reward accuracy: on 128 other pairs.
- seconds: processor time of a step of SFT, the median, on one thread.
- memory: the peak during SFT above the memory before the model loads, in MiB.
- file: the weights that stage sft saves, in KiB.

Each method has the learning rate of each stage that did best in `--search`, which tries 0.002, 0.01 and 0.05 with
another seed. Methods are otherwise as their defaults are.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import random
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.json_lines import read_ours

METHODS: dict[str, dict[str, Any]] = {  # with what their defaults for large models need here
    "full": {}, "freeze": {}, "bitfit": {"new_biases": True}, "child_tuning": {}, "child_tuning_d": {}, "fishmask": {},
    "lora": {}, "dora": {}, "adalora": {"tinit": 5, "tfinal": 10}, "dylora": {}, "prompt_tuning": {},
    "prefix_tuning": {}, "p_tuning": {}, "p_tuning_v2": {}, "bottleneck": {}, "ia3": {}, "oft": {"oft_block_size": 4},
    "vera": {}, "ln_tuning": {}, "miss": {},
}  # fmt: skip
RATES = {  # of SFT and of the reward model: the best of `--search`
    "full": (0.002, 0.002), "freeze": (0.002, 0.002), "bitfit": (0.05, 0.01), "child_tuning": (0.002, 0.002),
    "child_tuning_d": (0.002, 0.002), "fishmask": (0.01, 0.002), "lora": (0.002, 0.002), "dora": (0.002, 0.002),
    "adalora": (0.05, 0.01), "dylora": (0.01, 0.002), "prompt_tuning": (0.05, 0.01), "prefix_tuning": (0.05, 0.01),
    "p_tuning": (0.01, 0.002), "p_tuning_v2": (0.05, 0.01), "bottleneck": (0.01, 0.01), "ia3": (0.05, 0.05),
    "oft": (0.01, 0.01), "vera": (0.05, 0.05), "ln_tuning": (0.05, 0.05), "miss": (0.002, 0.002),
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {  # keys of the recipe; each at the learning rate of the method
    "lora": {}, "lora, use_rslora": {"use_rslora": True}, "lora, loraplus_lr_ratio 16": {"loraplus_lr_ratio": 16},
    "lora, init pissa": {"peft_config": {"init_lora_weights": "pissa"}},
    "lora, init olora": {"peft_config": {"init_lora_weights": "olora"}},
    "lora, init eva": {"peft_config": {"init_lora_weights": "eva"}},
    "p_tuning_v2": {}, "p_tuning_v2, init zero": {"peft_config": {"init_weights": "zero"}},
    "prompt_tuning": {}, "prompt_tuning, init RANDOM": {"peft_config": {"prompt_tuning_init": "RANDOM"}},
}  # fmt: skip
SEARCHED = (0.002, 0.01, 0.05)
SEARCH_SEED = 100
HELD_OUT = 128
STORIES = {"train": "train", "held_out": "heldout200"}
ROWS, STEPS = 8, 30  # of a step; of a run
LONGEST = 120  # characters of a sentence
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "trained": ("trained", lambda x: f"{x:.2%}"),
    "loss": ("held-out loss", lambda x: f"{x:.3f}"),
    "accuracy": ("reward accuracy", lambda x: f"{x:.1%}"),
    "seconds": ("seconds a step", lambda x: f"{x:.3f}"),
    "memory": ("memory, MiB", lambda x: f"{x:.0f}"),
    "file": ("file, KiB", lambda x: f"{x:.0f}"),
}


def main() -> None:
    """Run the methods and print a JSON line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="../shared/models/stories260K")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS], metavar="METHOD")
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--table", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.table:
        rows = read_ours(given.table)
        print(table(rows))
        return
    fork = multiprocessing.get_context("forkserver")  # the libraries load once, and each run has its own memory
    fork.set_forkserver_preload(["recipes.sft", "recipes.reward"])
    seeds = [SEARCH_SEED] if given.search else given.seeds
    for seed in seeds:
        for method in VARIANTS if given.variants else given.methods:
            found = RATES[method.partition(",")[0]]
            for rate, reward_rate in [(rate, rate) for rate in SEARCHED] if given.search else [found]:
                job = {"model": given.model, "data": given.data, "steps": given.steps, "method": method,
                       "seed": seed, "rate": rate, "reward_rate": reward_rate,
                       "reward": not given.variants}  # fmt: skip
                process = fork.Process(target=measure, args=(job,))
                process.start()
                process.join()
                if process.exitcode != 0:
                    raise SystemExit(f"{method}, seed {seed}: exit code {process.exitcode}")


def measure(job: dict[str, Any]) -> None:
    """Run both stages of one method with one seed, and print what was measured."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(job["data"]), Path(folder), job["seed"], ROWS * job["steps"])
        found = {key: job[key] for key in ("method", "seed", "rate", "reward_rate", "steps")}
        before = memory("VmRSS")
        found |= _sft(job, Path(folder))
        found["memory"] = (memory("VmHWM") - before) / 1024
        if job["reward"]:
            run = run_recipe(recipe_of("reward", job, Path(folder)))
            found["accuracy"] = run["manifest"]["results"]["reward_accuracy"]
    print(json.dumps(found), flush=True)


def _sft(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    run = run_recipe(recipe_of("sft", job, folder))
    (weights,) = [*(folder / "sft").glob("*model.safetensors")]
    return {
        "trained": run["trained"] / _parameters(job["model"]),
        "loss": run["manifest"]["results"]["eval_loss"],
        "seconds": statistics.median(run["seconds"]),
        "file": weights.stat().st_size / 1024,
    }


def write_rows(data: Path, folder: Path, seed: int, count: int) -> None:
    """Write the rows of both stages; what is held out is the same for every seed."""
    reviews = [row["text"] for row in _read(data / "reviews/sentence_polarity_10662.jsonl")]
    reviews = [text for text in reviews if len(text) <= LONGEST]
    random.Random(0).shuffle(reviews)
    stories = {name: _read(data / f"tinystories/stories_{file}.jsonl") for name, file in STORIES.items()}
    for name, part in (("train", reviews[HELD_OUT:]), ("held_out", reviews[:HELD_OUT])):
        most, dice = (count, random.Random(seed)) if name == "train" else (HELD_OUT, random.Random(0))
        dice.shuffle(part)
        texts = [{"prompt": "Review:", "completion": f" {text}"} for text in part[:most]]
        pairs = [pair for row in stories[name] for pair in _pair(row["text"], dice)]
        dice.shuffle(pairs)
        for stage, found in (("sft", texts), ("reward", pairs[:most])):
            assert len(found) == most
            lines = "".join(json.dumps(row) + "\n" for row in found)
            (folder / f"{stage}-{name}.jsonl").write_text(lines, encoding="utf-8")


def _read(file: Path) -> list[dict[str, Any]]:
    return read_ours(file)


def _pair(story: str, dice: random.Random) -> list[dict[str, str]]:
    """A story's second sentence, and the same with two words exchanged; nothing where a sentence is long."""
    first, second, *_ = [*re.findall(r"[^.!?]+[.!?]", " ".join(story.split())), "", ""]
    words = second.split()
    if len(words) < 5 or max(len(first), len(second)) > LONGEST:
        return []
    mixed, (a, b) = [*words], dice.sample(range(1, len(words) - 1), 2)
    mixed[a], mixed[b] = mixed[b], mixed[a]
    if mixed == words:
        return []
    return [{"prompt": first, "chosen": f" {' '.join(words)}", "rejected": f" {' '.join(mixed)}"}]


def recipe_of(stage: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the recipe of a stage of one method, whose rows `write_rows` writes."""
    recipe: dict[str, Any] = {
        "stage": stage, "model_name_or_path": job["model"], "output_dir": str(folder / stage), "eos_token": "<s>",
        "datasets": [{"path": str(folder / f"{stage}-train.jsonl")}],
        "eval_datasets": [{"path": str(folder / f"{stage}-held_out.jsonl")}], "seed": job["seed"],
        "peft_method": job["method"].partition(",")[0],
        "learning_rate": job["rate" if stage == "sft" else "reward_rate"],
        "lr_scheduler_type": "cosine", "warmup_steps": 5,
        "per_device_train_batch_size": ROWS, "per_device_eval_batch_size": 64, "max_steps": job["steps"],
        "max_length": 128, "save_strategy": "no", "use_cpu": True,
    }  # fmt: skip
    if METHODS.get(job["method"]):
        recipe["peft_config"] = METHODS[job["method"]]
    recipe |= VARIANTS.get(job["method"], {})
    return recipe


def run_recipe(recipe: dict[str, Any], *callbacks: Any) -> dict[str, Any]:
    """Run a recipe's script; returns its manifest, the number of weights that train and each step's processor time.

    Args:
        callbacks: of the trainer; a step's time begins after them.
    """
    import importlib

    from transformers import Trainer, TrainerCallback

    from alignment.manifest import read_manifest

    folder = Path(recipe["output_dir"])
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(recipe), encoding="utf-8")
    script: Any = importlib.import_module(f"recipes.{recipe['stage']}")
    seen: dict[str, Any] = {"seconds": []}

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen["seconds"].append(time.process_time() - self.began)

    train = Trainer.train

    def timed_training(trainer: Any, *given: Any, **keys: Any) -> Any:
        seen["trained"] = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
        for callback in (*callbacks, Clock()):
            trainer.add_callback(callback)
        return train(trainer, *given, **keys)

    Trainer.train = timed_training
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            script.main(["--config", str(file)])
        except BaseException:
            sys.__stderr__.write(told.getvalue())  # type: ignore[union-attr]
            raise
        finally:
            Trainer.train = train
    return {**seen, "manifest": read_manifest(folder)}


def _parameters(model: str) -> int:
    from transformers import AutoModelForCausalLM

    return sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(model).parameters())


def memory(key: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").split("\n")
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, least and greatest in brackets where they differ, as Markdown."""
    lines = ["| `peft_method` | seeds | learning rates | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
             "|---" * (len(COLUMNS) + 3) + "|"]  # fmt: skip
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = []
        for key, (_, shape) in COLUMNS.items():
            values = [row[key] for row in own if key in row]
            if not values:
                cells.append("–")
                continue
            mean, low, high = (shape(value) for value in (statistics.fmean(values), min(values), max(values)))
            cells.append(mean if low == high else f"{mean} [{low}, {high}]")
        lines.append(
            f"| `{method}` | {len(own)} | {own[0]['rate']:g}, {own[0]['reward_rate']:g} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
