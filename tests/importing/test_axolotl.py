"""axolotl's recipes, written after its schemas."""

import pytest
import yaml

from alignment.importing.conversion import Options
from alignment.importing.writing import recipe_text
from tests.importing.cases import Case, imported, rendered, require

HEAD = "base_model: some/model\nlearning_rate: 0.0002\n"
ALPACA = "datasets:\n  - path: a/tasks\n    type: alpaca\n"
CHAT = "datasets:\n  - path: a/talks\n    type: chat_template\n"
PAIRS = "datasets:\n  - path: a/pairs\n    split: train\n    type: "


def case(stage, text, batch, recipe, **more):
    return Case(HEAD + text, stage, batch, recipe, **more)


CASES = {
    "defaults": case(
        "sft",
        CHAT,
        1,
        {
            "datasets": [{"path": "a/talks", "format": "messages"}], "peft_method": "full", "dtype": "bfloat16",
            "bf16": True, "max_length": 512, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1,
            "num_train_epochs": 1.0, "lr_scheduler_type": "cosine", "warmup_steps": 0.03,
            "optim": "adamw_torch_fused", "weight_decay": 0.0, "gradient_checkpointing": False, "packing": False,
            "save_strategy": "epoch", "save_total_limit": 4, "seed": 42, "output_dir": "./model-out",
        },
        absent=("eval_strategy", "test_split_size", "chat_template", "lora_r"),
    ),
    "alpaca": case("sft", ALPACA, 1,
                   {"datasets": [{"path": "a/tasks", "format": "stanford_alpaca"}], "chat_template": "alpaca"}),
    "qlora": case(
        "sft",
        ALPACA + "adapter: qlora\nload_in_4bit: true\nlora_r: 32\nlora_alpha: 16\nlora_dropout: 0.05\n"
        "lora_target_linear: true\nmicro_batch_size: 2\ngradient_accumulation_steps: 4\noptimizer: paged_adamw_32bit\n"
        "gradient_checkpointing: true\ngradient_checkpointing_kwargs: {use_reentrant: true}\n"
        "attn_implementation: sdpa\n"
        "special_tokens:\n  pad_token: <|pad|>\nwarmup_steps: 10\ntf32: false\n",
        16,
        {
            "peft_method": "lora", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True,
            "lora_r": 32, "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_modules": "all-linear",
            "optim": "paged_adamw_32bit", "warmup_steps": 10, "attn_implementation": "sdpa",
        },
        dropped=("special_tokens", "gradient_checkpointing_kwargs", "tf32"),
        options=Options(processes=2),
    ),
    "eight bits": case(
        "sft",
        CHAT + "adapter: lora\nlora_r: 8\nlora_alpha: 16\nload_in_8bit: true\nload_in_4bit: false\n"
        "bnb_config_kwargs: {bnb_4bit_quant_type: fp4}\nbf16: auto\n",
        1,
        {"peft_method": "lora", "load_in_8bit": True, "dtype": "bfloat16"},
        absent=("load_in_4bit", "bnb_4bit_quant_type"),
        dropped=("bnb_config_kwargs",),
    ),
    "lora": case(
        "sft",
        CHAT + "adapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]\n"
        "lora_modules_to_save: [embed_tokens, lm_head]\npeft_use_rslora: true\nloraplus_lr_ratio: 16\n"
        "peft_layers_to_transform: [0, 1]\nload_in_8bit: false\nbf16: false\n",
        1,
        {"lora_target_modules": ["q_proj", "v_proj"], "lora_modules_to_save": ["embed_tokens", "lm_head"],
         "use_rslora": True, "loraplus_lr_ratio": 16, "peft_config": {"layers_to_transform": [0, 1]}, "bf16": False,
         "lora_dropout": 0.0, "dtype": "float32"},
        absent=("load_in_4bit",),
    ),
    "dora": case("sft", CHAT + "adapter: lora\nlora_r: 8\nlora_alpha: 16\npeft_use_dora: true\n"
    "lora_target_linear: true\n",
                 1, {"peft_method": "dora"}),
    "cadence": case(
        "sft",
        CHAT + "num_epochs: 4\nval_set_size: 0.05\nevals_per_epoch: 4\nsaves_per_epoch: 2\nlogging_steps: 1\n"
        "wandb_project: talks\nwandb_name: first\nwandb_entity: us\nwandb_run_id: x1\nmicro_batch_size: 8\n",
        8,
        {"test_split_size": 0.05, "eval_strategy": "steps", "eval_steps": 0.0625, "save_strategy": "steps",
         "save_steps": 0.125, "num_train_epochs": 4.0, "per_device_eval_batch_size": 8, "report_to": ["wandb"],
         "project": "talks", "run_name": "first"},
        dropped=("wandb_entity", "wandb_run_id"),
    ),
    "once an epoch": case(
        "sft", CHAT + "val_set_size: 0.1\nevals_per_epoch: 1\nsaves_per_epoch: 1\n", 1,
        {"eval_strategy": "epoch", "save_strategy": "epoch"}, absent=("eval_steps", "save_steps"),
    ),
    "the best model": case(
        "sft",
        CHAT + "val_set_size: 0.1\neval_steps: 50\nearly_stopping_patience: 3\n",
        1,
        {"eval_strategy": "steps", "eval_steps": 50, "save_strategy": "steps", "save_steps": 50,
         "load_best_model_at_end": True, "early_stopping_patience": 3},
    ),
    "the best of an epoch's parts": case(
        "sft",
        CHAT + "val_set_size: 0.1\nnum_epochs: 2\nsaves_per_epoch: 1\nevals_per_epoch: 2\n"
        "load_best_model_at_end: true\n",
        1,
        {"eval_strategy": "steps", "eval_steps": 0.25, "save_strategy": "steps", "save_steps": 0.5,
         "load_best_model_at_end": True},
    ),
    "no best model without a multiple": case(
        "sft", CHAT + "val_set_size: 0.1\neval_steps: 50\nsave_steps: 70\nload_best_model_at_end: true\n", 1,
        {"eval_steps": 50, "save_steps": 70}, absent=("load_best_model_at_end",), dropped=("load_best_model_at_end",),
    ),
    "rows in order": case("sft", CHAT + "curriculum_sampling: true\n", 1, {"train_sampling_strategy": "sequential"}),
    "joined rows are shuffled once": case(
        "sft", CHAT + "  - path: a/more\n    type: chat_template\ncurriculum_sampling: true\n", 1, {},
        absent=("train_sampling_strategy",), dropped=("curriculum_sampling",),
    ),
    "an order that the sampler shuffles": case(
        "sft", CHAT + "shuffle_merged_datasets: false\n", 1, {}, absent=("train_sampling_strategy",),
        dropped=("shuffle_merged_datasets",),
    ),
    # 0.03 * 10,000 = 300 steps, of which axolotl takes 100
    "warm-up by default": case("sft", CHAT + "max_steps: 10000\n", 1, {"warmup_steps": 100}),
    # 4,000 rows, 3 epochs, batches of 2 * 5: 1,200 steps; 0.03 * 1,200 = 36
    "warm-up by the rows": case("sft", CHAT + "num_epochs: 3\nmicro_batch_size: 2\n", 10, {"warmup_steps": 36},
                                options=Options(processes=5, rows=4000)),
    "a warm-up of one step is two": case("sft", CHAT + "warmup_steps: 1\n", 1, {"warmup_steps": 2}),
    "texts have no prompts to leave out": case(
        "pretrain", "pretraining_dataset:\n  - path: a/books\nmax_steps: 9\ntrain_on_inputs: true\n", 1, {},
        dropped=("train_on_inputs",),
    ),
    "eight bits beside float16": case(
        "sft", CHAT + "adapter: lora\nlora_r: 8\nlora_alpha: 16\nload_in_8bit: true\nbf16: false\n", 1,
        {"load_in_8bit": True, "dtype": "float16", "bf16": False},
    ),
    "documents that are streamed": case(
        "pretrain", "pretraining_dataset:\n  - path: a/web\n    name: en\nmax_steps: 9\nsample_packing: true\n", 1,
        {"streaming": True, "shuffle_buffer_size": 10_000, "max_steps": 9, "packing": True},
    ),
    "documents in order": case(
        "pretrain", "pretraining_dataset:\n  - path: a/web\nmax_steps: 9\nshuffle_merged_datasets: false\n", 1,
        {"streaming": True, "shuffle_buffer_size": 1},
    ),
    "documents that are read whole": case(
        "pretrain", "pretraining_dataset:\n  - path: a/web\nnum_epochs: 2\n", 1, {"num_train_epochs": 2.0},
        absent=("streaming", "shuffle_buffer_size"),
    ),
    "documents that are joined": case(
        "pretrain",
        "pretraining_dataset:\n  - path: a/books\nmax_steps: 9\npretraining_sample_concatenation: true\n", 1,
        {"packing": True},
    ),
    "experts without a loss of their own": case("sft", CHAT, 1, {"router_aux_loss_coef": 0.0}),
    "experts with the model's coefficient": case(
        "sft", CHAT + "model_config: {output_router_logits: true}\n", 1, {}, absent=("router_aux_loss_coef",),
    ),
    "nothing to evaluate on": case("sft", CHAT + "val_set_size: 0\nevals_per_epoch: 4\n", 1, {},
                                   absent=("eval_strategy", "eval_steps"), dropped=("evals_per_epoch",)),
    "rows held out": case(
        "sft", CHAT + "val_set_size: 100\neval_strategy: epoch\n", 1,
        {"datasets": [{"path": "a/talks", "format": "messages", "split": "train[100:]"}],
         "eval_datasets": [{"path": "a/talks", "format": "messages", "split": "train[:100]"}]},
    ),
    "an older batch": case("sft", CHAT + "batch_size: 32\nmicro_batch_size: 4\n", 32,
                           {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}),
    "packing and length": case(
        "sft",
        CHAT + "sequence_len: 8192\nsample_packing: true\neval_sample_packing: false\npad_to_sequence_len: true\n"
        "group_by_length: false\ncosine_min_lr_ratio: 0.1\nneftune_noise_alpha: 5\n",
        1,
        {"max_length": 8192, "packing": True, "eval_packing": False, "lr_scheduler_type": "cosine_with_min_lr",
         "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "neftune_noise_alpha": 5},
        dropped=("pad_to_sequence_len", "cosine_min_lr_ratio"),
    ),
    "mapped conversations": case(
        "sft",
        "chat_template: chatml\ndatasets:\n  - path: a/talks\n    name: en\n    split: train[:20%]\n"
        "    type: chat_template\n    field_messages: conversations\n    roles_to_train: [assistant]\n"
        "    train_on_eos: turn\n    message_property_mappings: {role: from, content: value}\n"
        "    roles: {user: [human], assistant: [gpt]}\n  - path: data/more.jsonl\n    ds_type: json\n"
        "    type: chat_template\n    field_messages: turns\ntest_datasets:\n  - path: a/talks\n    split: test\n"
        "    type: chat_template\neot_tokens: [<|im_end|>]\nspecial_tokens: {eos_token: <|im_end|>}\n",
        1,
        {
            "datasets": [
                {"path": "a/talks", "name": "en", "split": "train[:20%]", "format": "sharegpt"},
                {"path": "data/more.jsonl", "format": "messages", "columns": {"messages": "turns"}},
            ],
            "eval_datasets": [{"path": "a/talks", "split": "test", "format": "messages"}],
            "chat_template": "chatml", "eos_token": "<|im_end|>", "eval_strategy": "no",
        },
        dropped=("eot_tokens",),
    ),
    "a template of its own": case(
        "sft", CHAT + "chat_template: jinja\n"
        "chat_template_jinja: \"{% for m in messages %}{{ m.content }}{% endfor %}\"\n", 1,
        {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
    ),
    "full, sharded": case(
        "sft",
        CHAT + "deepspeed: deepspeed_configs/zero3_bf16_cpuoffload_all.json\nfsdp_config: null\n"
        "plugins: [axolotl.integrations.liger.LigerPlugin]\nliger_rope: true\nmax_steps: 100\n"
        "optimizer: adamw_torch_8bit\n",
        1,
        {"peft_method": "full", "max_steps": 100, "optim": "adamw_bnb_8bit"},
        absent=("deepspeed",),
        dropped=("deepspeed", "plugins", "liger_rope"),
    ),
    "raw text": case(
        "pretrain",
        "datasets:\n  - path: a/books\n    type: completion\n    field: chapter\nsample_packing: true\n"
        "sequence_len: 1024\n",
        1,
        {"datasets": [{"path": "a/books", "format": "text", "columns": {"text": "chapter"}}], "packing": True,
         "peft_method": "full", "max_length": 1024},
    ),
    "streamed text": case(
        "pretrain",
        "pretraining_dataset:\n  - path: a/web\n    name: en\n    type: pretrain\n    text_column: content\n"
        "max_steps: 1000\nmicro_batch_size: 4\n",
        4,
        {"datasets": [{"path": "a/web", "name": "en", "format": "text", "columns": {"text": "content"}}],
         "max_steps": 1000},
    ),
    "dpo": case(
        "dpo",
        PAIRS + "chat_template.default\n    field_messages: conversation\nrl: dpo\nrl_beta: 0.2\nadapter: lora\n"
        "lora_r: 8\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_linear: true\n",
        1,
        {"datasets": [{"path": "a/pairs", "format": "sharegpt_dpo", "columns": {"messages": "conversation"}}],
         "loss_type": "sigmoid", "beta": 0.2, "lora_dropout": 0.0, "on_bad_row": "skip"},
        dropped=("lora_dropout",),
    ),
    "ipo of well-known columns": case(
        "dpo", PAIRS + "chatml.intel\nrl: ipo\n", 1,
        {"datasets": [{"path": "a/pairs", "format": "alpaca_preference", "columns": {"instruction": "question"}}],
         "loss_type": "ipo", "chat_template": "chatml", "beta": 0.1},
    ),
    "sft, a template of the data set": case(
        "sft", CHAT + "    chat_template: llama3\n", 1, {"chat_template": "llama3"},
    ),
    "sft, sharegpt as FastChat has it": case(
        "sft", "datasets:\n  - {path: a/b, type: sharegpt, conversation: chatml}\n", 1, {"chat_template": "chatml"},
    ),
    "sft, sharegpt without conversation": case(
        "sft", "datasets:\n  - {path: a/b, type: sharegpt}\n", 1, {"datasets": [{"path": "a/b", "format": "sharegpt"}]},
    ),
    "sft, prompts of their own": case(
        "sft", "chat_template: llama3\ndatasets:\n  - {path: a/b, type: alpaca}\n", 1, {"chat_template": "alpaca"},
        dropped=("chat_template",),
    ),
    "sft, experts": case(
        "sft", CHAT + "model_config:\n  output_router_logits: true\n", 1, {}, dropped=("model_config",),
        absent=("router_aux_loss_coef",),
    ),
    "sft, experts with a coefficient": case(
        "sft", CHAT + "overrides_of_model_config: {output_router_logits: true, router_aux_loss_coef: 0.02}\n", 1,
        {"router_aux_loss_coef": 0.02},
    ),
    "sft, batch_size": case(
        "sft", CHAT + "micro_batch_size: 2\nbatch_size: 8\ngradient_accumulation_steps:\n", 8,
        {"gradient_accumulation_steps": 4},
    ),
    "dpo, keys of trl": case(
        "dpo", PAIRS + "chat_template.default\n    chat_template: llama3\nrl: dpo\ntrl:\n  beta: 0.5\n", 1,
        {"beta": 0.5, "chat_template": "llama3"},
    ),
    "orpo": case("dpo", PAIRS + "chat_template.argilla\nrl: orpo\norpo_alpha: 0.3\n", 1,
                 {"loss_type": "orpo", "beta": 0.3,
                  "datasets": [{"path": "a/pairs", "format": "implicit_preference"}]}),
    "simpo": case("dpo", PAIRS + "llama3.ultra\nrl: simpo\nsimpo_gamma: 0.8\n", 1,
                  {"loss_type": "simpo", "simpo_gamma": 0.8, "cpo_alpha": 1.0, "chat_template": "llama3"}),
    "kto": case(
        "kto",
        "datasets:\n  - path: a/thumbs\n    type: llama3.ultra\nrl: kto\nrl_beta: 0.5\nkto_desirable_weight: 0.2\n"
        "gradient_accumulation_steps: 8\n",
        8,
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "beta": 0.5, "desirable_weight": 0.2,
         "undesirable_weight": 1.0, "chat_template": "llama3",
         "datasets": [{"path": "a/thumbs", "format": "kto",
                       "columns": {"instruction": "prompt", "output": "completion"}}]},
    ),
    "grpo": case(
        "grpo",
        "datasets:\n  - path: a/sums\n    name: main\n    type: rewards.transform\nrl: grpo\nmicro_batch_size: 8\n"
        "gradient_accumulation_steps: 2\nmax_steps: 10\ntrl:\n  beta: 0.001\n  max_completion_length: 128\n"
        "  num_generations: 4\n  use_vllm: true\n  vllm_server_host: 127.0.0.1\n  vllm_server_port: 8000\n"
        "  reward_funcs: [rewards.is_right]\n  reward_weights: [2.0]\n",
        32,
        {
            "datasets": [{"path": "a/sums", "name": "main", "format": "prompt"}], "beta": 0.001, "max_new_tokens": 128,
            "scorers": [{"kind": "function", "name": "is_right", "function": "rewards:is_right", "weight": 2.0}],
            "num_generations": 4, "rollout_batch_size": 32, "total_episodes": 320, "rollout_engine": "vllm",
            "vllm_server_base_url": "http://127.0.0.1:8000", "importance_sampling_cap": 3.0,
        },
        options=Options(processes=2),
    ),
    "grpo, whose answers are trained on twice": case(
        "grpo",
        "datasets: [{path: a/sums, type: r.t}]\nrl: grpo\nmicro_batch_size: 8\nmax_steps: 10\n"
        "trl: {reward_funcs: [r.f], num_iterations: 2}\n",
        8, {"num_iterations": 2, "rollout_batch_size": 8, "total_episodes": 40},
    ),
    "reward": case(
        "reward",
        "datasets:\n  - path: a/pairs\n    type: bradley_terry.chat_template\nreward_model: true\nnum_labels: 1\n"
        "center_rewards_coefficient: 0.01\n",
        1,
        {"datasets": [{"path": "a/pairs", "format": "alpaca_preference", "columns": {"instruction": "input"}}],
         "center_rewards_coefficient": 0.01},
        dropped=("num_labels", "reward_model"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_keeps_its_meaning(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    require(tmp_path, CASES[name], "axolotl")


def test_a_prompt_that_is_written_out_becomes_a_chat_template(tmp_path):
    text = (
        "datasets:\n  - path: a/tasks\n    type:\n      field_instruction: q\n      field_output: a\n"
        '      format: "[Q] {instruction} {input}\\n[A] "\n      no_input_format: "[Q] {instruction}\\n[A] "\n'
        "      system_prompt: Hm.\n"
    )
    conversion = imported(tmp_path, case("sft", text, 1, {}), "axolotl")
    assert conversion.recipe["datasets"] == [
        {"path": "a/tasks", "format": "stanford_alpaca", "columns": {"instruction": "q", "output": "a"}}
    ]
    template = conversion.recipe["chat_template"]
    assert rendered(template) == "<s>Hm.[Q] Why?\n[A] So.</s>[Q] And?\n[A] "
    assert rendered(template, "Why?\n\n### Input:\nIt is.").startswith("<s>Hm.[Q] Why? It is.\n[A] So.</s>")


def test_a_name_of_two_lines_adds_no_key(tmp_path):
    text = CHAT + '    chat_template: "x\\nreport_to: wandb #"\n'
    written = recipe_text(imported(tmp_path, case("sft", text, 1, {}), "axolotl"))
    assert "report_to" in written
    assert "report_to" not in yaml.safe_load(written)


def test_a_format_that_rows_without_an_input_lack_is_told(tmp_path):
    text = 'datasets:\n  - path: a/tasks\n    type: {format: "[Q] {instruction} {input}\\n[A] "}\n'
    conversion = imported(tmp_path, case("sft", text, 1, {}), "axolotl")
    assert "axolotl writes their instruction alone" in conversion.differences["no_input_format"]


def test_a_prompt_whose_end_depends_on_the_input_joins_it(tmp_path):
    text = (
        "datasets:\n  - path: a/tasks\n    type:\n"
        '      format: "{instruction}: {input}\\n> "\n      no_input_format: "{instruction}\\n= "\n'
    )
    recipe = imported(tmp_path, case("sft", text, 1, {}), "axolotl").recipe
    assert recipe["datasets"] == [{"path": "a/tasks", "format": "alpaca"}]
    assert rendered(recipe["chat_template"]) == "<s>Why?\n= So.</s>And?\n= "


POLITE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (CHAT + "chat_template: alpaca\n",
         "<s>### Instruction:\nWhy?\n\n### Response:\nSo.</s>\n\n### Instruction:\nAnd?\n\n### Response:\n"),
        (CHAT + "    chat_template: alpaca\n",
         "<s>### Instruction:\nWhy?\n\n### Response:\nSo.</s>\n\n### Instruction:\nAnd?\n\n### Response:\n"),
        ("datasets:\n  - {path: a/b, type: sharegpt}\n",
         f"<s>{POLITE} USER: Why? ASSISTANT: So.</s>USER: And? ASSISTANT:"),
    ],
)  # fmt: skip
def test_a_chat_template_has_the_texts_that_axolotl_gives_it(tmp_path, text, prompt):
    assert rendered(imported(tmp_path, case("sft", text, 1, {}), "axolotl").recipe["chat_template"]) == prompt


@pytest.mark.parametrize(
    ("rl", "fields", "entry"),
    [
        ("dpo", "field_prompt: q\n      field_system: s", {"format": "preference", "columns": {"prompt": "q"}}),
        ("kto", "field_prompt: q\n      prompt_format: '{prompt}'", {"format": "kto", "columns": {"prompt": "q"}}),
    ],
)
def test_preferences_whose_fields_are_named_are_texts_as_they_are(tmp_path, rl, fields, entry):
    text = f"rl: {rl}\ndatasets:\n  - path: a/b\n    type:\n      {fields}\n"
    recipe = imported(tmp_path, case(rl, text, 1, {}), "axolotl").recipe
    assert recipe["datasets"] == [{"path": "a/b", **entry}]


def test_a_style_of_alpaca_has_both_of_its_prompts(tmp_path):
    text = "datasets:\n  - {path: a/tasks, type: 'alpaca:chat'}\n"
    recipe = imported(tmp_path, case("sft", text, 1, {}), "axolotl").recipe
    assert recipe["datasets"] == [{"path": "a/tasks", "format": "stanford_alpaca"}]
    task, rest = "Below is an instruction that describes a task", ". Write a response that appropriately completes the "
    assert rendered(recipe["chat_template"]).startswith(
        f"<s>SYSTEM: {task}{rest}request.\nUSER: Why?\nASSISTANT:So.</s>USER: And?\nASSISTANT:"
    )
    assert rendered(recipe["chat_template"], "Why?\n\n### Input:\nIt is.").startswith(
        f"<s>SYSTEM: {task}, paired with an input that provides further context{rest}request.\n"
        "USER: Why?\nIt is.\nASSISTANT:So.</s>"
    )


REFUSED = {
    "load_in_8bit": ALPACA + "adapter: qlora\nload_in_8bit: true\n",
    "rl": PAIRS + "x\nrl: ebft\n",
    "plugins": CHAT + "plugins: [mine.Plugin]\n",
    "lora_target_modules": CHAT + "adapter: lora\nlora_r: 8\nlora_target_linear: true\n"
    "lora_target_modules: [q_proj, lm_head]\n",
    "trainer_cls": CHAT + "trainer_cls: mine.Trainer\n",
    "train_on_inputs": CHAT + "train_on_inputs: true\n",
    "chat_template_kwargs": CHAT + "chat_template_kwargs: {enable_thinking: false}\n",
    "unfrozen_parameters": CHAT + "unfrozen_parameters: [lm_head]\n",
    "optimizer": CHAT + "optimizer: muon\n",
    "lr_scheduler": CHAT + "lr_scheduler: one_cycle\n",
    "context_parallel_size": CHAT + "context_parallel_size: 2\n",
    "curriculum_sampling": CHAT + "curriculum_sampling: true\nsample_packing: true\n",
    "processor_type": CHAT + "processor_type: AutoProcessor\n",
    "tokens": PAIRS + "chatml.intel\nrl: dpo\ntokens: [<|a|>]\n",
    "sample_packin": CHAT + "sample_packin: true\n",
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_changes_training_and_is_not_here_is_refused(tmp_path, key):
    conversion = imported(tmp_path, case("sft", REFUSED[key], 1, {}), "axolotl")
    refused = {outcome.key for outcome in conversion.outcomes if outcome.fate == "refused"}
    assert key in refused
    assert refused <= {key, "datasets"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("type: jeopardy", "has no chat template here"),
        ("type: chat_template\n    roles_to_train: [assistant, user]", "roles_to_train"),
        ("type: chat_template\n    train_on_eos: all", "train_on_eos: all"),
        ("type: chat_template\n    message_property_mappings: {role: who, content: what}", "rename them"),
        ("type: chat_template\n    roles: {assistant: [helper]}", "roles: helper"),
        ("type: chat_template\n    drop_system_message: true", "drop_system_message"),
        ("type: chat_template\n    shards: 4", "shards"),
        ("type: mine.transform", "has no chat template here"),
        ("type: null", "tokenised beforehand"),
    ],
)
def test_data_that_cannot_be_read_the_same_way_are_refused(tmp_path, entry, reason):
    text = f"sequence_len: 9\ndatasets:\n  - path: a/b\n    {entry}\n"
    conversion = imported(tmp_path, case("sft", text, 1, {}), "axolotl")
    (outcome,) = [each for each in conversion.outcomes if each.fate == "refused"]
    assert outcome.key == "datasets"
    assert reason in outcome.reason


def test_two_prompt_strategies_are_two_chat_templates(tmp_path):
    text = "datasets:\n  - {path: a/b, type: alpaca}\n  - {path: c/d, type: chat_template}\n"
    conversion = imported(tmp_path, case("sft", text, 1, {}), "axolotl")
    (outcome,) = [each for each in conversion.outcomes if each.fate == "refused"]
    assert "a recipe has one chat template, and these have alpaca, the tokenizer's own" in outcome.reason
