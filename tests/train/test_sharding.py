"""What sharded training reads of torch's own objects, and what it cannot do."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from alignment.config.schema import STAGES
from alignment.errors import TrainingError
from alignment.train.policy_gradient.sharding import _groups
from alignment.train.sharding import require_possible
from tests.models import make_model, make_tokenizer

A, B = object(), object()


@pytest.mark.parametrize(
    ("state", "groups"),
    [
        ({"_fsdp_param_groups": [A, B]}, [A, B]),
        ({"_fsdp_param_groups": []}, []),
        ({"_fsdp_param_group": A}, [A]),  # older releases of torch
        ({"_fsdp_param_group": None}, []),
    ],
)
def test_a_units_groups_are_found_in_every_release_of_torch(state, groups):
    unit = SimpleNamespace(_get_fsdp_state=lambda: SimpleNamespace(**state))
    assert _groups(unit) == groups


@pytest.fixture
def alone(tmp_path):
    """One process of a group."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("reshards", [True, False])
def test_weights_that_stay_gathered_leave_an_adapter_frozen_behind_its_reference(alone, reshards):
    model = get_peft_model(make_model(make_tokenizer()), LoraConfig(r=2, target_modules=["q_proj"]))
    for part in (*model.base_model.model.model.layers, model):
        fully_shard(part, mesh=alone, reshard_after_forward=reshards)
    ids = torch.arange(8)[None]
    with torch.no_grad(), model.disable_adapter():
        model(input_ids=ids)
    model(input_ids=ids, labels=ids).loss.backward()
    trained = [parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name]
    assert trained == [reshards] * len(trained)

    plugin = SimpleNamespace(fsdp_version=2, reshard_after_forward=reshards)
    state = SimpleNamespace(fsdp_plugin=plugin)
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, state=state, num_processes=2)
    for stage, refused in (("dpo", not reshards), ("kto", not reshards), ("sft", False)):
        recipe = STAGES[stage](stage=stage, output_dir="r", model_name_or_path="m", datasets=[{"path": "d"}])
        with pytest.raises(TrainingError, match="fsdp_reshard_after_forward") if refused else nullcontext():
            require_possible(recipe, model, accelerator)
    free = recipe.model_copy(update={"peft_method": "full"})
    require_possible(free, make_model(make_tokenizer()), accelerator)
