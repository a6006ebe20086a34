"""Best-of-n: of n answers of the fine-tuned model the one that the reward model likes best; no training at all.

    python -m recipes.tinystories.best_of_n --policy runs/tinystories/sft --reward runs/tinystories/reward \
        --prompts runs/tinystories/data/prompts_heldout.jsonl --output_dir runs/tinystories/best_of_n

One set of answers a prompt serves every n, and the KL is that of theory; see `alignment.evaluate.best_of_n`.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.schema import DatasetEntry, ModelKeys
from alignment.data.load import load_prompts
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.evaluate.best_of_n import chance_of_best, kl_of_best_of_n, powers_of_two
from alignment.policy.base import load_causal_lm
from alignment.policy.tokenizer import load_tokenizer
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.run.files import write_json
from alignment.run.script import parsed, script
from recipes.tinystories import judge, watcher
from reward.models.scoring import RewardScorer


def main(argv: list[str] | None = None) -> None:
    """Sample, score, and write `curve.json`: one object for each n with its KL and means over prompts."""
    parser = argparse.ArgumentParser(prog="python -m recipes.tinystories.best_of_n", description=__doc__)
    for name in ("policy", "reward", "prompts"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=32, help="sampled for each prompt")
    parser.add_argument("--seed", type=int, default=0)
    given = parsed(parser, argv)
    found = measures(given.policy, given.reward, given.prompts, given.answers, given.seed)
    write_json(given.output_dir / "curve.json", curve(found))


def measures(policy: str, reward: str, prompts: str, answers: int, seed: int) -> dict[str, np.ndarray]:
    """Return what is measured of every answer: name → (prompts, answers), the reward model's `score` among them."""
    keys = ModelKeys(model_name_or_path=policy, eos_token="<s>")
    tokenizer = load_tokenizer(keys)
    template = Template(tokenizer, None, keys.eos_token)
    rows = load_prompts([DatasetEntry(path=prompts)], on_bad_row="stop", seed=0).rows
    asked = [prompt for prompt in rows for _ in range(answers)]
    ids = [template.prompt_ids(prompt) for prompt in asked]
    engine = TransformersEngine(load_causal_lm(keys, trainable=False, peft=None), tokenizer.pad_token_id, 128)
    sampling = Sampling(max_new_tokens=128, stop_token_ids=template.stop_token_ids, seed=seed)
    completions = engine.generate(ids, sampling)
    texts = [template.answer_text(before, c.words) for before, c in zip(ids, completions, strict=True)]
    tokens = Recorder(template).records(asked, ids, completions)
    stopped = [completion.stopped for completion in completions]
    scores = RewardScorer.load(reward).score(asked, texts, stopped=stopped, tokens=tokens)
    told = {"score": scores, "compound": [*map(judge.compound, texts)], "watcher": [*map(watcher.probability, texts)]}
    return {name: np.array(numbers).reshape(len(rows), answers) for name, numbers in told.items()}


def curve(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return each n's KL bound and the expected measures of its best answer, for n = 1, 2, 4 … answers."""
    order = found["score"].argsort(axis=1, kind="stable")
    answers = order.shape[1]
    points = []
    for n in powers_of_two(answers):
        weights = chance_of_best(answers, n)
        means = {name: float((np.take_along_axis(x, order, axis=1) @ weights).mean()) for name, x in found.items()}
        points.append({"n": n, "kl": kl_of_best_of_n(n), **means})
    return points


if __name__ == "__main__":
    script(main)
