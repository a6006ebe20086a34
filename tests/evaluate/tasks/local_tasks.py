"""A group of two multiple-choice tasks, and one of written answers, as a user's folder of lm-eval tasks."""

import json

import yaml

SUBJECTS = {
    "animals": [("The cat sat on the", " mat", " sky"), ("The dog ran to the", " moon", " park"),
                ("A bird can", " fly", " read")],
    "food": [("Tom ate a big", " cake", " car"), ("She drank some", " stone", " milk")],
}  # fmt: skip


def write_tasks(folder, *, by_size=True):
    """Write YAML and data; the right answer is the first choice where `label` is 0."""
    folder.mkdir()
    for subject, rows in SUBJECTS.items():
        lines = [json.dumps({"q": q, "choices": [a, b], "label": place % 2}) for place, (q, a, b) in enumerate(rows)]
        (folder / f"{subject}.jsonl").write_text("\n".join(lines) + "\n")
        task = {
            "task": f"stories_{subject}", "dataset_path": "json", "output_type": "multiple_choice",
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{subject}.jsonl")}}, "test_split": "test",
            "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}", "doc_to_target": "label", "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }  # fmt: skip
        (folder / f"{subject}.yaml").write_text(yaml.safe_dump(task))
    group = {
        "group": "stories", "task": [f"stories_{subject}" for subject in SUBJECTS],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": by_size}], "metadata": {"version": 1},
    }  # fmt: skip
    (folder / "stories.yaml").write_text(yaml.safe_dump(group))
    return str(folder)
