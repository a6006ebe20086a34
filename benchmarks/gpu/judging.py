"""The `local` judge: comparisons a second, called as by a label stage."""

import random
import time

import torch

from alignment.calls.asking import ask_all
from alignment.config.schema.judges import judge_entry
from alignment.evaluate.judging import Comparison
from benchmarks.gpu.models import large
from benchmarks.gpu.step import Findings, Place, run_step
from reward.judges import build_judge

COMPARISONS, BATCH, CHARACTERS = {"cuda": 512, "cpu": 8}, {"cuda": 64, "cpu": 4}, {"cuda": 160, "cpu": 16}
QUESTION = "{prompt}\n\nA: {first}\n\nB: {second}\n\nWhich is better, A or B?"


def main(place: Place, found: Findings, variant: str) -> None:
    """Ask once to warm up, then ask all."""
    prompt = place.own / "prompt.txt"
    prompt.write_text(QUESTION, encoding="utf-8")
    batch = BATCH[place.device]
    judge = build_judge(
        judge_entry(
            kind="local",
            model_name_or_path=str(large(place)),
            dtype="bfloat16" if place.on_gpu else "float32",
            load_in_4bit=True,
            prompt=str(prompt),
            per_device_eval_batch_size=batch,
        )
    )
    source = random.Random(0)

    def text() -> str:
        return "".join(source.choice("abcdefgh ") for _ in range(CHARACTERS[place.device]))

    questions = [Comparison(text(), text(), text()) for _ in range(COMPARISONS[place.device] + batch)]
    said = [pair for batch_of in ask_all(judge, questions[:batch], max_concurrency=2 * batch) for pair in batch_of]
    begun = time.perf_counter()
    said = [pair for batch_of in ask_all(judge, questions[batch:], max_concurrency=2 * batch) for pair in batch_of]
    seconds = time.perf_counter() - begun  # a verdict is a number on the host
    good = sum(verdict.probability is not None for _, verdict in said)
    tokens = sum(verdict.details["usage"]["prompt_tokens"] for _, verdict in said)
    found.numbers(**{"comparisons a second": len(said) / seconds, "tokens a comparison": tokens / len(said)})
    found.check("share of comparisons with a verdict", good / COMPARISONS[place.device], least=1)
    if place.on_gpu:
        found.numbers(**{"GiB": torch.cuda.max_memory_allocated() / 2**30})


if __name__ == "__main__":
    run_step(main)
