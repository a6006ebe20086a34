"""The documents of tasks with every policy's answer and scores, as rows of a file."""

from collections.abc import Iterator
from typing import Any

from alignment.evaluate.tasks.running import Sample, TaskRuns

ANSWERS = "task_answers.jsonl"  # of an evaluation


def task_rows(runs: TaskRuns) -> Iterator[dict[str, Any]]:
    """Yield a row for each document of each task and filter, with `policies`: answer and metrics of each."""
    names = list(runs.answers)
    for loaded in runs.loaded:
        label = loaded.entry.label
        by_policy = {name: runs.answers[name][label].samples for name in names}
        for task in loaded.tasks:
            for together in zip(*(by_policy[name][task] for name in names), strict=True):
                first = together[0]
                yield {
                    "entry": label,
                    "task": task,
                    "document": first["doc_id"],
                    "document_sha256": first["doc_hash"],
                    "filter": first["filter"],
                    "target": first["target"],
                    "policies": {name: _answer(sample) for name, sample in zip(names, together, strict=True)},
                }


def _answer(sample: Sample) -> dict[str, Any]:
    return {
        "prompts": [arguments[0] for arguments in sample["arguments"]],
        "responses": sample["resps"],
        "filtered": sample["filtered_resps"],
        "metrics": {metric: sample[metric] for metric in sample["metrics"]},
    }
