"""DeepSpeed's files are read as tensors: what it writes is read back, and an object that runs code is refused."""

import os
from pathlib import Path

import pytest
import torch

from alignment.errors import TrainingError
from alignment.train.deepspeed_checkpoint import only_tensors
from tests.hostile.hostile_folders import Touch

pytestmark = pytest.mark.distributed
pytest.importorskip("deepspeed", reason="pip install '.[deepspeed]'")


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "checkpoint-3" / "global_step3").mkdir(parents=True)
    (tmp_path / "checkpoint-3" / "latest").write_text("global_step3")
    return tmp_path / "checkpoint-3"


def as_deepspeed_reads(file):
    return torch.load(file, weights_only=False)


def test_checkpoints_of_deepspeed_are_read(checkpoint):
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    dynamic = DynamicLossScaler(2**16, 2.0, 1000, 1.0, 2, False, torch.float16)
    saved = {"stage": ZeroStageEnum.weights, "part": fragment_address(4, 2), "tensor": torch.arange(3)}
    saved |= {"static": LossScaler(scale=2.0), "dynamic": dynamic}
    torch.save(saved, checkpoint / "state.pt")
    with only_tensors(str(checkpoint)):
        found = as_deepspeed_reads(checkpoint / "state.pt")
    assert found["stage"] is ZeroStageEnum.weights
    assert found["part"] == fragment_address(4, 2)
    assert vars(found["dynamic"]) == vars(dynamic)
    assert found["static"].loss_scale == 2.0


def test_an_object_that_runs_code_is_refused(checkpoint, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state": Touch(checkpoint / "ran")}, checkpoint / "state.pt")
    with (
        pytest.raises(TrainingError, match=r"holds the object getattr, .* could run code"),
        only_tensors(str(checkpoint)),
    ):
        as_deepspeed_reads(checkpoint / "state.pt")
    assert not (checkpoint / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    as_deepspeed_reads(checkpoint / "state.pt")  # the file does what the test claims
    assert (checkpoint / "ran").exists()


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp", ".", "global_step4", "", "global_step3/../../elsewhere"])
def test_another_folder_is_not_read(checkpoint, name):
    (checkpoint.parent / "elsewhere").mkdir()
    (checkpoint / "latest").write_text(name)
    with pytest.raises(TrainingError, match=r"latest|DeepSpeed"), only_tensors(str(checkpoint)):
        pytest.fail("was let in")


@pytest.mark.parametrize("linked", ["global_step3", "global_step3/state.pt"])
def test_links_are_not_followed(checkpoint, linked):
    elsewhere: Path = checkpoint.parent / "elsewhere"
    elsewhere.mkdir()
    if linked == "global_step3":
        (checkpoint / linked).rmdir()
    (checkpoint / linked).symlink_to(elsewhere)
    with pytest.raises(TrainingError, match="not a folder of that checkpoint"), only_tensors(str(checkpoint)):
        pytest.fail("was let in")
