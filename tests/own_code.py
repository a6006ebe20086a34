"""Model folders that bring Python code of their own, and a canary that tells whether any of it ran."""

import json
from pathlib import Path

from tests.models import make_model, make_tokenizer

CODE = """\
from pathlib import Path
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel

Path({canary!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own-code"

class OwnTrunk(LlamaModel):
    config_class = OwnConfig

AutoModel.register(OwnConfig, OwnTrunk)

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnClassifier(LlamaForSequenceClassification):
    config_class = OwnConfig
"""
AUTO_MAP = {
    "AutoConfig": "own.OwnConfig",
    "AutoModelForCausalLM": "own.OwnModel",
    "AutoModelForSequenceClassification": "own.OwnClassifier",
}


def save_own_code_model(path: Path, canary: Path, *, reward: bool = False, model_type: str = "own-code") -> Path:
    """Write a tiny model whose architecture is code in its folder; importing that code touches `canary`.

    Args:
        reward: a sequence classifier with one output, else a language model.
        model_type: one that transformers knows has an implementation without the folder's code.
    """
    import torch
    from transformers import LlamaForSequenceClassification

    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    if reward:
        model.config.num_labels = 1
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(model.config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "model_type": model_type, "auto_map": AUTO_MAP}))
    (path / "own.py").write_text(CODE.format(canary=str(canary)))
    return path


def trusts_itself(folder: Path) -> Path:
    """Leave the records of a run beside a model that switch its own code on."""
    recipe = {"trust_remote_code": True, "attn_implementation": "owner/kernel"}
    (folder / "manifest.json").write_text(json.dumps({"status": "finished", "recipe": recipe}))
    (folder / "recipe.yaml").write_text("trust_remote_code: true\nattn_implementation: owner/kernel\n")
    return folder
