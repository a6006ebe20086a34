"""The model card of a finished run."""

import json
from typing import Any

import yaml

from alignment.config.methods import TUNING_METHODS
from alignment.config.schema import Recipe
from alignment.config.tasks import AUTO_CLASSES, CLASSIFIER


def model_card(recipe: Recipe, manifest: dict[str, Any], adapter: dict[str, Any] | None = None) -> str:
    """Return README.md: the stage, its data and results, and code that loads and uses the model or the data.

    Args:
        adapter: the trained adapter's configuration, as saved.
    """
    resolved = manifest.get("recipe", {})
    lines = _head(recipe, manifest)
    lines += [f"# {recipe.run_name or recipe.output_dir}", ""]
    model = resolved.get("model_name_or_path")
    lines += [f"Stage **{recipe.stage}** of Alignment Stack{f', from `{model}`' if model else ''}.", ""]
    paths = [entry["path"] for entry in resolved.get("datasets", [])]
    if paths:
        lines += ["Data: " + ", ".join(f"`{path}`" for path in paths), ""]
    results = {key: value for key, value in manifest.get("results", {}).items() if isinstance(value, int | float | str)}
    if results:
        lines += ["| result | value |", "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in results.items()]
        lines += [""]
    for key, bins in manifest.get("results", {}).items():
        if isinstance(bins, list) and bins and all(isinstance(row, dict) for row in bins):
            lines += [f"`{key}`:", "", f"| {' | '.join(bins[0])} |", "|---" * len(bins[0]) + "|"]
            lines += ["| " + " | ".join(map(_cell, row.values())) + " |" for row in bins]
            lines += [""]
    loader = AUTO_CLASSES[manifest.get("task", recipe.task)] if recipe.STAGE.trains else None
    if manifest.get("members"):
        lines += [f"An ensemble of {', '.join(f'`{name}`' for name in manifest['members'])}; each is a model.", ""]
    elif recipe.STAGE.makes == "data":
        lines += ["```python", "from datasets import load_dataset", f'data = load_dataset("{recipe.output_dir}")']
        lines += ["```", ""]
    elif loader:
        lines += ["```python", *_loading(loader, recipe, adapter or {}), *_scoring(manifest), "```", ""]
    lines += ["Everything that was set is in `recipe.yaml`; inputs, versions and lineage are in `manifest.json`.", ""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _head(recipe: Recipe, manifest: dict[str, Any]) -> list[str]:
    """Return the YAML with which the card begins; that of a data set names the files and the types of columns."""
    head: dict[str, Any] = {"tags": ["alignment-stack", recipe.stage]}
    if recipe.STAGE.makes == "data":
        files = [{"split": split, "path": file} for split, file in manifest.get("files", {}).items()]
        head["configs"] = [{"config_name": "default", "data_files": files}]
        if manifest.get("features"):
            head["dataset_info"] = {"config_name": "default", "features": manifest["features"]}
    else:
        head = {"library_name": "transformers", **head}
    return ["---", *yaml.safe_dump(head, sort_keys=False, allow_unicode=True).splitlines(), "---", ""]


def _scoring(manifest: dict[str, Any]) -> list[str]:
    """Return code that scores an answer; [] for a model without scores, or trained on texts and messages."""
    kind, end = manifest.get("prompt_kind"), manifest.get("answer_end")
    if kind is None or end is None:
        return []
    if kind == "text":
        prompt, answer, special = '"The capital of Peru is"', " Lima.", ""
    else:
        messages = '[{"role": "user", "content": "What is the capital of Peru?"}]'
        prompt = f"tokenizer.apply_chat_template({messages}, add_generation_prompt=True, tokenize=False)"
        answer, special = "Lima.", ", add_special_tokens=False"  # the chat template writes them
    return [
        f"prompt = {prompt}",
        f'text = prompt + "{answer}" + {json.dumps(end, ensure_ascii=False)}  # prompt, answer, stop token',
        f'print(model(**tokenizer(text{special}, return_tensors="pt")).logits.item())',
    ]


def _loading(loader: str, recipe: Recipe, adapter: dict[str, Any]) -> list[str]:
    """Return the lines of code that load the model; transformers loads most adapters with their base."""
    # An adapter does not store the number of outputs or the padding token of its base classifier.
    head = ", num_labels=1, pad_token_id=tokenizer.pad_token_id" if recipe.task == CLASSIFIER else ""
    method = TUNING_METHODS.get(str(adapter.get("peft_type")).lower())
    tokenizer = f'tokenizer = AutoTokenizer.from_pretrained("{recipe.output_dir}")'
    if method is None or (method.loads_in_transformers and not method.own_type):
        lines = [f"from transformers import AutoTokenizer, {loader}", tokenizer]
        return [*lines, f'model = {loader}.from_pretrained("{recipe.output_dir}"{head})']
    module = f"alignment.policy.methods.{method.family}"
    return [
        *(
            [f"import {module}  # of the package alignment-stack: registers the type with PEFT"]
            if method.own_type
            else []
        ),
        "from peft import PeftModel",
        f"from transformers import AutoTokenizer, {loader}",
        tokenizer,
        f'base = {loader}.from_pretrained("{adapter.get("base_model_name_or_path")}"{head})',
        f'model = PeftModel.from_pretrained(base, "{recipe.output_dir}")',
    ]
