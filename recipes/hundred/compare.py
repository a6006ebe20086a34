r"""Samples base and tuned models on held-out openings, and counts the style.

    python -m recipes.hundred.compare --base ../shared/models/stories260K --prompts runs/hundred/data/heldout.jsonl \
        --tuned runs/hundred/styled runs/hundred/plain --output_dir runs/hundred/compare

Writes results.json with intervals and answers.jsonl with every answer, and prints a table.
"""

import argparse
from pathlib import Path
from typing import Any

from alignment.config.schema import DatasetEntry, ModelKeys
from alignment.data.load import load_prompts
from alignment.data.template import Template
from alignment.evaluate.statistics import mean_interval, share_interval
from alignment.policy.base import load_causal_lm
from alignment.policy.tokenizer import load_tokenizer
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.run.files import write_json, write_jsonl
from alignment.run.script import parsed, script
from recipes.hundred.style import says_good_night, tense

MAX_NEW_TOKENS = 128


def main(argv: list[str] | None = None) -> None:
    """Sample, count, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m recipes.hundred.compare", description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--tuned", required=True, nargs="+", help="run folders")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parsed(parser, argv)
    prompts = load_prompts([DatasetEntry(path=given.prompts)], on_bad_row="stop", seed=0).rows
    answers = {path: sampled(path, prompts, given.seed) for path in (given.base, *given.tuned)}
    results = {path: counted(texts, answers[given.base]) for path, texts in answers.items()}
    given.output_dir.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": prompt, **{path: answers[path][place] for path in answers}} for place, prompt in enumerate(prompts)
    ]
    write_jsonl(given.output_dir / "answers.jsonl", rows)
    write_json(given.output_dir / "results.json", {"prompts": len(prompts), "models": results})
    print(table(results))  # noqa: T201


def sampled(path: str, prompts: list[Any], seed: int) -> list[str]:
    """Return one answer of a model to each prompt, at temperature 1."""
    keys = ModelKeys(model_name_or_path=path, eos_token="<s>")
    tokenizer = load_tokenizer(keys)
    template = Template(tokenizer, None, keys.eos_token)
    engine = TransformersEngine(load_causal_lm(keys, trainable=False), tokenizer.pad_token_id or 0, 64)
    ids = [template.prompt_ids(prompt) for prompt in prompts]
    sampling = Sampling(MAX_NEW_TOKENS, stop_token_ids=template.stop_token_ids, seed=seed)
    completions = engine.generate(ids, sampling)
    return [template.answer_text(before, one.words) for before, one in zip(ids, completions, strict=True)]


def counted(texts: list[str], base: list[str]) -> dict[str, Any]:
    """Return the share of verbs in the present tense and of answers with the farewell, and the gains over the base.

    Answers without a verb of the list count as half. Intervals are 95 %, by bootstrap over prompts.
    """
    places = range(len(texts))
    present, before = [share(text) for text in texts], [share(text) for text in base]
    farewell = [float(says_good_night(text)) for text in texts]
    gained = [new - old for new, old in zip(present, before, strict=True)]
    return {
        "present": mean_interval(present, places).as_json(),
        "present_gain": mean_interval(gained, places).as_json(),
        "farewell": share_interval(farewell, places).as_json(),
        "words": sum(len(text.split()) for text in texts) / len(texts),
    }


def share(text: str) -> float:
    """Return the share of verbs in the present tense."""
    now, then = tense(text)
    return now / (now + then) if now + then else 0.5


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| model | present tense | gain over the base | says good night | words |", "|---|---|---|---|---|"]
    for path, found in results.items():
        cells = [_percent(found[key]) for key in ("present", "present_gain", "farewell")]
        lines.append(f"| {Path(path).name} | {' | '.join(cells)} | {found['words']:.0f} |")
    return "\n".join(lines)


def _percent(found: dict[str, Any]) -> str:
    low, high = (100 * (found[end] if found[end] is not None else found["value"]) for end in ("low", "high"))
    return f"{100 * found['value']:.1f} % [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    script(main)
