"""The files of a label run."""

LABELS, REJECTED = "labels.jsonl", "rejected.jsonl"  # of a run that finished, and of one that missed its gate
GOLD_LABELS = "gold_labels.jsonl"  # the judge's labels of the gold comparisons, for gate and calibration
REVISIONS = "revisions.jsonl"
