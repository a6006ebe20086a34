"""Folders of every sort that a command reads, each of which tries to run code, open a file or call an address."""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.run.checkpoints import mark_whole
from tests.models import save_tiny_model
from tests.own_code import save_own_code_model


@dataclass(frozen=True)
class Bait:
    """What must not be touched: a file that code leaves, a secret that nobody may open, an address, a module."""

    canary: Path
    secret: Path
    address: str
    module: str = "canary_module"


class Touch:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def change(file: Path, **keys: Any) -> None:
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | keys))


def lies(folder: Path, bait: Bait) -> Path:
    """Leave records of a run that ask for everything at once."""
    judge = {"kind": "rules", "function": f"{bait.module}:judge", "base_url": bait.address, "prompt": str(bait.secret)}
    recipe = {
        "stage": "reward",
        "output_dir": str(folder),
        "model_name_or_path": bait.address,
        "trust_remote_code": True,
        "attn_implementation": "owner/kernel",
        "chat_template": str(bait.secret),
        "datasets": [{"path": bait.address, "data_files": str(bait.secret)}],
        "judge": judge,
        "judges": [judge],
        "scorers": [{"kind": "http", "url": bait.address}, {"kind": "function", "function": f"{bait.module}:score"}],
        "reward_model_path": str(bait.secret.parent),
        "vllm_server_base_url": bait.address,
        "report_to": "wandb",
        "deepspeed": str(bait.secret),
        "gate": {"gold": str(bait.secret)},
        "calibration": {"gold": str(bait.secret)},
    }
    manifest = {
        "status": "finished",
        "stage": "reward",
        "recipe": recipe,
        "results": {"reward_accuracy": 1.0, "<script>alert(1)</script>": "<img src=x onerror=alert(1)>"},
        "wandb": {"artifact": bait.address, "url": "javascript:alert(1)"},
        "policy": {"path": str(bait.secret)},
        "lineage": {"adapter": str(bait.secret), "base": bait.address},
        "command": [bait.address],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def pickles(folder: Path, bait: Bait) -> Path:
    """Leave a pickle under every name that a library may unpickle."""
    names = ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt",
             "rng_state.pth", "value.bin", "experience.pt", "tokenizer.pkl", ".metadata")  # fmt: skip
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Touch(bait.canary)))
    return folder


def code_everywhere(folder: Path, bait: Bait) -> Path:
    """Leave Python under the names that libraries import from a model's or a data set's folder."""
    for name in ("custom_generate/generate.py", "modeling_llama.py", "own.py", f"{bait.module}.py", "setup.py",
                 f"{folder.name}.py", "sitecustomize.py", "conftest.py"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"from pathlib import Path\nPath({str(bait.canary)!r}).touch()\n")
    return folder


def models(root: Path, bait: Bait) -> dict[str, Path]:
    """Model folders, by what each tries."""
    found: dict[str, Path] = {}

    def plain(name: str) -> Path:
        found[name] = save_tiny_model(root / name)
        return found[name]

    for kind in ("own-code", "llama"):
        for reward in (False, True):
            name = f"code_{kind.replace('-', '_')}_{'reward' if reward else 'policy'}"
            found[name] = lies(save_own_code_model(root / name, bait.canary, reward=reward, model_type=kind), bait)
            own = ["own.Own", "own.Own"]
            change(found[name] / "tokenizer_config.json", auto_map={"AutoTokenizer": own})
    pickles(code_everywhere(lies(plain("records"), bait), bait), bait)
    for key, value in (
        ("attn_implementation", "owner/kernel"),
        ("attn_implementation", "msa|owner/kernel"),
        ("experts_implementation", "owner/kernel"),
        ("transformers_weights", "../secrets/secret"),
        ("fusion_config", {"name": "owner/kernel"}),
        ("distributed_config", {"tp_size": 2}),
        ("quantization_config", {"quant_method": bait.module}),
    ):
        change(lies(plain(f"config_{key}_{len(found)}"), bait) / "config.json", **{key: value})
    change(
        code_everywhere(plain("generation"), bait) / "generation_config.json",
        custom_generate=bait.address, penalty_alpha=0.6, dola_layers="high", assistant_model=bait.address,
    )  # fmt: skip
    for key, value in (
        ("vocab_file", str(bait.secret)),
        ("tokenizer_file", str(bait.secret)),
        ("init_inputs", [str(bait.secret)]),
        ("chat_template", str(bait.secret)),
        ("tokenizer_class", f"{bait.module}.Tokenizer"),
    ):
        change(plain(f"tokenizer_{key}") / "tokenizer_config.json", **{key: value})
    template = plain("template_link") / "chat_template.jinja"
    template.unlink(missing_ok=True)
    template.symlink_to(bait.secret)
    (plain("template_includes") / "chat_template.jinja").write_text(
        f"{{% include '{bait.secret}' %}}{{{{ messages.__class__.__mro__[1].__subclasses__() }}}}"
    )
    index = plain("index")
    (index / "model.safetensors").unlink()
    placed = {"weight_map": {"model.norm.weight": f"../secrets/{bait.secret.name}"}, "metadata": {}}
    (index / "model.safetensors.index.json").write_text(json.dumps(placed))
    only = pickles(plain("only_pickles"), bait)
    (only / "model.safetensors").unlink()
    members = plain("members")
    (members / "manifest.json").write_text(json.dumps({"members": [f"../secrets/{bait.secret.name}", bait.address]}))
    return found


def adapters(root: Path, bait: Bait, policy: Path, reward: Path, own_code: Path) -> dict[str, Path]:
    """Adapter folders, by what each tries; `policy` and `reward` are plain ones."""
    found = {}
    for kind, source in (("policy", policy), ("reward", reward)):
        for name, keys in {
            "megatron": {"megatron_config": {"a": 1}, "megatron_core": bait.module},
            "mapping": {"auto_mapping": {"parent_library": bait.module, "base_model_class": "judge"}},
            "corda": {"init_lora_weights": "corda", "corda_config": {"cache_file": str(bait.secret)}},
            "lora_ga": {"init_lora_weights": "lora_ga", "lora_ga_config": {"cache_file": str(bait.secret)}},
            "xlora": {"peft_type": "XLORA", "adapters": {"a": str(bait.secret.parent)}},
            "multitask": {
                "peft_type": "MULTITASK_PROMPT_TUNING",
                "prompt_tuning_init_state_dict_path": str(bait.secret),
            },
            "base_address": {"base_model_name_or_path": bait.address},
            "base_code": {"base_model_name_or_path": str(own_code)},
            "base_secret": {"base_model_name_or_path": str(bait.secret.parent)},
        }.items():
            folder = root / f"adapter_{name}_{kind}"
            shutil.copytree(source, folder)
            change(lies(pickles(code_everywhere(folder, bait), bait), bait) / "adapter_config.json", **keys)
            found[folder.name] = folder
    return found


def data(root: Path, bait: Bait) -> dict[str, Path]:
    """Folders of data and of labels, by what each tries."""
    import datasets

    row = {"prompt": f"Look at {bait.address}", "chosen": "thank you", "rejected": "no", "image": bait.address}
    plain = root / "data_script"
    plain.mkdir()
    (plain / "rows.jsonl").write_text("".join(json.dumps({**row, "prompt": f"p{n}"}) + "\n" for n in range(8)))
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {bait.address}/x.json\n---\n"
    (plain / "README.md").write_text(card)
    (plain / "dataset_infos.json").write_text(json.dumps({"default": {"builder_name": bait.module}}))
    code_everywhere(plain, bait)
    found = {"data_script": plain}
    for name, path in (("image_file", str(bait.secret)), ("image_address", bait.address)):
        folder = root / f"saved_{name}"
        rows = {"prompt": ["a"], "completion": ["b"], "image": [{"path": path, "bytes": None}]}
        datasets.Dataset.from_dict(rows).save_to_disk(folder)
        info = json.loads((folder / "dataset_info.json").read_text())
        info["features"]["image"] = {"_type": "Image"}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        found[folder.name] = folder
    state = root / "saved_state"
    datasets.Dataset.from_dict({"prompt": ["a"], "completion": ["b"]}).save_to_disk(state)
    (state / "state.json").write_text(json.dumps({"_data_files": [{"filename": f"../secrets/{bait.secret.name}"}]}))
    labels = root / "labels"
    labels.mkdir()
    pair = {"first": 0, "second": 1, "probability": 0.9, "status": "ok", "order": "both"}
    ranking = {
        "responses": ["good", "bad"],
        "pairs": [pair],
        "provenance": {"judge": bait.address, "prompt": str(bait.secret)},
    }
    (labels / "labels.jsonl").write_text("".join(json.dumps({"prompt": f"p{n}", **ranking}) + "\n" for n in range(4)))
    change(
        code_everywhere(lies(labels, bait), bait) / "manifest.json",
        stage="label",
        judge={"function": f"{bait.module}:judge"},
    )
    return {**found, "saved_state": state, "labels": labels}


def interrupted(folder: Path, recipe: dict[str, Any], bait: Bait) -> Path:
    """Leave an interrupted run whose checkpoint is pickles and whose state names a best checkpoint elsewhere."""
    checkpoint = folder / "checkpoint-1"
    shutil.copytree(recipe["model_name_or_path"], checkpoint)
    pickles(code_everywhere(checkpoint, bait), bait)
    state = {"global_step": 1, "best_model_checkpoint": str(bait.secret.parent), "log_history": [], "epoch": 0.1}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    mark_whole(checkpoint)
    lies(folder, bait)
    change(folder / "manifest.json", status="running", stage=recipe["stage"], recipe=recipe, wandb_run_id=bait.address)
    return folder
