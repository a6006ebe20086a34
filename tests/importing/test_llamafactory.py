"""LLaMA-Factory's recipes, written after its classes of arguments."""

import json

import pytest

from alignment.errors import RecipeError
from alignment.importing.command import convert, import_file
from alignment.importing.conversion import Options
from alignment.importing.writing import recipe_text
from tests.importing.cases import Case, imported, rendered, require

OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
INFO = {
    "chats": {"file_name": "chats.json", "formatting": "sharegpt"},
    "turns": {
        "hf_hub_url": "someone/turns",
        "subset": "en",
        "split": "train_sft",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "system": "instructions"},
        "tags": OPENAI,
    },
    "tasks": {"file_name": "tasks.json"},
    "questions": {"file_name": "q.jsonl", "columns": {"prompt": "question", "query": "hint", "response": "answer"}},
    "few": {"file_name": "few.json", "num_samples": 50},
    "pairs": {
        "file_name": "pairs.json",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "asked": {"file_name": "a.json", "ranking": True,
              "columns": {"prompt": "instruction", "query": "input", "chosen": "better", "rejected": "worse"}},
    "thumbs": {"file_name": "thumbs.json", "formatting": "sharegpt",
               "columns": {"messages": "messages", "kto_tag": "good"}, "tags": OPENAI},
    "corpus": {"file_name": "corpus.jsonl", "columns": {"prompt": "body"}},
    "pictures": {"file_name": "p.json", "formatting": "sharegpt", "columns": {"messages": "m", "images": "images"}},
    "speakers": {"file_name": "s.json", "formatting": "sharegpt", "tags": {"role_tag": "who", "content_tag": "what"}},
    "script": {"script_url": "someone/script"},
    "clients": {"file_name": "c.json", "formatting": "sharegpt",
                "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "client", "assistant_tag": "gpt"}},
}  # fmt: skip
FILES = {"data/dataset_info.json": json.dumps(INFO)}
HEAD = "model_name_or_path: some/model\ntemplate: qwen\noutput_dir: saves/x\ndo_train: true\n"


def case(stage, text, batch, recipe, **more):
    return Case(HEAD + text, stage, batch, recipe, files=FILES, **more)


CASES = {
    "all rows, interleaved": case(
        "sft", "stage: sft\ndataset: chats,tasks\nmix_strategy: interleave_once\nmoe_aux_loss_coef: 0.02\n", 8,
        {"datasets": [{"path": "data/chats.json", "format": "sharegpt"},
                      {"path": "data/tasks.json", "format": "alpaca"}], "router_aux_loss_coef": 0.02},
    ),
    "rows in order": case("sft", "stage: sft\ndataset: tasks\ndisable_shuffling: true\n", 8,
                          {"train_sampling_strategy": "sequential"}),
    "defaults": case(
        "sft",
        "stage: sft\ndataset: tasks\n",
        8,
        {
            "peft_method": "lora", "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0,
            "lora_target_modules": "all-linear", "max_length": 2048, "learning_rate": 5e-5, "num_train_epochs": 3.0,
            "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "lr_scheduler_type": "linear",
            "weight_decay": 0.0, "seed": 42, "save_steps": 500, "save_total_limit": None,
            "gradient_checkpointing": True, "bf16": False, "model_name_or_path": "some/model",
        },
        absent=("test_split_size", "eval_strategy", "load_in_4bit", "packing", "chat_template"),
        dropped=("template", "do_train"),
    ),
    "batch": case(
        "sft",
        "stage: sft\nfinetuning_type: lora\ndataset: tasks\nper_device_train_batch_size: 2\n"
        "gradient_accumulation_steps: 6\nnum_train_epochs: 2.5\nlearning_rate: 1.0e-4\nlr_scheduler_type: cosine\n"
        "warmup_ratio: 0.1\nbf16: true\nddp_timeout: 180000000\nplot_loss: true\noverwrite_output_dir: true\n"
        "trust_remote_code: true\n",
        48,
        {"num_train_epochs": 2.5, "warmup_steps": 0.1, "bf16": True, "ddp_timeout": 10_000_000,
         "lr_scheduler_type": "cosine", "learning_rate": 1e-4},
        absent=("trust_remote_code",),
        dropped=("plot_loss", "overwrite_output_dir", "trust_remote_code"),
        options=Options(processes=4),
    ),
    "targets and alpha": case(
        "sft",
        "stage: sft\ndataset: tasks\nlora_rank: 32\nlora_target: q_proj,v_proj\n"
        "additional_target: embed_tokens,lm_head\nuse_rslora: true\nloraplus_lr_ratio: 16.0\nlora_dropout: 0.05\n",
        8,
        {"lora_r": 32, "lora_alpha": 64, "lora_target_modules": ["q_proj", "v_proj"], "use_rslora": True,
         "lora_modules_to_save": ["embed_tokens", "lm_head"], "loraplus_lr_ratio": 16.0, "lora_dropout": 0.05},
    ),
    "dora": case("sft", "stage: sft\ndataset: tasks\nuse_dora: true\nlora_alpha: 8\n", 8,
                 {"peft_method": "dora", "lora_alpha": 8}),
    "pissa": case("sft", "stage: sft\ndataset: tasks\npissa_init: true\npissa_iter: 4\npissa_convert: true\n", 8,
                  {"peft_config": {"init_lora_weights": "pissa_niter_4"}}, dropped=("pissa_convert",)),
    "four bits": case(
        "sft",
        "stage: sft\ndataset: tasks\nquantization_bit: 4\nquantization_method: bnb\ndouble_quantization: false\n"
        "flash_attn: fa2\n",
        8,
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": False,
         "attn_implementation": "flash_attention_2"},
    ),
    "eight bits": case(
        "sft", "stage: sft\ndataset: tasks\nquantization_bit: 8\ndouble_quantization: false\n", 8,
        {"load_in_8bit": True}, absent=("load_in_4bit",), dropped=("double_quantization",),
    ),
    "full": case(
        "sft",
        "stage: sft\nfinetuning_type: full\ndataset: tasks\ndeepspeed: examples/deepspeed/ds_z3_config.json\n"
        "pure_bf16: true\nlora_rank: 8\ndisable_gradient_checkpointing: true\n",
        8,
        {"peft_method": "full", "dtype": "bfloat16", "bf16": True, "gradient_checkpointing": False},
        absent=("lora_r", "lora_alpha", "lora_target_modules", "deepspeed"),
        dropped=("deepspeed", "lora_rank"),
    ),
    "freeze": case("sft", "stage: sft\nfinetuning_type: freeze\ndataset: tasks\nfreeze_trainable_layers: 3\n", 8,
                   {"peft_method": "freeze", "peft_config": {"trainable_layers": 3}}),
    "oft": case("sft", "stage: sft\nfinetuning_type: oft\ndataset: tasks\noft_block_size: 16\noft_target: all\n", 8,
                {"peft_method": "oft",
                 "peft_config": {"oft_block_size": 16, "module_dropout": 0.0, "target_modules": "all-linear"}}),
    "layouts": case(
        "sft",
        "stage: sft\ndataset: chats, turns, questions, few\nmax_samples: 1000\nneat_packing: true\ncutoff_len: 4096\n",
        8,
        {
            "datasets": [
                {"path": "data/chats.json", "split": "train[:1000]", "format": "sharegpt"},
                {"path": "someone/turns", "name": "en", "split": "train_sft[:1000]", "format": "messages",
                 "columns": {"system": "instructions"}},
                {"path": "data/q.jsonl", "split": "train[:1000]", "format": "alpaca",
                 "columns": {"instruction": "question", "input": "hint", "output": "answer"}},
                {"path": "data/few.json", "split": "train[:50]", "format": "alpaca"},
            ],
            "packing": True,
            "max_length": 4096,
        },
        absent=("max_samples",),
    ),
    "mixture": case(
        "sft",
        "stage: sft\ndataset: chats,tasks\nmix_strategy: interleave_under\ninterleave_probs: 0.7,0.3\n",
        8,
        {"datasets": [{"path": "data/chats.json", "format": "sharegpt", "fraction": 0.7},
                      {"path": "data/tasks.json", "format": "alpaca", "fraction": 0.3}]},
    ),
    "an equal mixture": case(
        "sft", "stage: sft\ndataset: chats,tasks\nmix_strategy: interleave_under\ncutoff_len: 4_096\n", 8,
        {"datasets": [{"path": "data/chats.json", "format": "sharegpt", "fraction": 0.5},
                      {"path": "data/tasks.json", "format": "alpaca", "fraction": 0.5}], "max_length": 4096},
    ),
    "evaluation": case(
        "sft",
        "stage: sft\ndataset: tasks\nval_size: 0.1\nper_device_eval_batch_size: 1\neval_strategy: steps\n"
        "eval_steps: 200\nsave_steps: 200\nlogging_steps: 5\nreport_to: wandb\nrun_name: first\n",
        8,
        {"test_split_size": 0.1, "eval_strategy": "steps", "eval_steps": 200, "save_steps": 200, "logging_steps": 5,
         "report_to": "wandb", "run_name": "first", "per_device_eval_batch_size": 1},
    ),
    "rows held out": case(
        "sft",
        "stage: sft\ndataset: tasks,chats\nval_size: 200\neval_strategy: epoch\n",
        8,
        {"datasets": [{"path": "data/tasks.json", "format": "alpaca", "split": "train[100:]"},
                      {"path": "data/chats.json", "format": "sharegpt", "split": "train[100:]"}],
         "eval_datasets": [{"path": "data/tasks.json", "format": "alpaca", "split": "train[:100]"},
                           {"path": "data/chats.json", "format": "sharegpt", "split": "train[:100]"}]},
        absent=("test_split_size",),
    ),
    "pretrain": case(
        "pretrain",
        "stage: pt\nfinetuning_type: full\ndataset: corpus\ncutoff_len: 1024\n",
        8,
        {"datasets": [{"path": "data/corpus.jsonl", "format": "text", "columns": {"text": "body"}}],
         "peft_method": "full", "max_length": 1024},
    ),
    "reward": case(
        "reward",
        "stage: rm\ndataset: pairs\nlearning_rate: 1.0e-4\nlora_dropout: 0.1\n",
        8,
        {"datasets": [{"path": "data/pairs.json", "format": "sharegpt_dpo"}], "learning_rate": 1e-4,
         "lora_dropout": 0.1, "on_bad_row": "skip"},
    ),
    "sft, dft": case("sft", "stage: sft\ndataset: tasks\nuse_dft_loss: true\n", 8, {"loss_type": "dft"}),
    "sft, two warm-ups": case(
        "sft", "stage: sft\ndataset: tasks\nwarmup_steps: 20\nwarmup_ratio: 0.1\n", 8, {"warmup_steps": 20},
    ),
    "dpo, its own reference": case(
        "dpo", "stage: dpo\ndataset: asked\nref_model: some/model\n", 8, {}, dropped=("ref_model",),
    ),
    "dpo": case(
        "dpo",
        "stage: dpo\ndataset: asked\npref_beta: 0.2\npref_ftx: 0.5\nlora_dropout: 0.05\ndpo_label_smoothing: 0.1\n",
        8,
        {"datasets": [{"path": "data/a.json", "format": "alpaca_preference",
                       "columns": {"chosen": "better", "rejected": "worse"}}],
         "beta": 0.2, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "lora_dropout": 0.0,
         "label_smoothing": 0.1},
        dropped=("lora_dropout",),
    ),
    "simpo": case("dpo", "stage: dpo\ndataset: pairs\npref_loss: simpo\nsimpo_gamma: 0.7\npref_beta: 2.0\n", 8,
                  {"loss_type": "simpo", "simpo_gamma": 0.7, "beta": 2.0}),
    "orpo": case("dpo", "stage: dpo\ndataset: pairs\npref_loss: orpo\n", 8, {"loss_type": "orpo", "beta": 0.1},
                 absent=("simpo_gamma",)),
    "kto": case(
        "kto",
        "stage: kto\ndataset: thumbs\nper_device_train_batch_size: 1\ngradient_accumulation_steps: 8\n"
        "kto_rejected_weight: 1.5\n",
        8,
        {"datasets": [{"path": "data/thumbs.json", "format": "kto", "columns": {"label": "good"}}],
         "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "beta": 0.1, "desirable_weight": 1.0,
         "undesirable_weight": 1.5},
    ),
    "ppo": case(
        "ppo",
        "stage: ppo\ndataset: tasks\nreward_model: saves/reward\nper_device_train_batch_size: 2\n"
        "gradient_accumulation_steps: 4\nppo_buffer_size: 2\nppo_epochs: 3\nppo_score_norm: true\nmax_samples: 1000\n"
        "num_train_epochs: 3.0\nmax_new_tokens: 256\ntop_k: 0\ntop_p: 0.9\n",
        16,
        {
            "reward_model_path": "saves/reward", "rollout_batch_size": 32, "num_mini_batches": 2, "num_ppo_epochs": 3,
            "total_episodes": 3000, "normalize_scores": "running", "adaptive_kl_target": 6.0, "kl_coef": 0.2,
            "cliprange": 0.2, "cliprange_high": 0.2, "dual_clip": None, "value_model": "head", "lam_value": 0.95,
            "max_new_tokens": 256,
            "max_prompt_length": 2048, "on_bad_row": "skip", "temperature": 0.95, "top_p": 0.9, "top_k": 0,
        },
        absent=("num_train_epochs", "gradient_accumulation_steps"),
        options=Options(processes=2),
    ),
}  # fmt: skip


OLDER = case(
    "sft", "stage: sft\nfinetuning_type: freeze\ndataset: tasks\nflash_attn: true\nnum_layer_trainable: 8\n"
    "name_module_trainable: all\n", 8,
    {"attn_implementation": "flash_attention_2", "peft_method": "freeze", "peft_config": {"trainable_layers": 8}},
)  # fmt: skip


def test_older_names_keep_their_meaning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require(tmp_path, OLDER, "llamafactory")


def test_the_template_vicuna_has_its_system_message(tmp_path):
    text = HEAD.replace("template: qwen", "template: vicuna") + "stage: sft\ndataset: tasks\n"
    recipe = imported(tmp_path, Case(text, "sft", 8, {}, files=FILES), "llamafactory").recipe
    assert rendered(recipe["chat_template"]) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.USER: Why? ASSISTANT:So.</s>USER: And? ASSISTANT:"
    )


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_keeps_its_meaning(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    require(tmp_path, CASES[name], "llamafactory")


REFUSED = {
    "quantization_bit": "stage: sft\ndataset: tasks\nquantization_bit: 3\n",
    "use_galore": "stage: sft\nfinetuning_type: full\ndataset: tasks\nuse_galore: true\n",
    "train_on_prompt": "stage: sft\ndataset: tasks\ntrain_on_prompt: true\n",
    "mask_history": "stage: sft\ndataset: chats\nmask_history: true\n",
    "mix_strategy": "stage: sft\ndataset: tasks,chats\nmix_strategy: interleave_over\n",
    "rope_scaling": "stage: sft\ndataset: tasks\nrope_scaling: dynamic\n",
    "default_system": "stage: sft\ndataset: tasks\ndefault_system: Be kind.\n",
    "use_asft_loss": "stage: sft\ndataset: tasks\nuse_asft_loss: true\n",
    "ref_model": "stage: dpo\ndataset: pairs\nref_model: other/model\n",
    "train_from_scratch": "stage: sft\ndataset: tasks\ntrain_from_scratch: true\n",
    "add_special_tokens": "stage: dpo\ndataset: pairs\nadd_special_tokens: <|a|>,<|b|>\n",
    "lora_rnak": "stage: sft\ndataset: tasks\nlora_rnak: 8\n",
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_changes_training_and_is_not_here_is_refused(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    conversion = imported(tmp_path, case("sft", REFUSED[key], 8, {}), "llamafactory")
    (outcome,) = [each for each in conversion.outcomes if each.fate == "refused"]
    assert outcome.key == key
    assert len(outcome.reason) > 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pictures", "pictures has images"),
        ("speakers", "rename them to role and content"),
        ("script", "script is a script"),
        ("clients", "user_tag client"),
        ("missing", "has no data set missing"),
    ],
)
def test_data_that_cannot_be_read_the_same_way_are_refused(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    conversion = imported(tmp_path, case("sft", f"stage: sft\ndataset: {name}\n", 8, {}), "llamafactory")
    (outcome,) = [each for each in conversion.outcomes if each.fate == "refused"]
    assert outcome.key == "dataset"
    assert reason in outcome.reason


def test_without_dataset_info_the_user_names_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conversion = imported(
        tmp_path, Case(HEAD + "stage: sft\ndataset: mine\nmax_samples: 7\n", "sft", 8, {}), "llamafactory"
    )
    (outcome,) = [each for each in conversion.outcomes if each.fate == "set by you"]
    assert (outcome.key, "dataset_info.json was not found" in outcome.reason) == ("dataset", True)
    assert conversion.recipe["datasets"] == [{"path": "data/mine.json", "split": "train[:7]"}]


def test_dataset_info_beside_the_file_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"recipes/dataset_info.json": json.dumps(INFO), "recipes/x.yaml": HEAD + "dataset: tasks\nlora_rank: 4\n"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    conversion = convert("recipes/x.yaml", None, Options())
    assert conversion.recipe["datasets"] == [{"path": "recipes/tasks.json", "format": "alpaca"}]


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("model_name_or_path: m\nadapter_name_or_path: a\ntemplate: qwen\nexport_dir: out\n", "alignment merge"),
        ("model_name_or_path: m\ntemplate: qwen\ninfer_backend: huggingface\n", "alignment chat"),
        ("model_name_or_path: m\ntask: mmlu_test\ntemplate: fewshot\nlang: en\n", "alignment evaluate"),
        (
            HEAD.replace("do_train: true", "do_predict: true") + "eval_dataset: tasks\ncutoff_len: 9\n",
            "alignment evaluate",
        ),
    ],
)
def test_what_does_not_train_names_the_verb_here(tmp_path, monkeypatch, text, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        convert("x.yaml", "llamafactory", Options())
    (fault,) = caught.value.faults
    assert fault.startswith("x.yaml: ")
    assert verb in fault


def test_a_refused_key_can_be_given_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(INFO), encoding="utf-8")
    (tmp_path / "x.yaml").write_text(HEAD + "dataset: tasks\nlora_rank: 4\nquantization_bit: 2\n", encoding="utf-8")
    lines: list[str] = []
    with pytest.raises(RecipeError, match=r"x.yaml: quantization_bit: weights of 2 bits are not supported.*--drop"):
        import_file("x.yaml", None, Options(), tmp_path / "out", lines.append)
    assert not (tmp_path / "out").exists()
    out = import_file("x.yaml", None, Options(dropped=("quantization_bit",)), tmp_path / "out", lines.append)
    assert out == tmp_path / "out/x.sft.yaml"
    with pytest.raises(RecipeError, match=r"--drop seed: x.yaml has no refused key of this name"):
        import_file("x.yaml", None, Options(dropped=("quantization_bit", "seed")), tmp_path / "out", lines.append)
    assert any(line.startswith("dropped     quantization_bit: 2 -> --drop") for line in lines)


def test_the_reference_of_an_adapter_that_goes_on_is_told(tmp_path):
    text = "stage: dpo\ndataset: pairs\nadapter_name_or_path: saves/sft\n"
    told = "also the reference; LLaMA-Factory's is the base without this adapter"
    for more, expected in (("", told), ("create_new_adapter: true\n", None), ("pref_loss: orpo\n", None)):
        conversion = imported(tmp_path, case("dpo", text + more, 8, {}), "llamafactory")
        assert conversion.recipe["model_name_or_path"] == "saves/sft"
        assert conversion.notes.get("model_name_or_path") == expected


@pytest.mark.parametrize("more", ["packing: true\n", "neat_packing: true\n"])
def test_rows_that_are_packed_have_no_order(tmp_path, more):
    text = f"stage: sft\ndataset: tasks\ndisable_shuffling: true\n{more}"
    conversion = imported(tmp_path, case("sft", text, 8, {}), "llamafactory")
    (outcome,) = [each for each in conversion.outcomes if each.fate == "refused"]
    assert outcome.key == "disable_shuffling"
    assert "turn packing off" in outcome.reason


@pytest.mark.parametrize(
    ("stage", "more", "key", "told"),
    [
        ("sft", "", "cutoff_len", "shortens prompts and answers in proportion"),
        ("sft", "packing: true\n", "packing", "do not attend to each other"),
        ("sft", "neat_packing: true\n", None, ""),
        ("pt", "", "packing", "do not attend to each other"),
        ("pt", "packing: false\n", "cutoff_len", "takes their beginning"),
        ("dpo", "", None, ""),
    ],
)
def test_what_runs_otherwise_stands_at_the_head_of_the_recipe(tmp_path, stage, more, key, told):
    data = {"sft": "tasks", "pt": "corpus", "dpo": "pairs"}[stage]
    conversion = imported(tmp_path, case(stage, f"stage: {stage}\ndataset: {data}\n{more}", 8, {}), "llamafactory")
    assert list(conversion.differences) == ([key] if key else [])
    head = recipe_text(conversion).partition("\nstage:")[0]
    assert (f"# {key}: " in head and told in head) or key is None


def test_experts_have_no_loss_of_their_own_without_a_key(tmp_path):
    for stage, data, expected in (("sft", "tasks", 0.0), ("dpo", "pairs", 0.0), ("rm", "pairs", None)):
        text = f"stage: {stage}\ndataset: {data}\n"
        assert (
            imported(tmp_path, case(stage, text, 8, {}), "llamafactory").recipe.get("router_aux_loss_coef") == expected
        )
