"""Numbers and texts of every key, at every depth: in their range, or refused with their place."""

import dataclasses
import math

import pydantic
import pytest
import yaml

from alignment.config import load_recipe
from alignment.config.library import trainer_keys
from alignment.config.loading import library_keys
from alignment.config.renamed import DECIDED
from alignment.config.rules.ranges import CHOICES, RANGES
from alignment.config.schema import STAGES, PipelineRecipe
from alignment.config.schema.dpo import REFERENCE_FREE
from alignment.errors import RecipeError
from tests.config.test_loading import MINIMAL, RULES_JUDGE

CHAT = {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}


def faults(tmp_path, stage: str, given: dict, *argv: str) -> list[str]:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"stage": stage} | MINIMAL[stage] | given, sort_keys=False))
    try:
        load_recipe(stage, ["--config", str(file), *argv])
    except RecipeError as error:
        return [fault.replace(str(file), "r.yaml") for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("stage", "given", "message"),
    [
        ("label", {"judge": CHAT | {"timeout_seconds": math.inf}}, "judge.timeout_seconds: must be a finite number"),
        ("label", {"judge": CHAT | {"timeout_seconds": 1e9}}, "judge.timeout_seconds: must be at most 86400"),
        ("label", {"judge": CHAT | {"temperature": math.nan}}, "judge.temperature: must be a finite number"),
        ("label", {"judge": CHAT | {"temperature": 1e6}}, "judge.temperature: must be at most 100"),
        ("label", {"judge": CHAT | {"extra_body": {"x": [{"y": math.nan}]}}}, "extra_body.x[0].y: must be a"),
        ("label", {"judge": CHAT | {"prices": {"prompt": math.inf, "completion": 1}}}, "prices.prompt: must be a"),
        ("label", {"judge": CHAT | {"clamp": [math.nan, 0.5]}}, "judge.clamp[0]: must be a finite number"),
        ("label", {"judge": {"kind": "jury", "members": [RULES_JUDGE | {"weight": math.inf}]}}, "[0].weight: must"),
        ("label", {"judge": CHAT | {"max_retries": 10**6}}, "judge.max_retries: must be at most 100"),
        ("label", {"num_generations": 10**12}, "num_generations: must be at most 1024"),
        ("label", {"requests_per_minute": 1e-9}, "requests_per_minute: must be at least 0.01"),
        ("label", {"gate": {"min_kappa": math.nan, "gold": "g"}}, "gate.min_kappa: must be a finite number"),
        ("label", {"max_concurrency": 10**6}, "max_concurrency: must be at most 1024"),
        ("evaluate", {"judges": [CHAT | {"timeout_seconds": math.inf}]}, "judges[0].timeout_seconds: must be a finite"),
        ("evaluate", {"bootstrap_samples": 10**12}, "bootstrap_samples: must be at most"),
        ("sft", {"datasets": [{"path": "d", "fraction": math.inf}]}, "datasets[0].fraction: must be a finite number"),
        ("sft", {"datasets": [{"path": "d", "fraction": math.nan}]}, "datasets[0].fraction: must be a finite number"),
        ("sft", {"max_steps": 0}, "max_steps: must be at least 1, found 0"),
        ("sft", {"max_steps": -2}, "max_steps: must be at least 1, found -2"),
        ("sft", {"adam_beta2": 1.5}, "adam_beta2: must be less than 1"),
        ("sft", {"adam_beta1": -0.1}, "adam_beta1: must be at least 0"),
        ("sft", {"label_smoothing_factor": 2}, "label_smoothing_factor: must be less than 1"),
        ("sft", {"per_device_train_batch_size": 10**18}, "per_device_train_batch_size: must be at most 1000000"),
        ("sft", {"pad_to_multiple_of": 65536}, "pad_to_multiple_of: must be at most 4096"),
        ("sft", {"logging_steps": 2.5}, "logging_steps: must be a whole number of steps, or a share"),
        ("sft", {"dataloader_num_workers": 10**6}, "dataloader_num_workers: must be at most 256"),
        ("sft", {"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor: needs dataloader_num_workers"),
        ("sft", {"dataloader_persistent_workers": True}, "dataloader_persistent_workers: needs dataloader_num_workers"),
        ("sft", {"num_train_epochs": 1e300}, "num_train_epochs: must be at most 1000000"),
        ("sft", {"log_level": "loud"}, "log_level: must be one of debug, info"),
        ("sft", {"push_to_hub": True}, "push_to_hub: cannot be set"),
        ("sft", {"lora_r": 10**9}, "lora_r: must be at most 65536"),
        ("sft", {"lora_target_modules": "("}, "lora_target_modules: '(' is not a pattern: missing )"),
        ("sft", {"lora_target_modules": "(.*)*x"}, "lora_target_modules: the pattern '(.*)*x' takes more than"),
        ("sft", {"lora_target_modules": []}, "lora_target_modules: names no module"),
        ("sft", {"output_dir": "x" * 300}, "output_dir: no folder's name has more than 255 bytes"),
        ("sft", {"output_dir": "a\nb"}, "output_dir: holds a line break"),
        ("sft", {"metric_for_best_model": "nonsense"}, "metric_for_best_model: must be one of loss, entropy"),
        ("dpo", {"metric_for_best_model": "eval_reward/margins"}, "did you mean rewards/margins?"),
        ("reward", {"num_members": 10**9}, "num_members: must be at most 100"),
        ("dpo", {"loss_type": "nope"}, "loss_type: must be one of sigmoid, hinge"),
        ("dpo", {"loss_type": ["sigmoid", "nope"]}, "loss_type[1]: must be one of sigmoid"),
        ("dpo", {"loss_type": []}, "loss_type: must have at least one entry"),
        ("dpo", {"loss_type": ["sigmoid", "sft"], "loss_weights": [0, 0]}, "loss_weights: are all 0"),
        ("sft", {"eval_on_start": True}, "eval_on_start: needs data to evaluate on"),
        ("sft", {"save_strategy": "best", "test_split_size": 0.1}, "save_strategy: best needs metric_for_best_model"),
        ("dpo", {"f_divergence_type": "nope"}, "f_divergence_type: must be one of reverse_kl"),
        ("dpo", {"label_smoothing": 0.7}, "label_smoothing: must be less than 0.5"),
        ("dpo", {"ld_alpha": 2.0}, "ld_alpha: must be at most 1"),
        ("ppo", {"rollout_batch_size": 10**12}, "rollout_batch_size: must be at most"),
        ("ppo", {"scorers": [{"kind": "http", "url": "http://h/", "weight": math.inf}]}, "scorers[0].weight: must"),
        ("ppo", {"kl_coef": 1e300}, "kl_coef: must be at most"),
        ("ppo", {"gamma": math.nan}, "gamma: must be a finite number"),
    ],
)  # fmt: skip
def test_no_number_leaves_its_range(tmp_path, stage, given, message):
    found = faults(tmp_path, stage, given)
    assert any(message in fault for fault in found), found


def test_a_fault_is_reported_once_and_with_others(tmp_path):
    judge = CHAT | {"timeout_seconds": math.inf, "temperature": -1, "extra_body": {"x": math.nan}}
    found = faults(tmp_path, "label", {"judge": judge, "seed": math.inf})
    assert len([fault for fault in found if "timeout_seconds" in fault]) == 1
    assert len(found) == 4


def test_overrides_are_held_to_the_same_ranges(tmp_path):
    for words in (["--judge.timeout_seconds", ".inf"], ["--judge.extra_body", "{x: .nan}"], ["--seed", "1e400"]):
        [fault] = faults(tmp_path, "label", {"judge": CHAT}, *words)
        assert fault.startswith(words[0])
    [fault] = faults(tmp_path, "label", {}, "--a" + ".b" * 100, "1")
    assert "is not a key" in fault


def numbers_of(model: type[pydantic.BaseModel], seen: set | None = None) -> list[tuple[str, list]]:
    """Every number of a schema, nested ones too, with its constraints."""
    seen = set() if seen is None else seen
    if model in seen:
        return []
    seen.add(model)
    found = []
    for name, info in model.model_fields.items():
        kinds = {info.annotation, *getattr(info.annotation, "__args__", ())}
        if kinds & {int, float}:
            found.append((f"{model.__name__}.{name}", info.metadata))
        for part in [info.annotation, *getattr(info.annotation, "__args__", ())]:
            for one in [part, *getattr(part, "__args__", ())]:
                if isinstance(one, type) and issubclass(one, pydantic.BaseModel):
                    found += numbers_of(one, seen)
    return found


@pytest.mark.parametrize("model", [*STAGES.values(), PipelineRecipe])
def test_every_number_of_the_schema_has_a_least_and_a_most(model):
    for name, bounds in numbers_of(model):
        sides = ("gt", "ge", "lt", "le")
        kinds = {side for bound in bounds for side in sides if getattr(bound, side, None) is not None}
        assert kinds & {"gt", "ge"}, name
        assert kinds & {"lt", "le"}, name


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "ppo"])
def test_every_number_of_the_trainers_has_a_range(stage):
    for key, kind in library_keys(STAGES[stage]).items():
        if kind.names & {"int", "float"} and key not in DECIDED:
            assert key in RANGES, key


def test_the_losses_of_dpo_are_those_that_trl_computes():
    import inspect

    from trl.trainer import dpo_trainer

    source = inspect.getsource(dpo_trainer)
    for key in ("loss_type", "f_divergence_type"):
        for choice in [choice for choice in CHOICES[key] if choice not in REFERENCE_FREE]:
            assert f'{key} == "{choice}"' in source


def test_defaults_lie_in_their_ranges():
    from transformers import TrainingArguments
    from trl import DPOConfig, SFTConfig

    for cls in (TrainingArguments, SFTConfig, DPOConfig):
        for field in dataclasses.fields(cls):
            if field.name in RANGES and isinstance(field.default, int | float) and not isinstance(field.default, bool):
                assert RANGES[field.name].fault_of(field.default) is None, field.name
    assert trainer_keys("trl.trainer.dpo_config:DPOConfig")
