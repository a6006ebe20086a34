"""How much replay of old text reduces forgetting: stories260K, trained on TinyStories, is pretrained on WikiText.

    python -m recipes.replay.replay               # → runs/replay/{replay.json,replay.md}; resumes

A share of the training text's characters are TinyStories; all runs take the same number of steps. Perplexities are per
token, on held-out stories and held-out articles. Intervals are Student's, 95 %, over seeds.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

import recipes.pretrain
from alignment.evaluate.metrics import common_texts, text_losses
from alignment.run.files import read_jsonl, write_atomic, write_json, write_jsonl
from alignment.run.script import parsed, script
from recipes.tinystories.frontier import STUDENT

SHARES = (0.0, 0.05, 0.1, 0.25, 0.5)
HELD_OUT = 5  # every fifth article
DOMAINS = ("stories", "articles")
MOST = 40_000  # tokens of each domain that are evaluated


def main(argv: list[str] | None = None) -> None:
    """Train with each share and seed, measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m recipes.replay.replay", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/replay"))
    parser.add_argument("--model", default="../shared/models/stories260K")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parsed(parser, argv)
    articles = articles_of((given.data / "wikitext2/valid.txt").read_text(encoding="utf-8"))
    stories = [row["text"] for row in read_jsonl(given.data / "tinystories/stories_train.jsonl")]
    held_out = {
        "stories": [row["text"] for row in read_jsonl(given.data / "tinystories/stories_heldout200.jsonl")],
        "articles": articles[::HELD_OUT],
    }
    train = [text for place, text in enumerate(articles) if place % HELD_OUT]
    found = {"before": [measured(given.model, held_out)]}
    for share in SHARES:
        for seed in given.seeds:
            folder = given.output_dir / f"replay{share:g}_seed{seed}"
            if not (folder / "model.safetensors").is_file():
                data = given.output_dir / f"replay{share:g}_seed{seed}.jsonl"
                write_jsonl(data, [{"text": text} for text in mixture(train, stories, share, seed)])
                pretrain(given.model, data, folder, seed)
            found.setdefault(f"{share:g}", []).append(measured(str(folder), held_out))
    write_json(given.output_dir / "replay.json", found)
    page = table(found)
    write_atomic(given.output_dir / "replay.md", page.encode())
    print(page)  # noqa: T201


def articles_of(text: str) -> list[str]:
    """Return the articles of WikiText, each with its title line ` = Title = `."""
    found: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith(" = ") and not line.startswith(" = = "):
            found.append([])
        if found:
            found[-1].append(line)
    return ["\n".join(lines).strip() for lines in found]


def mixture(new: Sequence[str], old: Sequence[str], share: float, seed: int) -> list[str]:
    """Return all new texts with so many old ones that `share` of the characters are old, shuffled."""
    numbers = random.Random(seed)
    left = sum(map(len, new)) * share / (1 - share)
    texts = list(new)
    for text in numbers.sample(list(old), len(old)):
        if left <= 0:
            break
        texts.append(text)
        left -= len(text)
    numbers.shuffle(texts)
    return texts


def pretrain(model: str, data: Path, folder: Path, seed: int) -> None:
    """Run the stage."""
    keys = {"model_name_or_path": model, "datasets": json.dumps([{"path": str(data)}]), "output_dir": folder}
    argv = [part for key, value in {**keys, "seed": seed}.items() for part in (f"--{key}", str(value))]
    recipes.pretrain.main(["--config", str(Path(__file__).parent / "pretrain.yaml"), *argv])


def measured(folder: str, held_out: dict[str, list[str]]) -> dict[str, float]:
    """Return the perplexity on each domain."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    sums = {
        name: text_losses(model, tokenizer, common_texts(tokenizer, texts, MOST)).sum(axis=0)
        for name, texts in held_out.items()
    }
    return {name: math.exp(nats / tokens) for name, (nats, tokens) in sums.items()}


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the table, in Markdown."""
    lines = ["| replay | perplexity, stories | perplexity, articles |", "|---|---|---|"]
    for name, runs in found.items():
        cells = [_cell([run[domain] for run in runs]) for domain in DOMAINS]
        label = name if name == "before" else f"{float(name):.0%}"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.2f}"
    half = STUDENT[len(values) - 1] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.2f} ± {half:.2f}"


if __name__ == "__main__":
    script(main)
