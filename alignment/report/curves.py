"""Which of a run's logged numbers become curves, and which go together in one chart."""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from alignment.report.charts import Chart, Point, chart

Series = dict[str, list[Point]]

# Title, unit, then keys with their labels; the first chart that names a key has it. Keys are those that TRL's trainers
# and ours log; variants of a name are listed together, and numbers that a run did not log are left out.
MAIN: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Score", "reward model, mean", (("score", "score"), ("objective/scores", "score"))),
    ("KL", "nats per answer", (("kl", "KL"), ("objective/kl", "KL"))),
    (
        "Answer length",
        "tokens",
        (("answer_tokens", "mean"), ("completions/min_length", "shortest"), ("completions/max_length", "longest")),
    ),
    ("Answers with a stop token", "share", (("fraction_stopped", "share"),)),
    ("Loss", "", (("loss", "training"), ("eval_loss", "held out"))),
    ("Accuracy", "", (("accuracy", "training"), ("eval_accuracy", "held out"))),
    ("Accuracy", "implied reward", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "held out"))),
    ("Margin", "implied reward", (("rewards/margins", "training"), ("eval_rewards/margins", "held out"))),
    (
        "Rewards",
        "implied reward",
        (
            ("rewards/chosen", "chosen"),
            ("rewards/rejected", "rejected"),
            ("eval_rewards/chosen", "chosen, held out"),
            ("eval_rewards/rejected", "rejected, held out"),
        ),
    ),
    ("Token accuracy", "", (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "held out"))),
    ("Entropy", "nats per token", (("entropy", "training"), ("eval_entropy", "held out"))),
    ("Distinct answers", "share", (("distinct_answers", "share"),)),
    ("Spread of rewards in a group", "standard deviation", (("group_reward_std", "spread"),)),
    ("Groups with equal rewards", "share", (("frac_reward_zero_std", "share"),)),
    ("Groups of truncated answers alone", "share", (("frac_groups_masked", "share"),)),
    ("Rollouts of an update", "number", (("rollouts_sampled", "rollouts"),)),
    ("Clipped tokens", "share", (("clip_ratio/low_mean", "below"), ("clip_ratio/high_mean", "above"))),
)
LARGEST = 1e100  # of a value that is drawn
NEVER = ("step", "epoch", "total_flos", "num_tokens", "eval_num_tokens")
TIMING = ("_runtime", "_per_second", "_flos", "seconds")


def series_of(metrics: Sequence[dict[str, Any]]) -> Series:
    """Finite values of every numeric key by step; a step logged twice keeps its last value."""
    found: dict[str, dict[float, float]] = {}
    for place, row in enumerate(metrics):
        step = row.get("step")
        at = float(step) if is_number(step) else float(place)
        for key, value in row.items():
            if key not in NEVER and is_number(value):
                found.setdefault(key, {})[at] = float(value)
    return {key: sorted(points.items()) for key, points in found.items()}


def not_finite(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that were logged as NaN or infinity, each with the first step."""
    found: dict[str, Any] = {}
    for row in metrics:
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                found.setdefault(key, row.get("step", "?"))
    return [f"{key} is not finite from step {step}" for key, step in found.items()]


def charts_of(metrics: Sequence[dict[str, Any]]) -> tuple[list[Chart], list[Chart], dict[str, float]]:
    """Sort a run's numbers into the charts that matter, the other charts, and single values."""
    series = series_of(metrics)
    curves = {key: points for key, points in series.items() if len(points) > 1}
    single = {key: points[0][1] for key, points in series.items() if len(points) == 1}
    main: list[Chart] = []
    taken: set[str] = set()
    for title, unit, keys in MAIN:
        chosen = [(label, curves[key]) for key, label in keys if key in curves]
        if chosen:
            main.append(chart(title, chosen, unit))
        for key, label in keys:
            if key in curves:
                taken.add(key)
            elif key in single and chosen:  # one evaluation at the end is a dot on the training curve
                main[-1] = chart(title, [*chosen, (label, series[key])], unit)
                single.pop(key)
    rest = [key for key in curves if key not in taken and not key.endswith(TIMING)]
    others = [chart(title, lines) for title, lines in _with_evaluation(rest, curves)]
    return main, others, single


def _with_evaluation(keys: Sequence[str], curves: Series) -> list[tuple[str, list[tuple[str, list[Point]]]]]:
    """Put `eval_x` beside `x`, and leave every other key alone."""
    pairs = []
    for key in sorted(keys):
        if key.startswith("eval_") and key.removeprefix("eval_") in keys:
            continue
        lines = [("training", curves[key])]
        if f"eval_{key}" in keys:
            lines.append(("held out", curves[f"eval_{key}"]))
        pairs.append((key, lines))
    return pairs


def is_number(value: object) -> TypeGuard[float]:
    """Whether a logged value can be drawn, and its square be computed."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
