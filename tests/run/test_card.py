"""The model card's code loads the adapter in a process that has imported nothing else."""

import json
import subprocess
import sys

import pytest
import torch

from alignment.config.schema import STAGES
from alignment.run.card import model_card
from tests.models import make_tokenizer
from tests.tuned import IDS, logits, save_base, trained, with_adapter

REGISTERS = "import alignment.policy.methods.bottleneck  # of the package alignment-stack: registers the type with PEFT"


def card_of(run, base, adapter, stage="sft"):
    given = {"output_dir": str(run), "model_name_or_path": str(base), "datasets": [{"path": "d.jsonl"}]}
    recipe = STAGES[stage](stage=stage, **given)
    return model_card(recipe, {}, adapter)


@pytest.mark.parametrize(("method", "registers"), [("bottleneck", True), ("prompt_tuning", False), ("lora", False)])
def test_the_code_of_a_card_loads_the_model(method, registers, tmp_path):
    base, run = save_base(tmp_path / "base"), tmp_path / "run"
    model = trained(with_adapter(base, method))
    model.save_pretrained(run)
    make_tokenizer().save_pretrained(run)
    torch.save(logits(model), tmp_path / "logits.pt")
    adapter = json.loads((run / "adapter_config.json").read_text())
    card = card_of(run, base, adapter)
    assert (REGISTERS in card) == registers
    code = card.split("```python\n")[1].split("```")[0]
    code += (
        f"import torch\nexpected = torch.load({str(tmp_path / 'logits.pt')!r})\n"
        f"found = model.eval()(input_ids=torch.tensor({IDS.tolist()})).logits[:, -{IDS.shape[1]}:]\n"
        "torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_reward_models_card_builds_its_head_and_registers_the_type():
    adapter = {"peft_type": "BITFIT", "base_model_name_or_path": "org/base"}
    card = card_of("runs/reward", "org/base", adapter, "reward")
    assert "import alignment.policy.methods.bitfit" in card
    head = "num_labels=1, pad_token_id=tokenizer.pad_token_id"
    assert f'base = AutoModelForSequenceClassification.from_pretrained("org/base", {head})' in card
    assert 'model = PeftModel.from_pretrained(base, "runs/reward")' in card
