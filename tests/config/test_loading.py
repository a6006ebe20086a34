"""Recipes: what loads, and the exact words for what does not."""

import ast
import dataclasses
from pathlib import Path

import pytest
import yaml
from trl import SFTConfig

from alignment.config import check_recipe, load_recipe
from alignment.config.help import BY_MACHINE
from alignment.config.library import OUR_DEFAULTS, trainer_texts
from alignment.config.loading import library_keys, own_keys
from alignment.config.renamed import DECIDED, RENAMED
from alignment.config.schema import STAGES, DPORecipe, PPORecipe
from alignment.errors import RecipeError
from alignment.train.arguments import values_for

COMMON = {"output_dir": "runs/x", "model_name_or_path": "m", "datasets": [{"path": "d.jsonl"}]}
RULES_JUDGE = {"kind": "rules", "function": "a.b:f"}
BOTH_BITS = {"kind": "local", "model_name_or_path": "m", "load_in_4bit": True, "load_in_8bit": True}
MINIMAL = {
    "pretrain": COMMON,
    "sft": COMMON,
    "label": COMMON | {"judge": RULES_JUDGE},
    "synthesize": {
        "output_dir": "o",
        "datasets": [{"path": "d"}],
        "writer": {"kind": "openai", "model": "m"},
        "method": {"kind": "answers"},
    },
    "prepare": {"output_dir": "o", "datasets": [{"path": "d"}], "steps": [{"kind": "clean"}]},
    "reward": COMMON,
    "dpo": COMMON,
    "kto": COMMON,
    "ppo": COMMON | {"reward_model_path": "r", "total_episodes": 640},
    "grpo": COMMON | {"reward_model_path": "r", "total_episodes": 640},
    "rloo": COMMON | {"reward_model_path": "r", "total_episodes": 640},
    "evaluate": COMMON | {"candidates": [{"name": "dpo", "model_name_or_path": "p"}], "judges": [RULES_JUDGE]},
}


@pytest.fixture
def faults(tmp_path: Path):
    """Return a function that loads a recipe and returns its faults, the file's path cut off."""

    def run(stage: str, given: dict, argv: tuple[str, ...] = ()) -> list[str]:
        file = tmp_path / "r.yaml"
        file.write_text(yaml.safe_dump({"stage": stage} | MINIMAL[stage] | given, sort_keys=False))
        try:
            load_recipe(stage, ["--config", str(file), *argv])
        except RecipeError as error:
            return [fault.replace(f"{file}", "r.yaml") for fault in error.faults]
        return []

    return run


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("stage", STAGES)
def test_the_least_of_every_stage_loads(faults, stage):
    assert faults(stage, {}) == []


def test_values_have_their_types(tmp_path):
    path = write(
        tmp_path,
        "stage: dpo\noutput_dir: o\nmodel_name_or_path: m\ndatasets: [{path: d, fraction: 1}]\nlearning_rate: 5e-5\n"
        "eval_strategy: no\nloss_type: ipo\nwarmup_steps: 0.1\nmax_length: 64\n",
    )
    recipe = load_recipe("dpo", ["--config", path])
    assert isinstance(recipe, DPORecipe)
    assert recipe.library == {"learning_rate": 5e-5, "eval_strategy": "no", "loss_type": "ipo", "warmup_steps": 0.1}
    assert recipe.max_length == 64  # ours, though DPOConfig has the key too
    assert recipe.datasets[0].path == "d"
    assert recipe.source == path


def test_every_fault_is_reported_at_once_in_the_files_order(tmp_path):
    path = write(
        tmp_path,
        "stage: sft\n"
        "output_dir: runs/x\n"
        "learning_rat: 5e-5\n"
        'lora_r: "3"\n'
        "peft_method: lorra\n"
        "lr_scheduler_type: cosin\n"
        "bf16: yes\n"
        "torch_dtype: bfloat16\n"
        "gamma: 1\n"
        "datasets:\n"
        "  - path: a\n"
        "    pth: 3\n"
        "  - fraction: -1\n",
    )
    with pytest.raises(RecipeError) as error:
        load_recipe("sft", ["--config", path, "--lora_alpha", "x", "--datasets.0.split", "[]"])
    schedulers = (
        "linear, cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt, "
        "reduce_lr_on_plateau, cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay, greedy"
    )
    assert error.value.exit_code == 2
    assert [fault.replace(path, "r.yaml") for fault in error.value.faults] == [
        "r.yaml:3: learning_rat: no such key; did you mean learning_rate?",
        "r.yaml:4: lora_r: must be a whole number, found '3'",
        "r.yaml:5: peft_method: 'lorra' is not a tuning method; did you mean lora?",
        f"r.yaml:6: lr_scheduler_type: must be one of {schedulers}, found 'cosin'; did you mean cosine?",
        "r.yaml:7: bf16: must be true or false or null, found 'yes'; write true",
        "r.yaml:8: torch_dtype: is called dtype here",
        "r.yaml:9: gamma: no key of stage sft; it belongs to ppo",
        "r.yaml:12: datasets[0].pth: no such key; did you mean path?",
        "r.yaml:13: datasets[1].path: the required key is missing",
        "r.yaml:13: datasets[1].fraction: must be greater than 0, found -1",
        "r.yaml: model_name_or_path: the required key is missing",
        "--lora_alpha: must be a whole number, found 'x'",
        "--datasets.0.split: must be text, found []",
    ]


@pytest.mark.parametrize(
    ("stage", "given", "message"),
    [
        ("sft", {"datasets": "d.jsonl"}, "datasets: must be a list of mappings, found 'd.jsonl'"),
        ("sft", {"datasets": []}, "datasets: must have at least one entry"),
        ("sft", {"datasets": ["d.jsonl"]}, "datasets[0]: must be a mapping, found 'd.jsonl'"),
        ("sft", {"seed": 1.5}, "seed: must be a whole number, found 1.5"),
        ("sft", {"seed": True}, "seed: must be a whole number, found true"),
        ("sft", {"seed": -1}, "seed: must be at least 0, found -1"),
        ("sft", {"output_dir": None}, "output_dir: must be text, found null"),
        ("sft", {"learning_rate": "fast"}, "learning_rate: must be a number, found 'fast'"),
        ("sft", {"learning_rate": 0}, "learning_rate: must be greater than 0, found 0"),
        ("sft", {"num_train_epochs": [1]}, "num_train_epochs: must be a number, found [1]"),
        ("sft", {"report_to": 3}, "report_to: must be text or a list of text, found 3"),
        ("sft", {"max_steps": 1.0}, "max_steps: must be a whole number, found 1.0"),
        ("sft", {"packing": "on"}, "packing: must be true or false, found 'on'; write true"),
        ("sft", {"library": {}}, "library: no such key"),
        ("sft", {"output_dir": ""}, "output_dir: must not be empty"),
        ("sft", {"datasets": [{"path": ""}]}, "datasets[0].path: must not be empty"),
        ("sft", {"datasets": [{"path": "d", "split": ""}]}, "datasets[0].split: must not be empty"),
        ("sft", {"eos_token": ""}, "eos_token: must not be empty"),
        ("sft", {"model_revision": ""}, "model_revision: must not be empty"),
        ("ppo", {"chat_template": ""}, "chat_template: must not be empty"),
        ("sft", {"seed": 2**32}, "seed: must be less than 4294967296, found 4294967296"),
        ("sft", {"learning_rate": float("nan")}, "learning_rate: must be a finite number, found nan"),
        ("ppo", {"temperature": float("inf")}, "temperature: must be a finite number, found inf"),
        ("sft", {"weight_decay": -0.1}, "weight_decay: must be at least 0, found -0.1"),
        ("sft", {"assistant_only_loss": True}, "assistant_only_loss: cannot be set: loss is always on answers alone"),
        ("ppo", {"cliprange": 0}, "cliprange: must be greater than 0, found 0"),
        ("ppo", {"lam": 1.5}, "lam: must be at most 1, found 1.5"),
        (
            "label",
            {"judge": {"kind": "rulez"}},
            "judge.kind: must be one of rules, openai, anthropic, local, reward_model, replay, jury, found 'rulez'",
        ),
        ("label", {"judge": None}, "judge: must be a mapping, found null"),
        ("label", {"judge": RULES_JUDGE | {"modle": "x"}}, "judge.modle: no such key; did you mean model?"),
        ("label", {"learning_rate": 1e-3}, "learning_rate: no such key"),
        ("evaluate", {"candidates": [{"name": "a"}]}, "candidates[0].model_name_or_path: the required key is missing"),
    ],
)
def test_wrong_values(faults, stage, given, message):
    found = faults(stage, given)
    assert any(message in fault for fault in found), found


@pytest.mark.parametrize(
    ("stage", "given", "message"),
    [
        (
            "sft",
            {"load_in_4bit": True, "peft_method": "full"},
            "load_in_4bit: the method trains the base's weights or computes with them",
        ),
        ("sft", {"peft_method": "full", "lora_r": 8}, "lora_r: has no effect with peft_method full"),
        (
            "reward",
            {"load_in_8bit": True, "peft_method": "full"},
            "load_in_8bit: the method trains the base's weights or computes with them",
        ),
        ("dpo", {"load_in_4bit": True, "load_in_8bit": True}, "load_in_8bit: cannot be true beside load_in_4bit: true"),
        ("label", {"judge": BOTH_BITS}, "judge.load_in_8bit: cannot be true beside load_in_4bit: true"),
        ("synthesize", {"writer": BOTH_BITS}, "writer.load_in_8bit: cannot be true beside load_in_4bit: true"),
        (
            "sft",
            {"load_in_8bit": True, "bnb_4bit_quant_type": "fp4"},
            "bnb_4bit_quant_type: has no effect without load_in_4bit: true",
        ),
        (
            "sft",
            {"load_in_8bit": True, "peft_config": {"init_lora_weights": "pissa"}},
            "pissa changes the base's weights, which cannot be quantised then; take load_in_8bit out",
        ),
        ("sft", {"use_bnb_nested_quant": False}, "use_bnb_nested_quant: has no effect without load_in_4bit: true"),
        ("sft", {"bf16": True, "fp16": True}, "fp16: excludes bf16; give one"),
        ("sft", {"report_to": "wandbb"}, "report_to: 'wandbb' is not a tracker; give all, none, azure_ml,"),
        ("ppo", {"report_to": ["wandb", "tensorbord"]}, "swanlab, kubeflow; did you mean tensorboard?"),
        (
            "ppo",
            {"importance_sampling_cap": 1.1},
            "importance_sampling_cap: has no effect with rollout_engine transform",
        ),
        ("ppo", {"vllm_mode": "server"}, "vllm_mode: has no effect with rollout_engine transformers; take it out"),
        (
            "ppo",
            {"rollout_engine": "continuous_batching", "cache_implementation": "static"},
            "cache_implementation: has no effect with rollout_engine continuous_batching; take it out",
        ),
        (
            "ppo",
            {"ds3_gather_for_generation": False, "cache_implementation": "static"},
            "cache_implementation: static cannot sample with weights in shards; set ds3_gather_for_generation: true",
        ),
        (
            "ppo",
            {"rollout_engine": "vllm", "vllm_mode": "server"},
            "vllm_mode: server needs vllm_server_base_url, such as http://localhost:8000",
        ),
        (
            "ppo",
            {"rollout_engine": "vllm", "vllm_server_base_url": "http://localhost:8000"},
            "vllm_server_base_url: has no effect with vllm_mode colocate; take it out",
        ),
        (
            "ppo",
            {"engine_check_updates": 5},
            "engine_check_updates: has no effect with rollout_engine transformers; take it out",
        ),
        (
            "ppo",
            {"rollout_engine": "vllm", "engine_check_updates": None, "engine_tolerance": 0.1},
            "engine_tolerance: has no effect with engine_check_updates: null; take it out",
        ),
        ("dpo", {"load_best_model_at_end": True}, "load_best_model_at_end: needs data to evaluate on"),
        ("dpo", {"eval_strategy": "steps"}, "eval_strategy: needs data to evaluate on; give test_split_size or"),
        ("reward", {"early_stopping_patience": 2}, "early_stopping_patience: needs data to evaluate on"),
        (
            "sft",
            {"early_stopping_patience": 2, "test_split_size": 0.1, "eval_strategy": "epoch"},
            "early_stopping_patience: needs load_best_model_at_end: true, or the best weights are lost",
        ),
        (
            "sft",
            {"load_best_model_at_end": True, "test_split_size": 0.1},
            "load_best_model_at_end: needs eval_strategy steps or epoch; no evaluation takes place",
        ),
        (
            "sft",
            {"load_best_model_at_end": True, "test_split_size": 0.1, "eval_strategy": "epoch"},
            "load_best_model_at_end: needs save_strategy epoch, as eval_strategy is; it is steps",
        ),
        (
            "sft",
            {
                "load_best_model_at_end": True,
                "test_split_size": 0.1,
                "eval_strategy": "steps",
                "eval_steps": 30,
                "save_steps": 100,
            },
            "load_best_model_at_end: needs save_steps to be a multiple of eval_steps; 100 is not a multiple of 30",
        ),
        (
            "sft",
            {"test_split_size": 0.1, "eval_datasets": [{"path": "e"}]},
            "test_split_size: excludes eval_datasets; give one",
        ),
        (
            "sft",
            {"datasets": [{"path": "a", "fraction": 0.5}, {"path": "b"}]},
            "datasets[1]: has no fraction, but other entries of the list have one; give all or none",
        ),
        (
            "dpo",
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]},
            "loss_weights: has 1 weights for 2 of loss_type; give one for each",
        ),
        ("ppo", {"advantage_estimator": ["gae"]}, "advantage_estimator: must be text"),
        ("ppo", {"advantage_estimator": "grpo", "num_generations": 8, "lam": 0.5}, "lam: has no effect with advantage"),
        ("ppo", {"advantage_estimator": "rloo", "num_generations": 8, "gamma": 0.5}, "gamma: has no effect with"),
        ("ppo", {"advantage_estimator": "rloo"}, "num_generations: 1 gives advantage_estimator rloo no other answer"),
        ("grpo", {"use_bias_correction_kl": False}, "use_bias_correction_kl: has no effect with beta: 0"),
        ("grpo", {"num_generations": 7}, "num_generations: 7 does not divide rollout_batch_size 64; use 4 or 8"),
        ("grpo", {"num_train_epochs": 3}, "num_train_epochs: is not set in GRPO; total_episodes gives"),
        ("grpo", {"loss_type": "cispo"}, "epsilon_high: is missing; with loss_type cispo it is the largest weight"),
        ("grpo", {"sapo_temperature_pos": 2.0}, "sapo_temperature_pos: has no effect with loss_type dapo; take it"),
        ("grpo", {"delta": 1.1}, "delta: 1.1 is inside the clip range, which ends at 1.2; give a larger bound"),
        ("grpo", {"value_model": "head"}, "value_model"),
        ("rloo", {"kl_coef": 0.1}, "kl_coef: is called beta here"),
        ("grpo", {"dynamic_sampling_max_rounds": 3}, "dynamic_sampling_max_rounds: has no effect without"),
        ("dpo", {"loss_type": ["simpo", "sft"]}, "loss_type: simpo cannot be mixed with other losses; give it alone"),
        (
            "dpo",
            {"loss_type": "orpo", "label_smoothing": 0.1},
            "label_smoothing: has no effect with loss_type orpo, whose loss does not read it; take it out",
        ),
        (
            "dpo",
            {"loss_type": "simpo", "loss_weights": [1.0]},
            "loss_weights: has no effect with loss_type simpo, which is not mixed with other losses; take it out",
        ),
        (
            "dpo",
            {"loss_type": "cpo", "sync_ref_model": True},
            "sync_ref_model: has no effect with loss_type cpo, which has no reference; take it out",
        ),
        ("dpo", {"loss_type": "cpo", "simpo_gamma": 1.0}, "simpo_gamma: has no effect without loss_type simpo"),
        (
            "kto",
            {"per_device_train_batch_size": 1},
            "per_device_train_batch_size: must be 2 or more with loss_type kto",
        ),
        ("label", {"acceptable_rating": 7}, "acceptable_rating: needs judge.asks: pointwise, whose judge rates single"),
        (
            "label",
            {"judge": {"kind": "local", "model_name_or_path": ".", "asks": "pointwise"}, "acceptable_rating": 11},
            "acceptable_rating: 11 makes every answer bad, as the judge rates from 0 to 10; give a number above 0",
        ),
        (
            "label",
            {
                "judge": {"kind": "local", "model_name_or_path": ".", "asks": "pointwise", "rubric": __file__},
                "acceptable_rating": 1,
            },
            "acceptable_rating: 1 makes every answer good, as the judge rates from 1 to 10",
        ),
        ("kto", {"auto_find_batch_size": True}, "auto_find_batch_size: cannot be used with loss_type kto"),
        ("kto", {"train_sampling_strategy": "random"}, "must be sequential with loss_type kto, found random"),
        ("kto", {"ref_model_mixup_alpha": 0.5}, "ref_model_mixup_alpha: has no effect without sync_ref_model: true"),
        ("kto", {"precompute_ref_batch_size": 4}, "has no effect without precompute_ref_log_probs: true"),
        (
            "kto",
            {"sync_ref_model": True, "precompute_ref_log_probs": True, "peft_method": "full"},
            "sync_ref_model: excludes precompute_ref_log_probs",
        ),
        ("kto", {"sync_ref_model": True}, "sync_ref_model: an adapter's reference is no model of its own"),
        ("kto", {"loss_type": "sigmoid"}, "loss_type: must be one of kto, apo_zero_unpaired"),
        ("kto", {"desirable_weight": 0}, "desirable_weight: must be greater than 0"),
        ("kto", {"desirable_wieght": 2}, "desirable_wieght: no such key; did you mean desirable_weight?"),
        ("kto", {"loss_weights": [1.0]}, "loss_weights: no such key"),
        ("kto", {"simpo_gamma": 1.0}, "simpo_gamma: no key of stage kto; it belongs to dpo"),
        ("kto", {"label_smoothing_factor": 0.1}, "label_smoothing_factor: is not read in stage kto; a column"),
        ("kto", {"lora_dropout": 0.1}, "lora_dropout: must be 0 in KTO"),
        ("kto", {"metric_for_best_model": "accuracy"}, "metric_for_best_model: must be one of loss, entropy"),
        ("dpo", {"cpo_alpha": 1.0}, "cpo_alpha: has no effect without loss_type cpo or simpo; take it out"),
        (
            "ppo",
            {"num_mini_batches": 3},  # the neighbours of 3 among the divisors of 64
            "num_mini_batches: 3 does not divide rollout_batch_size 64; use 2 or 4",
        ),
        (
            "ppo",
            {"num_mini_batches": 2, "per_device_train_batch_size": 6},  # 64 / 2 = 32
            "per_device_train_batch_size: 6 does not divide the minibatch of 32 answers; use 4 or 8",
        ),
        (
            "ppo",
            {"rollout_batch_size": 1024},
            "rollout_batch_size: 1024 is more than total_episodes 640; not one update would be made",
        ),
        (
            "ppo",
            {"rollout_batch_size": 12},
            "per_device_train_batch_size: 8, the default, does not divide the minibatch of 12 answers; use 6 or 12",
        ),
        (
            "ppo",
            {"eval_strategy": "steps"},
            "eval_strategy: is not read in PPO, which does not evaluate while it trains",
        ),
        ("label", {"max_eval_samples": 5}, "max_eval_samples: is not read in stage label, which evaluates nothing"),
        ("ppo", {"reward_model_path": None}, "the required key is missing: name a reward model, or give scorers"),
        ("ppo", {"scorers": [{"kind": "http", "url": "http://h/"}]}, "reward_model_path: excludes scorers; name it"),
        ("ppo", {"value_model": "model"}, "value_model: model needs value_model_path, a reward model or language mod"),
        ("ppo", {"value_model_path": "r"}, "value_model_path: has no effect with value_model adapter; write value_mo"),
        ("ppo", {"value_model": "head", "value_peft_method": "lora"}, "value_peft_method: has no effect with value_"),
        ("ppo", {"label_smoothing_factor": 0.1}, "label_smoothing_factor: is not read in PPO, which learns from"),
        ("reward", {"eval_do_concat_batches": False}, "eval_do_concat_batches: must be true in stage reward"),
        (
            "dpo",
            {"train_sampling_strategy": "group_by_length"},
            "train_sampling_strategy: group_by_length needs one length a row",
        ),
        ("ppo", {"neftune_noise_alpha": 5}, "neftune_noise_alpha: must not be set in PPO: with noise in the"),
        ("dpo", {"label_smoothing_factor": 0.1}, "label_smoothing_factor: is not read in stage dpo, whose labels are"),
        ("ppo", {"logging_steps": 1}, "logging_steps: is not set in PPO; it logs once an update"),
        (
            "ppo",
            {"num_train_epochs": 3},
            "num_train_epochs: is not set in PPO; total_episodes gives the length of the run",
        ),
        ("ppo", {"max_steps": 3}, "max_steps: is not set in PPO; total_episodes gives the length of the run"),
        (
            "ppo",
            {"gradient_accumulation_steps": 2},
            "gradient_accumulation_steps: is not set in PPO; it follows from rollout_batch_size",
        ),
        ("sft", {"accelerator_config": {"dispatch_batches": "maybe"}}, "accelerator_config: dispatch_batches must be"),
        (
            "sft",
            {"accelerator_config": '{"even_batches": 2}'},
            "accelerator_config: even_batches must be true or false",
        ),
        (
            "sft",
            {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 7}}},
            "accelerator_config: num_steps of gradient_accumulation_kwargs: give gradient_accumulation_steps",
        ),
        ("ppo", {"lora_dropout": 0.1}, "lora_dropout: must be 0 in PPO"),
        ("dpo", {"lora_dropout": 0.1}, "lora_dropout: must be 0 in DPO: with dropout the log ratio of the policy to"),
        ("dpo", {"disable_dropout": False}, "disable_dropout: must be true in DPO"),
        ("dpo", {"neftune_noise_alpha": 5}, "neftune_noise_alpha: must not be set in DPO: with noise in the"),
        ("ppo", {"value_warmup_updates": 10}, "value_warmup_updates: 10 leaves none of the run's 10 updates"),
        ("ppo", {"target_kl": 0.1, "num_ppo_epochs": 2}, "target_kl: has no effect: an update of fewer than 3 steps"),
        ("ppo", {"target_kl": 0.1, "fp16": True}, "target_kl: needs steps without gradients"),
        ("ppo", {"critic_warmup": 5}, "is called value_warmup_updates here"),
        (
            "ppo",
            {"mask_truncated_completions": True, "missing_eos_penalty": 1.0},
            "missing_eos_penalty: has no effect with mask_truncated_completions: true",
        ),
        ("ppo", {"normalize_scores": True}, "normalize_scores: must be one of none, running, reward_model, found true"),
        (
            "ppo",
            {
                "reward_model_path": None,
                "scorers": [{"kind": "function", "function": "a:b"}],
                "normalize_scores": "reward_model",
            },
            "normalize_scores: reward_model needs reward models, and scorers[0] is of kind function; use running",
        ),
        ("ppo", {"kl_placement": "loss"}, "kl_estimator: k1 has a gradient of mean zero in the loss"),
        ("ppo", {"adaptive_kl_horizon": 500}, "adaptive_kl_horizon: has no effect without adaptive_kl_target"),
        ("ppo", {"adaptive_kl_target": 6.0, "kl_coef": 0.0}, "kl_coef: 0 stays 0 however it adapts"),
        (
            "ppo",
            {"adaptive_kl_target": 6.0, "adaptive_kl_horizon": 63},
            "adaptive_kl_horizon: 63 is less than rollout_batch_size 64",
        ),
        ("ppo", {"use_kl_loss": True}, "is called kl_placement here (true is loss, false is reward)"),
        ("label", {"judge": {"kind": "rules"}}, 'judge: a judge of kind rules needs function, "module:function"'),
        ("label", {"judge": {"kind": "openai"}}, "judge: a judge of kind openai needs model, its name at the endpoint"),
        (
            "label",
            {"judge": {"kind": "rules", "function": "a.b.f"}},
            "judge.function: must be module:function, found 'a.b.f'",
        ),
        (
            "label",
            {"judge": RULES_JUDGE | {"base_url": "u"}},
            "judge.base_url: does not belong to a judge of kind rules",
        ),
        (
            "label",
            {"judge": {"kind": "openai", "model": "m", "function": "a:b"}},
            "judge.function: does not belong to a judge of kind openai",
        ),
        ("label", {"num_generations": 3, "pairs_per_prompt": 4}, "pairs_per_prompt: 4 is more than the 3 pairs of"),
        (
            "evaluate",
            {"judges": [RULES_JUDGE, RULES_JUDGE]},
            "judges[1]: is called a.b:f, as another judge is; give it a name of its own",
        ),
        (
            "evaluate",
            {"candidates": [{"name": "p", "model_name_or_path": "x"}, {"name": "p", "model_name_or_path": "y"}]},
            "candidates[1].name: p is also the name of candidates[0]",
        ),
        (
            "evaluate",
            {"candidates": [{"name": "sft", "model_name_or_path": "x"}]},
            "candidates[0].name: sft is also the name of the baseline",
        ),
    ],
)
def test_impossible_combinations(faults, stage, given, message):
    found = faults(stage, given)
    assert any(message in fault for fault in found), found
    assert all(fault.startswith("r.yaml:") for fault in found)


@pytest.mark.parametrize(
    ("stage", "given"),
    [
        ("sft", {"load_in_4bit": True, "peft_method": "dora", "bnb_4bit_quant_type": "nf4"}),
        ("ppo", {"num_mini_batches": 4, "per_device_train_batch_size": 8}),
        ("ppo", {"peft_method": "full"}),
        ("dpo", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]}),
        ("dpo", {"loss_type": "simpo", "cpo_alpha": 0.1, "simpo_gamma": 1.2}),
        ("kto", {"loss_type": "apo_zero_unpaired", "per_device_train_batch_size": 1}),
        ("kto", {"loss_type": "apo_zero_unpaired", "train_sampling_strategy": "random"}),
        ("kto", {"sync_ref_model": True, "ref_model_sync_steps": 8, "peft_method": "full", "undesirable_weight": 1.5}),
        ("dpo", {"simpo_gamma": 0.5}),  # the default, as a resolved recipe has it
        (
            "sft",
            {
                "early_stopping_patience": 2,
                "load_best_model_at_end": True,
                "test_split_size": 0.1,
                "eval_strategy": "steps",
                "eval_steps": 50,
                "save_steps": 100,
            },
        ),
        ("sft", {"datasets": [{"path": "a", "fraction": 0.5}, {"path": "b", "fraction": 0.5}]}),
    ],
)
def test_possible_combinations(faults, stage, given):
    assert faults(stage, given) == []


def test_ppo_microbatches_are_counted_over_all_processes(faults, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    given = {"num_mini_batches": 2, "per_device_train_batch_size": 16}  # 32 answers are 8 a process
    assert faults("ppo", given)[0].endswith("16 does not divide the minibatch of 32 answers on 4 processes; use 8")
    assert faults("ppo", given | {"per_device_train_batch_size": 8}) == []


def test_a_run_may_not_be_written_over_what_it_reads(faults, tmp_path):
    inputs = tmp_path / "runs" / "model"
    inputs.mkdir(parents=True)
    given = {"output_dir": f"{tmp_path}/runs", "model_name_or_path": str(inputs), "datasets": [{"path": str(inputs)}]}
    found = [fault.replace(str(tmp_path), "T") for fault in faults("sft", given)]
    lies = "T/runs/model lies in output_dir T/runs, which the run writes; give output_dir another folder"
    assert found == [f"r.yaml:3: model_name_or_path: {lies}", f"r.yaml:5: datasets[0].path: {lies}"]
    assert faults("sft", given | {"output_dir": f"{tmp_path}/runs/mod"}) == []


REMOTE = {"kind": "openai", "model": "m"}


@pytest.mark.parametrize(
    ("stage", "given", "at"),
    [
        ("label", {"gate": {"gold": "o/file", "min_kappa": 0.5}}, "gate.gold"),
        ("label", {"calibration": {"gold": "o/file"}}, "calibration.gold"),
        ("label", {"judge": REMOTE | {"constitution": "o/file"}}, "judge.constitution"),
        ("label", {"judge": REMOTE | {"asks": "pointwise", "rubric": "o/file"}}, "judge.rubric"),
        ("label", {"judge": REMOTE | {"prompt": "o/file"}}, "judge.prompt"),
        ("label", {"judge": REMOTE | {"prices": "o/file"}}, "judge.prices"),
        ("ppo", {"watch_scorers": [{"kind": "judge", "judge": REMOTE | {"prompt": "o/file"}}]},
         "watch_scorers[0].judge.prompt"),
        ("sft", {"chat_template": "o/file"}, "chat_template"),
        ("sft", {"datasets": [{"path": "json", "data_files": ["d.jsonl", "o/f*"]}]}, "datasets[0].data_files"),
        ("evaluate", {"candidates": [{"name": "a", "model_name_or_path": "o/file"}]},
         "candidates[0].model_name_or_path"),
    ],
)  # fmt: skip
def test_every_declared_input_is_guarded(faults, tmp_path, monkeypatch, stage, given, at):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    (tmp_path / "o/file").write_text("a file")
    (fault,) = faults(stage, given | {"output_dir": "o"})
    assert f" {at}: o/file lies in output_dir o, which the run writes" in fault


def test_another_stages_recipe_is_refused_alone(faults, tmp_path):
    path = write(tmp_path, "output_dir: o\nstage: ppo\nnonsense: 1\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2: stage: is ppo, but it is run as sft$"):
        load_recipe("sft", ["--config", path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "output_dir: o\n",
            "the required key stage is missing; give one of synthesize, prepare, pretrain, sft, label, reward, dpo, "
            "kto, ppo, grpo, rloo, evaluate",
        ),
        (
            "stage: pppo\n",
            ":1: stage: 'pppo' is not a stage; give one of synthesize, prepare, pretrain, sft, label, reward, dpo, "
            "kto, ppo, grpo, rloo, evaluate; di",
        ),
        ("stage: [sft]\n", "is not a stage"),
    ],
)
def test_check_needs_a_stage(tmp_path, text, message):
    with pytest.raises(RecipeError) as error:
        check_recipe(write(tmp_path, text))
    assert message in str(error.value)


class TestRenamed:
    def test_every_new_name_exists(self):
        known = {key for cls in STAGES.values() for key in (*own_keys(cls), *library_keys(cls))}
        assert {name for names, _ in RENAMED.values() for name in names} <= known
        assert set(DECIDED) <= known

    def test_no_old_name_is_a_key_of_every_stage(self):
        every = [{*own_keys(cls), *library_keys(cls)} for cls in STAGES.values()]
        assert [old for old in RENAMED if all(old in keys for keys in every)] == []

    @pytest.mark.parametrize(
        ("stage", "given", "message"),
        [
            ("sft", {"max_seq_length": 5}, "max_seq_length: is called max_length here"),
            ("sft", {"evaluation_strategy": "no"}, "evaluation_strategy: is called eval_strategy here"),
            ("sft", {"use_lora": True}, "use_lora: is called peft_method here (true is lora, false is full)"),
            ("dpo", {"max_prompt_length": 5}, "max_prompt_length: is called max_length here (it bounds prompt and"),
            ("ppo", {"response_length": 5}, "response_length: is called max_new_tokens here"),
            (
                "grpo",
                {"steps_per_generation": 8},
                "steps_per_generation: is called num_mini_batches here (steps_per_generation counts microbatches: "
                "divide it by gradient_accumulation_steps)",
            ),
            ("label", {"no_cuda": True}, "no_cuda: no such key"),  # the label stage has no use_cpu either
            ("sft", {"overwrite_output_dir": True}, "overwrite_output_dir: is called overwrite here"),
        ],
    )
    def test_words(self, faults, stage, given, message):
        found = faults(stage, given)
        assert len(found) == 1
        assert message in found[0]

    def test_warmup_steps_takes_the_old_ratio(self):
        # What the table promises: below 1, transformers reads warmup_steps as a share of all steps.
        from transformers import TrainingArguments

        arguments = TrainingArguments(output_dir="x", warmup_steps=0.1, use_cpu=True, report_to="none")
        assert arguments.get_warmup_steps(200) == 20


class TestOverrides:
    def load(self, tmp_path, stage, *argv) -> PPORecipe:
        file = tmp_path / "r.yaml"
        file.write_text(yaml.safe_dump({"stage": stage} | MINIMAL[stage]))
        return load_recipe(stage, ["--config", str(file), *argv])

    def test_values_are_yaml(self, tmp_path):
        recipe = self.load(
            tmp_path, "sft", "--learning_rate", "1e-6", "--seed=7", "--overwrite", "--eos_token", "[EOS]",
            "--lora_target_modules", "[q_proj, v_proj]", "--chat_template", "null", "--packing", "--run_name", "007",
        )  # fmt: skip
        assert recipe.library == {"learning_rate": 1e-6, "packing": True}
        assert (recipe.seed, recipe.overwrite, recipe.chat_template) == (7, True, None)
        assert recipe.eos_token == "[EOS]"  # a key of text alone: no list
        assert recipe.run_name == "007"
        assert recipe.lora_target_modules == ["q_proj", "v_proj"]

    def test_they_reach_inside(self, tmp_path):
        recipe = self.load(tmp_path, "label", "--judge.name", "me", "--datasets.0.path", "new.jsonl")
        assert recipe.judge.name == "me"
        assert recipe.judge.function == "a.b:f"
        assert recipe.datasets[0].path == "new.jsonl"

    def test_lists_are_replaced_whole(self, tmp_path):
        recipe = self.load(tmp_path, "evaluate", "--candidates", "[{name: x, model_name_or_path: y}]")
        assert [candidate.name for candidate in recipe.candidates] == ["x"]

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["--learning_rat", "1"], "--learning_rat: no such key; did you mean learning_rate?"),
            (["--learning-rate", "1"], "--learning-rate: no such key; did you mean learning_rate?"),
            (["--learning_rate"], "--learning_rate: needs a value"),
            (["--learning_rate", "fast"], "--learning_rate: must be a number, found 'fast'"),
            (["--judge.modle", "x"], "--judge.modle: no key of stage sft; it belongs to label"),
            (["--datasets.3.path", "x"], "--datasets.3.path: datasets has 1 entries, counted from 0; there is no 3"),
            (["--output_dir.x", "1"], "--output_dir.x: output_dir is a single value; there is no x in it"),
            (["--datasets", "[{pth: 1, path: x}]"], "--datasets.0.pth: no such key; did you mean path?"),
            (["--report_to", "[a"], "--report_to: 1:3: not YAML"),
            (["5"], "'5': unexpected; an override is written `--key value`"),
            (["-x", "5"], "'-x': unexpected"),
            (["--config"], "--config: needs a file"),
        ],
    )
    def test_faults_name_the_flag(self, tmp_path, argv, message):
        with pytest.raises(RecipeError) as error:
            self.load(tmp_path, "sft", *argv)
        assert message in str(error.value)
        assert "r.yaml" not in str(error.value).replace("--config", "")

    def test_a_recipe_must_be_named(self):
        with pytest.raises(RecipeError, match="no recipe given; name one with `--config FILE`"):
            load_recipe("sft", ["--seed", "1"])


def test_help_lists_every_key(capsys):
    with pytest.raises(SystemExit) as end:
        load_recipe("ppo", ["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "  total_episodes: a whole number; required" in text
    assert "  learning_rate: a number" in text


def help_of(stage, *words, capsys):
    with pytest.raises(SystemExit):
        load_recipe(stage, ["--help", *words])
    return capsys.readouterr().out


def test_help_has_the_meaning_and_the_effective_default_of_every_key_in_groups(capsys):
    text = help_of("sft", capsys=capsys)
    assert "\nAdapter:\n" in text
    assert "  lora_r: a whole number; default 16\n      Rank of the adapter.\n" in text
    assert "  learning_rate: a number; default 2e-05\n" in text  # of SFTConfig; TrainingArguments has 5e-5
    assert "  save_total_limit: a whole number or null; default 2\n" in text  # ours
    assert "  bf16: true or false or null; default true on a GPU that supports it\n" in text
    assert "  do_train:" not in text  # cannot be set
    cls = STAGES["sft"]
    for name, info in own_keys(cls).items():
        assert f"  {name}: " in text
        assert info.description or name == "stage"


def test_help_with_a_word_keeps_the_keys_that_contain_it(capsys):
    text = help_of("ppo", "kl", capsys=capsys)
    assert "  kl_coef: a number; default 0.05\n" in text
    assert "lora_r" not in text
    assert "No key contains 'zzz'." in help_of("ppo", "zzz", capsys=capsys)


def test_the_defaults_of_help_are_those_of_the_trainer(tmp_path):
    recipe = load_recipe("sft", ["--config", write(tmp_path, yaml.safe_dump({"stage": "sft", **MINIMAL["sft"]}))])
    used = values_for(SFTConfig, recipe, "o")
    assert OUR_DEFAULTS.items() <= used.items()
    assert BY_MACHINE.keys() - {"activation_checkpointing", "gradient_checkpointing"} <= used.keys()
    texts = trainer_texts(STAGES["sft"].TRAINER_CONFIG)
    fields = {field.name: field.default for field in dataclasses.fields(SFTConfig)}
    for name, (default, _) in texts.items():
        if default:
            assert ast.literal_eval(default) == fields[name], name


SCORERS = {
    "reward_model": {"kind": "reward_model", "model_name_or_path": "r"},
    "ensemble": {"kind": "ensemble", "reward_models": ["r", "s"]},
    "function": {"kind": "function", "function": "rules:score"},
    "http": {"kind": "http", "url": "http://localhost:8000/score"},
    "judge": {"kind": "judge", "judge": {"kind": "openai", "model": "m"}},
}


def test_every_kind_of_scorer_loads(faults):
    entries = [{**entry, "weight": 0.5} for entry in SCORERS.values()]
    assert faults("ppo", {"reward_model_path": None, "scorers": entries}) == []


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (
            "reward_model",
            {"model_name_or_path": None},
            "scorers[0]: a scorer of kind reward_model needs model_name_or_",
        ),
        ("reward_model", {"aggregate": "min"}, "scorers[0].aggregate: does not belong to a scorer of kind reward_mod"),
        ("reward_model", {"kind": "rewardmodel"}, "must be one of reward_model, ensemble, function, http, judge"),
        ("reward_model", {"weight": float("inf")}, "scorers[0].weight: must be a"),
        ("reward_model", {"weight": 0}, "scorers: all have weight 0, so every score would be 0"),
        ("reward_model", {"name": "a b"}, "scorers[0].name: must"),
        ("reward_model", {"name": "std"}, "scorers[0].name: std would be logged as score_std, which means a spread"),
        ("ensemble", {"reward_models": []}, "scorers[0]: a scorer of kind ensemble needs reward_models, a list of two"),
        ("ensemble", {"reward_models": ["r"]}, "scorers[0].reward_models: has one member; an ensemble has two or more"),
        ("ensemble", {"reward_models": ["r", "r"]}, "names r twice"),
        ("ensemble", {"uncertainty_penalty": 0.5}, "has no effect without aggregate: lcb"),
        ("ensemble", {"aggregate": "min", "weight": -0.5}, "scorers[0].aggregate: min is pessimistic; with a negative"),
        ("ensemble", {"uncertainty_penalty": -1, "aggregate": "lcb"}, "must be at least 0"),
        ("function", {"function": "rules.score"}, "scorers[0].function: must be module:function, found 'rules.score'"),
        ("function", {"url": "http://h/"}, "scorers[0].url: does not belong to a scorer of kind function"),
        ("http", {"url": None}, "scorers[0]: a scorer of kind http needs url"),
        ("http", {"url": "localhost:8000"}, "must be an address such as http://localhost:8000/score, found 'localhost"),
        ("http", {"timeout_seconds": 0}, "must be greater than 0"),
        ("http", {"max_retrys": 0}, "no such key; did you mean max_retries?"),
        ("judge", {"judge": None}, "scorers[0]: a scorer of kind judge needs judge, a mapping"),
        ("judge", {"judge": {"kind": "openai"}}, "scorers[0].judge: a judge of kind openai needs model"),
        ("judge", {"judge": RULES_JUDGE}, "scorers[0].judge.kind: a judge of kind rules compares two answers; write"),
        ("judge", {"judge": {"kind": "openai", "model": "m", "modell": 1}}, "scorers[0].judge.modell: no such key"),
        ("judge", {"max_concurrency": 0}, "must be greater than 0"),
        ("judge", {"max_retries": 0}, "scorers[0].max_retries: does not belong to a scorer of kind judge"),
    ],
)
def test_scorers_that_cannot_be(faults, kind, keys, message):
    found = faults("ppo", {"reward_model_path": None, "scorers": [{**SCORERS[kind], **keys}]})
    assert len(found) == 1, found
    assert message in found[0]


def test_scorers_have_different_names_and_do_not_read_the_output_folder(faults, tmp_path, monkeypatch):
    same = [SCORERS["http"], SCORERS["http"]]
    found = faults("ppo", {"reward_model_path": None, "scorers": same})
    assert len(found) == 1
    assert found[0].endswith(" scorers[1]: is called http, as scorers[0] is; give it a name of its own")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o" / "reward").mkdir(parents=True)
    inside = [{"kind": "ensemble", "reward_models": ["s", "o/reward"]}]
    found = faults("ppo", {"reward_model_path": None, "scorers": inside, "output_dir": "o"})
    assert "scorers[0].reward_models: o/reward lies in output_dir o, which the run writes" in found[0]


OF_SEVERAL = [
    ("evaluate", {"reward_model_path": "runs/a,runs/b"}, "[runs/a, runs/b]"),
    ("ppo", {"reward_model_path": "runs/a, runs/b"}, "the scorer {kind: ensemble, reward_models: [runs/a, runs/b]}"),
    ("label", {"judge": {"kind": "reward_model", "model_name_or_path": "a/x,b/y"}}, "[a/x, b/y]"),
    (
        "label",
        {
            "judge": {
                "kind": "jury",
                "members": [{"kind": "reward_model", "model_name_or_path": "a/x,b/y"}, RULES_JUDGE],
            }
        },
        "[a/x, b/y]",
    ),
    ("sft", {"model_name_or_path": "a/x,b/y"}, "name one"),
]


@pytest.mark.parametrize(("stage", "given", "remedy"), OF_SEVERAL)
def test_several_models_are_a_list_and_no_text_with_commas(faults, stage, given, remedy):
    (fault,) = faults(stage, given)
    assert "is one path, and does not exist; " in fault
    assert fault.endswith(remedy)


def test_each_of_several_models_is_an_input_and_guarded(faults, tmp_path):
    from alignment.config.input_paths import input_paths

    inside = tmp_path / "run" / "reward"
    inside.mkdir(parents=True)
    several = {"reward_model_path": ["runs/a", str(inside)], "output_dir": str(tmp_path / "run")}
    (fault,) = faults("evaluate", several)
    assert f"{inside} lies in output_dir" in fault
    judge = {"kind": "reward_model", "model_name_or_path": ["runs/a", str(inside)]}
    (fault,) = faults("label", {"judge": judge, "output_dir": str(tmp_path / "run")})
    assert f"{inside} lies in output_dir" in fault
    path = write(tmp_path, yaml.safe_dump({"stage": "label", **MINIMAL["label"], "judge": judge}))
    assert {"runs/a", str(inside)} <= set(input_paths(check_recipe(path)))


def test_no_models_are_refused(faults):
    (fault,) = faults("evaluate", {"reward_model_path": []})
    assert "reward_model_path" in fault


def test_null_for_a_key_of_another_kind_is_ignored(faults):
    scorers = [{"kind": "function", "function": "a:b", "reward_models": None}]
    assert faults("ppo", {"reward_model_path": None, "scorers": scorers}) == []


def test_a_recipe_that_an_earlier_version_resolved_is_read(faults):
    """A judge had the keys of all kinds then."""
    judge = {**RULES_JUDGE, "members": [], "path": None, "model": None, "samples": 1, "asks": "pairwise"}
    assert faults("evaluate", {"judges": [judge]}) == []
