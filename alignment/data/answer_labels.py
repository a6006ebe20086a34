"""What the labels of single answers must be for KTO to learn from them."""

from collections.abc import Sequence

from alignment.errors import DataError

APART = 1e-6  # of probabilities; those of a judge may differ by rounding


def require_both_labels(labels: Sequence[float]) -> None:
    """Refuse answers that teach nothing: none, or all with the same label.

    Args:
        labels: of each answer, the probability that it is good.

    Raises: DataError.
    """
    if len(labels) < 2:
        raise DataError(f"{len(labels)} labelled answers are left to train on, and KTO needs two or more.")
    if max(labels) - min(labels) < APART:
        label = round(labels[0], 6)
        name = {1.0: "good", 0.0: "bad"}.get(label, f"good with probability {label:g}")
        raise DataError(
            f"all {len(labels):,} answers are labelled {name}, and KTO learns from good and bad ones; add answers with "
            "the other label, or fine-tune on good answers with stage sft."
        )


def require_learnable(stage: str, rows: Sequence[object]) -> None:
    """Refuse the rows of stage `kto` whose labels teach nothing; other stages have no such labels.

    Raises: DataError.
    """
    if stage == "kto":
        labels = (label for row in rows for label in getattr(row, "desirable", ()))
        require_both_labels([label for label in labels if label is not None])
