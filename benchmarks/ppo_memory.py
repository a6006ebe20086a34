"""One PPO run of a large shape on one GPU, with no more memory than a smaller GPU has.

    python -m benchmarks.ppo_memory --shape 7b --memory 24      # GiB; 70b: --memory 80
    python -m benchmarks.ppo_memory --shape tiny --device cpu   # to see that the script runs

A random NF4 model of the shape and a reward adapter on it are written to disk, then the PPO stage runs on them as from
a recipe: four roles on one base, LoRA rank 16, bfloat16, gradient checkpointing. The CUDA allocator is held to
`--memory`, so a run that ends has fitted. The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from alignment.run.files import read_jsonl, write_jsonl
from benchmarks.shapes import SHAPES, make_model
from benchmarks.workload import save_tokenizer
from recipes.ppo import main as ppo

GIB = 2**30
CONTEXT_GIB = 1.0  # what CUDA itself and its libraries take beside the allocator


def main() -> None:
    """Write the inputs, run the stage, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--memory", type=float, default=24.0, help="GiB that the GPU is taken to have")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--answers", type=int, default=32, help="per update; two updates are made")
    parser.add_argument("--prompt_tokens", type=int, default=256)
    parser.add_argument("--answer_tokens", type=int, default=256)
    parser.add_argument("--microbatch", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder with room for the model; default: a temporary one")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; nothing was run. --shape tiny --device cpu tries the script")
    if args.device == "cuda":
        hold_to(args.memory)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        print(json.dumps(measure(args, Path(folder))))


def hold_to(memory: float) -> None:
    """Limit PyTorch's allocator to the memory of a GPU of `memory` GiB."""
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (memory - CONTEXT_GIB) * GIB / whole))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run PPO on a model of the shape. Returns: the run's numbers, and the settings."""
    base = make_model(args.shape, "nf4", folder / "base")
    save_tokenizer(base, SHAPES[args.shape]["vocab_size"])
    make_reward_adapter(base, folder / "reward", on_gpu=args.device == "cuda")
    write_prompts(folder / "prompts.jsonl", SHAPES[args.shape]["vocab_size"], args.answers, args.prompt_tokens)
    recipe = {
        "stage": "ppo",
        "output_dir": str(folder / "ppo"),
        "model_name_or_path": str(base),
        "reward_model_path": str(folder / "reward"),
        "datasets": [{"path": str(folder / "prompts.jsonl")}],
        "load_in_4bit": True,
        "dtype": "bfloat16",
        "lora_r": 16,
        "lora_alpha": 32,
        "rollout_batch_size": args.answers,
        "total_episodes": 2 * args.answers,
        "num_ppo_epochs": 1,
        "num_mini_batches": 2,
        "max_new_tokens": args.answer_tokens,
        "per_device_train_batch_size": args.microbatch,
        "rollout_eval_batch_size": args.answers,
        "num_sample_generations": 0,
        "use_cpu": args.device == "cpu",
        "report_to": "none",
    }
    (folder / "ppo.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    ppo(["--config", str(folder / "ppo.yaml")])
    rows = read_jsonl(folder / "ppo" / "metrics.jsonl")
    last = [row for row in rows if "score" in row][-1]
    timed = ("seconds_sample", "seconds_score", "seconds_train", "tokens_per_second", "peak_memory_gib")
    found = {"shape": args.shape, "memory_gib": args.memory, **{key: last[key] for key in timed}}
    if args.device == "cuda":
        found |= {
            "peak_reserved_gib": torch.cuda.max_memory_reserved() / GIB,
            "device": torch.cuda.get_device_name(),
        }
    return found | {"torch": torch.__version__, "cuda": torch.version.cuda}


def make_reward_adapter(base: Path, folder: Path, *, on_gpu: bool) -> None:
    """A sequence classifier's rank-16 adapter on the base with a random head."""
    torch.manual_seed(1)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.bfloat16, device_map={"": 0} if on_gpu else None
    )
    config = LoraConfig(task_type="SEQ_CLS", r=16, lora_alpha=32, target_modules="all-linear")
    get_peft_model(classifier, config).save_pretrained(folder)
    save_tokenizer(folder, classifier.config.vocab_size)


def write_prompts(path: Path, vocabulary: int, count: int, tokens: int) -> None:
    """Prompts of random words, a token each."""
    words = torch.randint(3, vocabulary, (count, tokens - 8), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [{"prompt": " ".join(f"w{word}" for word in row)} for row in words]
    write_jsonl(path, rows)


if __name__ == "__main__":
    main()
