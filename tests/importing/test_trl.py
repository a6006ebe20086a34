"""Recipes of TRL's scripts and of the alignment-handbook, written after their configuration classes."""

import pytest

from alignment.errors import RecipeError
from alignment.importing.command import convert, import_file
from alignment.importing.conversion import Options
from alignment.importing.writing import recipe_text
from tests.importing.cases import Case, imported, require

HEAD = "model_name_or_path: some/model\noutput_dir: out\n"
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"


def case(stage, text, batch, recipe, **more):
    return Case(HEAD + text, stage, batch, recipe, **more)


CASES = {
    "sft, defaults": case(
        "sft",
        "dataset_name: someone/talks\ndataset_text_field: text\n",
        8,
        {
            "datasets": [{"path": "someone/talks"}], "peft_method": "full", "dtype": "float32", "max_length": 1024,
            "learning_rate": 2e-5, "num_train_epochs": 3.0, "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1, "lr_scheduler_type": "linear", "bf16": True,
            "gradient_checkpointing": True, "seed": 42, "save_total_limit": None,
        },
        absent=("eval_datasets", "lora_r", "load_in_4bit"),
        dropped=("dataset_text_field",),
    ),
    "sft, evaluated": case(
        "sft",
        "dataset_name: someone/talks\ndataset_config: en\ndataset_train_split: train_sft\n"
        "dataset_test_split: test_sft\n"
        "eval_strategy: steps\neval_steps: 100\npacking: true\nmax_seq_length: 4096\nper_device_train_batch_size: 4\n"
        "gradient_accumulation_steps: 8\nwarmup_ratio: 0.1\nlr_scheduler_type: cosine\nnum_train_epochs: 1\n"
        "torch_dtype: bfloat16\nattn_implementation: flash_attention_2\n",
        256,
        {
            "datasets": [{"path": "someone/talks", "name": "en", "split": "train_sft"}],
            "eval_datasets": [{"path": "someone/talks", "name": "en", "split": "test_sft"}],
            "packing": True, "max_length": 4096, "warmup_steps": 0.1, "dtype": "bfloat16", "eval_steps": 100,
            "attn_implementation": "flash_attention_2",
        },
        options=Options(processes=8),
    ),
    "sft, lora": case(
        "sft",
        "dataset_name: someone/talks\nuse_peft: true\nlora_target_modules: all-linear\npacking: false\n",
        8,
        {"peft_method": "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05,
         "lora_target_modules": "all-linear", "use_rslora": False, "packing": False},
    ),
    "sft, peft's targets": case(
        "sft", "dataset_name: someone/talks\nuse_peft: true\npacking: false\n", 8,
        {"lora_target_modules": ["q_proj", "v_proj"]},
    ),
    "sft, qlora": case(
        "sft",
        "dataset_name: someone/talks\nuse_peft: true\nload_in_4bit: true\nlora_r: 64\nlora_alpha: 16\npacking: false\n"
        "lora_target_modules:\n- q_proj\n- k_proj\nlora_modules_to_save: [lm_head]\ndtype: bfloat16\n",
        8,
        {"load_in_4bit": True, "use_bnb_nested_quant": False, "bnb_4bit_quant_type": "nf4", "lora_r": 64,
         "lora_alpha": 16, "lora_target_modules": ["q_proj", "k_proj"], "lora_modules_to_save": ["lm_head"]},
    ),
    "sft, eight bits": case(
        "sft",
        "dataset_name: someone/talks\nuse_peft: true\nload_in_8bit: true\nbnb_4bit_quant_type: nf4\npacking: false\n",
        8,
        {"load_in_8bit": True, "peft_method": "lora"}, absent=("load_in_4bit",), dropped=("bnb_4bit_quant_type",),
    ),
    "sft, dora": case(
        "sft", "dataset_name: someone/talks\nuse_peft: true\nuse_dora: true\nuse_rslora: true\npacking: false\n", 8,
        {"peft_method": "dora", "use_rslora": True},
    ),
    "sft, a list of data": case(
        "sft",
        "datasets:\n- path: a/b\n  name: en\n  split: train[:90%]\n  columns: [messages]\n  fraction: 0.8\n"
        "- path: json\n  data_files: more.jsonl\n  fraction: 0.2\ntest_split_size: 0.05\neval_strategy: epoch\n"
        "assistant_only_loss: true\nuse_peft: false\n",
        8,
        {
            "datasets": [
                {"path": "a/b", "name": "en", "split": "train[:90%]", "columns": ["messages"], "fraction": 0.8},
                {"path": "json", "data_files": "more.jsonl", "fraction": 0.2},
            ],
            "test_split_size": 0.05, "eval_strategy": "epoch",
        },
        dropped=("assistant_only_loss",),
    ),
    "sft, the handbook's mixture": case(
        "sft",
        "dataset_mixture:\n  datasets:\n"
        "  - {id: a/b, config: default, split: train_sft, columns: [messages], weight: 1.0}\n"
        "  - {id: c/d, weight: 0.25}\n  - {id: e/f, weight: 0.001}\n"
        "  test_split_size: 1000\n  seed: 0\neval_strategy: epoch\nmax_seq_length: 2048\n"
        f"chat_template: \"{TEMPLATE}\"\neos_token: <|end|>\ndataset_num_proc: 12\npush_to_hub: true\n"
        f"hub_model_id: x/y\n"
        "use_liger_kernel: true\ntrust_remote_code: true\ngradient_checkpointing_kwargs: {use_reentrant: false}\n",
        8,
        {
            "datasets": [
                {"path": "a/b", "split": "train_sft[1000:]", "columns": ["messages"]},
                {"path": "c/d", "split": "train[:25%]"},
                {"path": "e/f", "split": "train[:0.1%]"},
            ],
            "eval_datasets": [{"path": "a/b", "split": "train_sft[:1000]", "columns": ["messages"]}],
            "max_length": 2048, "chat_template": TEMPLATE, "eos_token": "<|end|>", "dataset_num_proc": 12,
        },
        absent=("trust_remote_code", "push_to_hub", "hub_model_id", "use_liger_kernel"),
        dropped=("push_to_hub", "hub_model_id", "use_liger_kernel", "trust_remote_code"),
    ),
    "sft, values of its template": case(
        "sft", f"dataset_name: a/b\npacking: true\nchat_template_kwargs: {{enable_thinking: false, style: short}}\n"
        f"chat_template: \"{TEMPLATE}\"\n", 8,
        {"chat_template": "{% set enable_thinking = false %}{% set style = 'short' %}" + TEMPLATE},
    ),
    "sft, texts of a column": case(
        "sft", "dataset_name: a/books\ndataset_text_field: chapter\n", 8,
        {"datasets": [{"path": "a/books", "format": "text", "columns": {"text": "chapter"}}]},
    ),
    "dpo, the handbook's mixer": case(
        "dpo",
        "dataset_mixer:\n  a/b: 1.0\n  c/d: 0.5\ndataset_splits: [train_prefs, test_prefs]\nbeta: 0.01\n"
        "use_peft: true\n"
        "lora_dropout: 0.05\nlora_target_modules: [q_proj]\neval_strategy: steps\nmax_prompt_length: 512\n"
        "optim: adamw_torch\n",
        8,
        {
            "datasets": [{"path": "a/b", "split": "train_prefs"}, {"path": "c/d", "split": "train_prefs[:50%]"}],
            "eval_datasets": [{"path": "a/b", "split": "test_prefs"}, {"path": "c/d", "split": "test_prefs"}],
            "beta": 0.01, "lora_dropout": 0.0, "learning_rate": 1e-6, "max_length": 1024, "on_bad_row": "skip",
        },
        dropped=("max_prompt_length", "lora_dropout"),
    ),
    "dpo, losses": case(
        "dpo",
        "dataset_name: a/pairs\nloss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.2]\nlearning_rate: 5.0e-7\n"
        "precompute_ref_log_probs: true\nmax_length: null\n",
        8,
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "learning_rate": 5e-7, "beta": 0.1,
         "precompute_ref_log_probs": True, "max_length": None},
    ),
    "dpo, apo": case("dpo", "dataset_name: a/pairs\nloss_type: apo_zero\nbeta: 0.05\nmax_steps: 500\n", 8,
                     {"loss_type": "apo_zero", "beta": 0.05, "max_steps": 500}),
    "orpo": Case(
        "model_name_or_path: some/model\noutput_dir: data/zephyr-orpo\ndataset_name: a/pairs\nbeta: 0.05\n", "dpo", 8,
        {"loss_type": "orpo", "beta": 0.05},
    ),
    "kto": case("kto", "dataset_name: a/thumbs\nloss_type: kto\ndesirable_weight: 1.2\n", 8,
                {"desirable_weight": 1.2, "undesirable_weight": 1.0, "beta": 0.1, "loss_type": "kto"}),
    "reward": case("reward", "dataset_name: a/pairs\ncenter_rewards_coefficient: 0.01\nuse_peft: true\n"
                   "lora_task_type: SEQ_CLS\n", 8,
                   {"center_rewards_coefficient": 0.01, "learning_rate": 1e-4, "max_length": 1024, "bf16": True},
                   dropped=("lora_task_type",)),
    "grpo": case(
        "grpo",
        "dataset_name: a/prompts\nreward_funcs: [rewards.short, org/reward-model]\nreward_weights: [0.5, 1.0]\n"
        "num_generations: 4\nmax_completion_length: 128\nper_device_train_batch_size: 4\n"
        "gradient_accumulation_steps: 2\n"
        "max_steps: 50\nbeta: 0.04\nloss_type: dr_grpo\ntemperature: 0.9\n",
        16,
        {
            "scorers": [
                {"kind": "function", "name": "short", "function": "rewards:short", "weight": 0.5},
                {"kind": "reward_model", "model_name_or_path": "org/reward-model", "weight": 1.0},
            ],
            "rollout_batch_size": 16, "num_generations": 4, "max_new_tokens": 128, "total_episodes": 800, "beta": 0.04,
            "loss_type": "dr_grpo", "learning_rate": 1e-6, "temperature": 0.9,
        },
        absent=("max_steps", "num_train_epochs", "gradient_accumulation_steps"),
        options=Options(processes=2),
    ),
    "grpo, vllm and several steps": case(
        "grpo",
        "dataset_name: a/prompts\nreward_funcs: org/reward-model\nper_device_train_batch_size: 8\nuse_vllm: true\n"
        "vllm_mode: server\nvllm_server_host: 10.0.0.1\nvllm_server_port: 9000\nsteps_per_generation: 4\n"
        "gradient_accumulation_steps: 2\nnum_iterations: 2\nnum_train_epochs: 2\n",
        16,
        {"rollout_engine": "vllm", "vllm_mode": "server", "vllm_server_base_url": "http://10.0.0.1:9000",
         "rollout_batch_size": 32, "num_mini_batches": 2, "num_iterations": 2, "total_episodes": 1600,
         "importance_sampling_cap": 3.0},
        options=Options(rows=100),
    ),
    "grpo, whose sampling is not corrected": case(
        "grpo", "dataset_name: a/prompts\nreward_funcs: r.f\nmax_steps: 2\nuse_vllm: true\n"
        "vllm_importance_sampling_correction: false\nvllm_importance_sampling_mode: token_truncate\n", 8,
        {"importance_sampling_cap": None}, dropped=("vllm_importance_sampling_mode",),
    ),
    "rloo": Case(
        "model_name_or_path: m\noutput_dir: out/rloo\ndataset_name: a/prompts\nreward_funcs: r.f\nmax_steps: 10\n"
        "normalize_advantages: true\nnum_generations: 4\nepsilon: 0.1\nper_device_train_batch_size: 8\n",
        "rloo", 8,
        {"num_generations": 4, "normalize_advantages": True, "beta": 0.05, "max_new_tokens": 512, "epsilon": 0.1,
         "total_episodes": 80, "rollout_batch_size": 8},
    ),
    "ppo": case(
        "ppo",
        "dataset_name: a/prompts\nsft_model_path: my/sft\nreward_model_path: my/reward\nnum_ppo_epochs: 2\n"
        "num_mini_batches: 2\nper_device_train_batch_size: 16\ngradient_accumulation_steps: 4\ntotal_episodes: 10000\n"
        "response_length: 64\nstop_token: eos\nmissing_eos_penalty: 1.0\nkl_coef: 0.03\n",
        32,
        {
            "model_name_or_path": "my/sft", "reward_model_path": "my/reward", "rollout_batch_size": 64,
            "num_mini_batches": 2, "total_episodes": 10_000, "max_new_tokens": 64, "missing_eos_penalty": 1.0,
            "kl_coef": 0.03, "cliprange": 0.2, "cliprange_high": 0.2, "dual_clip": None, "temperature": 0.7,
            "learning_rate": 3e-6, "value_model": "model", "value_model_path": "my/reward", "num_ppo_epochs": 2,
            "lam": 0.95, "lam_value": 0.95,
        },
        dropped=("stop_token", "model_name_or_path"),
    ),
    "sft, older keys of the trainer": case(
        "sft", "dataset_name: a/b\npacking: false\ngroup_by_length: true\nper_gpu_train_batch_size: 2\n"
        "half_precision_backend: auto\ndeepspeed: plan.json\n", 2,
        {"train_sampling_strategy": "group_by_length"},
        absent=("deepspeed",),
        dropped=("half_precision_backend", "deepspeed"),
        files={"plan.json": '{"zero_optimization": {"stage": 2}}'},
    ),
    "grpo, rewards of the script": case(
        "grpo", "dataset_name: a/b\nnum_generations: 4\nmax_steps: 3\n", 8,
        {"scorers": [{"kind": "function", "name": "reward", "function": "rewards:reward", "weight": 1.0}]},
    ),
    "sft, two warm-ups": case(
        "sft", "dataset_name: a/b\npacking: true\nmax_seq_length: 2048\nwarmup_steps: 10\nwarmup_ratio: 0.1\n", 8,
        {"warmup_steps": 10, "max_length": 2048},
        dropped=("warmup_ratio",),
    ),
    "dpo, rows of any length and a reference that moves": case(
        "dpo",
        "dataset_name: a/b\nloss_weights: [1.0, 0.5]\nloss_type: [sigmoid, sft]\nmax_length: null\n"
        "sync_ref_model: true\nref_model_sync_steps: 64\ndisable_dropout: true\nmax_completion_length: 256\n",
        8,
        {"max_length": None, "sync_ref_model": True, "ref_model_sync_steps": 64, "loss_weights": [1.0, 0.5]},
        dropped=("disable_dropout", "max_completion_length"),
    ),
    "reward, without dropout": case(
        "reward", "dataset_name: a/b\nuse_peft: true\nlora_dropout: 0.1\nmax_pairs: 1\n", 8, {"lora_dropout": 0.0},
        dropped=("lora_dropout",),
    ),
    "reward, with dropout": case(
        "reward",
        "dataset_name: a/b\nuse_peft: true\nlora_dropout: 0.1\nmax_pairs: 1\ndisable_dropout: false\n", 8,
        {"lora_dropout": 0.1},
        dropped=("disable_dropout",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_keeps_its_meaning(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    require(tmp_path, CASES[name], "trl")


REFUSED = {
    "load_in_8bit": "dataset_name: a/b\nuse_peft: true\nload_in_8bit: true\nload_in_4bit: true\npacking: true\n",
    "completion_only_loss": "dataset_name: a/b\ncompletion_only_loss: false\n",
    "chat_template_path": "dataset_name: a/b\nchat_template_path: other/model\npacking: true\n",
    "ref_model_init_kwargs": "dataset_name: a/b\nbeta: 0.1\nref_model_init_kwargs: {dtype: auto}\n",
    "whiten_rewards": "dataset_name: a/b\nsft_model_path: m\nreward_model_path: r\nwhiten_rewards: true\n"
    "total_episodes: 100\n",
    "num_train_epochs": "dataset_name: a/b\nreward_funcs: r.f\n",
    "deepspeed": "dataset_name: a/b\npacking: true\ndeepspeed: absent.json\n",
    "sync_ref_model": "dataset_name: a/b\nreward_funcs: r.f\nmax_steps: 3\nsync_ref_model: true\n",
    "loss_type": "dataset_name: a/b\nloss_type: kto_pair\nbeta: 0.1\n",
    "chat_template_kwargs": "dataset_name: a/b\nreward_funcs: r.f\nmax_steps: 3\n"
    "chat_template_kwargs: {enable_thinking: false}\n",
    "learning_rte": "dataset_name: a/b\npacking: true\nlearning_rte: 1.0\n",
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_changes_training_and_is_not_here_is_refused(tmp_path, key):
    conversion = imported(tmp_path, case("sft", REFUSED[key], 8, {}), "trl")
    (outcome,) = [each for each in conversion.outcomes if each.fate == "refused"]
    assert outcome.key == key


def test_the_stage_is_found_by_keys_then_by_the_path_and_else_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = HEAD + "dataset_name: a/b\nlearning_rate: 1.0e-4\n"
    (tmp_path / "dpo").mkdir()
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "dpo/config_full.yaml").write_text(text, encoding="utf-8")
    assert convert("dpo/config_full.yaml", None, Options()).stage == "dpo"
    with pytest.raises(RecipeError, match=r"x.yaml: its keys do not decide"):
        convert("x.yaml", None, Options())
    assert convert("x.yaml", None, Options(stage="reward")).stage == "reward"
    (tmp_path / "x.yaml").write_text("# Use it so: `trl kto --config x.yaml`\n" + text, encoding="utf-8")
    assert convert("x.yaml", None, Options()).stage == "kto"


def test_rewards_that_the_file_lacks_are_left_to_the_user_and_epochs_ask_for_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = HEAD + "dataset_name: a/b\nnum_generations: 4\n"
    (tmp_path / "x.yaml").write_text(text + "max_steps: 3\n", encoding="utf-8")
    (tmp_path / "y.yaml").write_text(text, encoding="utf-8")
    lines: list[str] = []
    out = import_file("x.yaml", None, Options(), tmp_path, lines.append)
    assert "# set by you: the rewards are not in the file" in out.read_text()
    assert any(line.startswith("set by you  reward_funcs") for line in lines)
    with pytest.raises(RecipeError, match=r"give --rows N$"):
        import_file("y.yaml", None, Options(), tmp_path, lines.append)


SCRIPTS = {  # file → the rest of its text, and the stage
    "kto.yaml": ("beta: 0.2\n", "kto"),
    "mixed/kto/dpo.yaml": ("beta: 0.2\n", "dpo"),
    "a.yaml": ("beta: 0.2\nhub_model_id: me/model-kto\n", "kto"),
    "b.yaml": ("beta: 0.2\n", "dpo"),
    "grpo_math.yaml": ("beta: 0.04\nuse_vllm: true\n", "grpo"),
    "c.yaml": ("beta: 0.04\nloss_type: dr_grpo\n", "grpo"),
    "sft/d.yaml": ("beta: 0.1\nmax_completion_length: 64\n", "grpo"),
    "kto/e.yaml": ("beta: 0.1\nmax_completion_length: 64\n", "kto"),
    "f.yaml": ("loss_type: dft\n", "sft"),
    "g.yaml": ("learning_rate: 1.0e-4\nrun_name: small-sft\n", "sft"),
    "h.yaml": ("# reward_config.yaml\nnum_processes: 4\n", "reward"),
    "i.yaml": ("# trl rloo --config i.yaml\nreward_funcs: [r.f]\n", "rloo"),
    "j.yaml": ("# rloo_config.yaml\nreward_funcs: [r.f]\n", "rloo"),
    "dpo/k.yaml": ("# kto_config.yaml\nbeta: 0.1\n", "kto"),
    "l.yaml": ("reward_funcs: [r.f]\noutput_dir: out/rloo\n", "rloo"),
    "m.yaml": ("# needs zero3.yaml, as sft.yaml\nbeta: 0.1\n", "dpo"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_keys_of_several_scripts_leave_the_choice_to_names(tmp_path, name):
    text, stage = SCRIPTS[name]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(f"model_name_or_path: m\ndataset_name: a/b\n{text}", encoding="utf-8")
    assert convert(str(tmp_path / name), None, Options()).stage == stage


def test_another_mode_of_correcting_the_sampling_is_told(tmp_path):
    text = HEAD + "dataset_name: a/prompts\nreward_funcs: r.f\nmax_steps: 2\nuse_vllm: true\n"
    assert "TRL's is sequence_mask" in recipe_text(imported(tmp_path, Case(text, "grpo", 8, {}), "trl"))


def test_a_stage_that_does_not_train_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(HEAD + "dataset_name: a/b\n", encoding="utf-8")
    for stage in ("label", "stf"):
        with pytest.raises(RecipeError, match=f"--stage {stage}: must be one of pretrain, sft, reward, dpo"):
            convert("x.yaml", None, Options(stage=stage))


def test_json_is_read_as_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text('{\n\t"model_name_or_path": "m",\n\t"dataset_name": "a/b",\n\t"packing": true\n}')
    assert convert("x.json", None, Options()).recipe["packing"] is True


@pytest.mark.parametrize("name", ["x.conf", "recipe", "x.JSON"])
def test_json_is_found_by_its_text(tmp_path, name):
    (tmp_path / name).write_text('{\n\t"model_name_or_path": "m",\n\t"dataset_name": "a/b",\n\t"packing": true\n}')
    assert convert(str(tmp_path / name), None, Options()).recipe["packing"] is True


def test_the_processes_of_the_file_are_those_of_the_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = HEAD + "dataset_name: a/b\nreward_funcs: r.f\nmax_steps: 3\nnum_processes: 4\n"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    lines: list[str] = []
    import_file("x.yaml", None, Options(), tmp_path, lines.append)
    assert lines[-1].endswith("stage grpo, 32 rows a step on 4 process(es)")  # 8 on each of 4
    assert convert("x.yaml", None, Options(processes=2)).recipe["rollout_batch_size"] == 16


@pytest.mark.parametrize(
    ("value", "told"),
    [("zero2", "zero2"), ("fsdp1", "fsdp2"), ("multi_gpu", "ddp"), ("own.yaml", "zero3-offload"), ("other", None)],
)
def test_a_configuration_of_accelerate_is_a_strategy(tmp_path, monkeypatch, value, told):
    monkeypatch.chdir(tmp_path)
    own = "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3, offload_param_device: cpu}\n"
    (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
    (tmp_path / "x.yaml").write_text(HEAD + f"dataset_name: a/b\npacking: true\naccelerate_config: {value}\n")
    (outcome,) = [each for each in convert("x.yaml", None, Options()).outcomes if each.key == "accelerate_config"]
    assert outcome.fate == ("dropped" if told else "refused")
    assert outcome.reason.endswith(f"--strategy {told}" if told else "--strategy")


def test_a_list_of_data_sets_is_of_trl_alone(tmp_path):
    text = HEAD + "datasets:\n  - path: a/b\n  - path: c/d\n"
    (tmp_path / "kto_config.yaml").write_text(text, encoding="utf-8")
    conversion = convert(str(tmp_path / "kto_config.yaml"), None, Options())
    assert (conversion.peer.name, conversion.stage) == ("trl", "kto")


def test_numbers_in_quotes_are_numbers_and_names_stay_names(tmp_path):
    text = HEAD + "dataset_name: a/b\npacking: true\nlearning_rate: '2e-5'\nper_device_train_batch_size: '4'\n"
    (tmp_path / "x.yaml").write_text(text + "run_name: '7'\nmodel_revision: '123'\n", encoding="utf-8")
    recipe = convert(str(tmp_path / "x.yaml"), None, Options()).recipe
    assert (recipe["learning_rate"], recipe["per_device_train_batch_size"]) == (2e-5, 4)
    assert (recipe["run_name"], recipe["model_revision"]) == ("7", "123")
