"""Writes run directories that look like a finished pipeline's, with made-up numbers."""

import json
import math
import random
from pathlib import Path

HASH = "3f1c9a7be2d04c55a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718"
VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2"}
DATA = {"reward": "label/labels", "dpo": "label/labels"}
PROMPTS = (
    "Could you tell me when the library opens on Saturday, and whether it has a quiet room?",
    "Hi! Where can I buy fresh bread near the station?",
    "What should I pack for two days by the lake in October?",
)
ANSWERS = {
    "sft": ("The library opens. The library opens at nine. The library opens at nine.", "No idea, look it up yourself.",
            "A coat."),
    "dpo": ("Of course! On Saturday the library opens at nine, and the quiet room is on the second floor.",
            "Happy to help: the bakery in Mill Lane, two minutes from the station, bakes until noon.",
            "A warm coat, good shoes and something for the rain."),
    "ppo": ("With pleasure: it opens at nine on Saturday, and yes, it has a quiet room upstairs.",
            "Gladly! The bakery in Mill Lane has fresh bread until noon.",
            "Gladly! Take a warm coat, sturdy shoes, and a jacket for the rain; the evenings are cold."),
}  # fmt: skip


def write_pipeline(root: Path, *, name: str = "tiny") -> Path:
    """Write runs/<name> with sft, label, reward, dpo, ppo and evaluate, and pipeline.json."""
    folder = root / name
    rng = random.Random(7)
    _stage(folder, "data", None, {}, None)
    (folder / "data").mkdir(exist_ok=True)
    sft = [
        {"step": s, "loss": 1.0 + 2.6 * math.exp(-s / 60) + rng.gauss(0, 0.05), "grad_norm": 1 + rng.random(),
         "learning_rate": 5e-4 * (1 - s / 400), "mean_token_accuracy": 0.78 - 0.5 * math.exp(-s / 70), "epoch": s / 100}
        for s in range(5, 401, 5)
    ]  # fmt: skip
    sft += [{"step": s, "eval_loss": 1.05 + 2.5 * math.exp(-s / 60), "eval_runtime": 0.4} for s in range(50, 401, 50)]
    sft.append({"step": 400, "train_runtime": 48.1, "train_loss": 1.31, "total_flos": 1e12})
    _stage(folder, "sft", f"{root}/{name}/base", {"train_loss": 1.31, "steps": 400}, sft)
    _stage(folder, "label", f"{folder}/sft", {"prompts": 600, "pairs": 3600, "statuses": {"ok": 3411, "tie": 189}}, [])
    _stage(
        folder, "label_gold", f"{folder}/sft", {"prompts": 200, "pairs": 1200, "statuses": {"ok": 1140, "tie": 60}}, []
    )
    reward = [
        {"step": s, "loss": 0.31 + 0.38 * math.exp(-s / 40) + rng.gauss(0, 0.02), "score_gap": s / 100,
         "accuracy": 0.86 - 0.34 * math.exp(-s / 35) + rng.gauss(0, 0.01)}
        for s in range(5, 201, 5)
    ]  # fmt: skip
    reward += [
        {"step": s, "eval_loss": 0.36 + 0.33 * math.exp(-s / 40), "eval_accuracy": 0.84 - 0.32 * math.exp(-s / 30)}
        for s in range(25, 201, 25)
    ]
    accuracy = {"reward_accuracy": 0.841, "reward_accuracy_low": 0.811, "reward_accuracy_high": 0.869}
    _stage(
        folder,
        "reward",
        f"{folder}/sft",
        {**accuracy, "reward_pairs_decided": 684, "steps": 200},
        reward,
        eval_datasets=[{"path": f"{folder}/label_gold/labels.jsonl"}],
    )
    dpo = [
        {"step": s, "loss": 0.69 * math.exp(-s / 200) + rng.gauss(0, 0.01), "rewards/margins": 1.9 * (s / 200) ** 0.7,
         "rewards/accuracies": 0.85 - 0.33 * math.exp(-s / 30) + rng.gauss(0, 0.015), "logps/chosen": -20 - s / 50}
        for s in range(5, 201, 5)
    ]  # fmt: skip
    _stage(folder, "dpo", f"{folder}/sft", {"train_loss": 0.41, "steps": 200}, dpo)
    ppo = [
        {"step": 4 * u, "loss": 0.1 * math.exp(-u / 20) + rng.gauss(0, 0.01), "clip_fraction": 0.1 + rng.random() / 50,
         "score": -0.4 + 3.4 * (1 - math.exp(-u / 25)),
         "kl": 6.2 * (1 - math.exp(-u / 40)) + abs(rng.gauss(0, 0.1)), "entropy": 1.6 - 0.6 * u / 80,
         "answer_tokens": 17 + 4 * (1 - math.exp(-u / 20)) + rng.gauss(0, 0.3),
         "value_loss": 0.5 * math.exp(-u / 15), "explained_variance": 1 - math.exp(-u / 12), "distinct_answers": 0.99,
         "policy_loss": rng.gauss(0, 0.01), "seconds_sample": 0.4, "tokens_per_second": 4000, "episode": 64 * u}
        for u in range(1, 81)
    ]  # fmt: skip
    samples = [
        {"step": s, "prompt": PROMPTS[i], "answer": ANSWERS[who][i], "score": score}
        for s, who, score in ((0, "sft", -0.4), (320, "ppo", 2.6))
        for i in range(2)
    ]
    _stage(folder, "ppo", f"{folder}/sft", {"steps": 320}, ppo, samples, reward_model_path=f"{folder}/reward")
    _stage(folder, "evaluate", f"{folder}/sft", {}, None)
    _write(folder / "evaluate/results.json", _results())
    rows = [_example(i) for i in range(len(PROMPTS))]
    (folder / "evaluate/examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seconds = {
        "data": 3.2,
        "sft": 52.4,
        "label": 31.0,
        "label_gold": 12.0,
        "reward": 44.8,
        "dpo": 38.1,
        "ppo": 118.6,
        "evaluate": 21.9,
    }
    stages = {s: {"seconds": t, "status": "finished", "dependencies": {}} for s, t in seconds.items()}
    _write(folder / "pipeline.json", {"name": name, "stages": stages})
    return folder


def _stage(folder, stage, model, results, metrics, samples=(), **recipe):
    run = folder / stage
    run.mkdir(parents=True, exist_ok=True)
    if model is None:
        return
    data = f"{folder}/{DATA.get(stage, 'data/' + stage)}.jsonl"
    recipe = {"stage": stage, "model_name_or_path": str(model), "datasets": [{"path": data}],
              "learning_rate": 5e-4, **recipe}  # fmt: skip
    judges = {"label": "person", "label_gold": "gold"}
    if stage in judges:
        recipe |= {"stage": "label", "judge": {"kind": "rules", "name": judges[stage], "function": "a:b"}}
    _write(run / "manifest.json", {
        "stage": recipe["stage"], "status": "finished", "recipe": recipe, "seed": 42, "results": results,
        "versions": VERSIONS,
        "command": ["alignment", stage, "--config", f"recipes/tiny/{stage}.yaml"],
        "lineage": {"base_sha256": HASH, "tokenizer_sha256": HASH, "stop_token_ids": [2]},
        "started": "2026-11-21T09:10:00+00:00", "finished": "2026-11-21T09:14:52+00:00",
    })  # fmt: skip
    (run / "recipe.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in recipe.items()))
    if metrics is not None:
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if samples:
        (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))


def _results():
    def rate(wins, ties, losses, low, high, coverage=1.0):
        n = wins + ties + losses
        return {"value": (wins + ties / 2) / n, "low": low, "high": high, "n": n, "wins": wins, "ties": ties,
                "losses": losses, "coverage": coverage, "statuses": {"ok": n - ties, "tie": ties}}  # fmt: skip

    def mean(value, spread):
        return {"value": value, "low": value - spread, "high": value + spread, "n": 200, "clusters": 200}

    details = {
        "kl": {"dpo": mean(9.31, 0.62), "ppo": mean(6.04, 0.41)},
        "answer_tokens": {"sft": mean(17.2, 0.8), "dpo": mean(22.6, 0.7), "ppo": mean(21.1, 0.5)},
        "distinct_answers": {
            "sft": {"value": 1.0, "unique": 200, "n": 200},
            "dpo": {"value": 0.985, "unique": 197, "n": 200},
            "ppo": {"value": 0.97, "unique": 194, "n": 200},
        },
        "perplexity": {
            name: {"value": v, "tokens": 20000} for name, v in (("sft", 31.2), ("dpo", 34.9), ("ppo", 33.0))
        },
        "reward_score": {"sft": mean(-0.42, 0.2), "dpo": mean(2.11, 0.16), "ppo": mean(2.96, 0.12)},
        "reward_agreement": {"gold": {**mean(0.872, 0.033), "n": 391}},
    }
    return {
        "baseline": "sft", "candidates": ["dpo", "ppo"], "judges": ["person", "gold"], "prompts": 200,
        "answers_per_prompt": 1, "confidence_level": 0.95,
        "win_rate": {
            "dpo": {"person": rate(141, 6, 53, 0.655, 0.78), "gold": rate(146, 12, 42, 0.705, 0.813)},
            "ppo": {"person": rate(158, 4, 38, 0.75, 0.853), "gold": rate(161, 9, 30, 0.779, 0.875)},
        },
        **{key: {who: found["value"] for who, found in by.items()} for key, by in details.items()},
        "details": details,
    }  # fmt: skip


def _example(i):
    return {
        "prompt": [{"role": "user", "content": PROMPTS[i]}],
        "answers": {name: texts[i] for name, texts in ANSWERS.items()},
        "tokens": {"sft": 14, "dpo": 22, "ppo": 21},
        "scores": {"sft": -0.61, "dpo": 2.2, "ppo": 3.05},
        "verdicts": {"person": {"dpo": 0.81, "ppo": 0.9}, "gold": {"dpo": 1.0, "ppo": 0.5}},
    }


def _write(path, value):
    path.write_text(json.dumps(value, indent=2))
