"""vLLM is handed the adapter alone where it can hold it, under a new name each time; else merged weights.

A stand-in for vLLM's `LLM` loads the adapter's files with PEFT on a base of its own, and keeps a cache by the
adapter's name, as vLLM's prefix cache does.
"""

import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from alignment.errors import ModelError
from alignment.policy.quantised import compute_as_configured
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.rollout.vllm_adapter import RANKS, VersionedAdapter
from alignment.train.policy_gradient.engines import build_engine
from tests.models import save_tiny_model
from tests.rollout.test_vllm_engine import PROMPT_TEXTS, PROMPTS, recipe, roles_of, template_of


class Request:
    """`vllm.lora.request.LoRARequest`."""

    def __init__(self, lora_name: str, lora_int_id: int, lora_path: str) -> None:
        self.lora_name, self.lora_int_id, self.lora_path = lora_name, lora_int_id, lora_path


class LLM:
    """`vllm.LLM` with one adapter at a time, cached by name."""

    started: Any = None

    def __init__(self, **settings: Any) -> None:
        LLM.started = settings
        quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        given = {"quantization_config": quantised} if settings["quantization"] == "bitsandbytes" else {}
        self.base = lambda: compute_as_configured(
            AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32, **given), "the base"
        )
        self.models: dict[str, Any] = {}
        self.names: list[str] = []
        self.llm_engine = None

    def generate(self, prompts: Any, *, sampling_params: Any, use_tqdm: bool, lora_request: Any = None) -> list[Any]:
        assert lora_request is not None
        self.names.append(lora_request.lora_name)
        if lora_request.lora_name not in self.models:
            adapted = PeftModel.from_pretrained(self.base(), lora_request.lora_path)
            assert max(each.r for each in adapted.peft_config.values()) <= LLM.started["max_lora_rank"]
            self.models[lora_request.lora_name] = adapted
        model = self.models[lora_request.lora_name]
        sampling = Sampling(sampling_params.max_tokens, 0.0, stop_token_ids=sampling_params.stop_token_ids)
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        found = TransformersEngine(model.get_base_model(), 0).generate(ids, sampling)
        return [_output(prompt, completion.ids) for prompt, completion in zip(ids, found, strict=True)]


def _output(prompt: list[int], ids: list[int]) -> Any:
    logps = [{token: types.SimpleNamespace(rank=1, logprob=-0.5)} for token in ids]
    return types.SimpleNamespace(
        prompt_token_ids=prompt, outputs=[types.SimpleNamespace(token_ids=ids, logprobs=logps)]
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("adapter") / "base", initializer_range=0.3, hidden_size=64)


@pytest.fixture
def vllm(monkeypatch):
    """Put the stand-in where TRL looks for vLLM."""
    from trl.generation import vllm_generation as theirs

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # put back afterwards: TRL sets them
        monkeypatch.delenv(name)
    module = types.ModuleType("vllm.lora.request")
    module.LoRARequest = Request
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.lora", types.ModuleType("vllm.lora"))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", module)
    monkeypatch.setattr(theirs, "is_vllm_available", lambda: True)
    monkeypatch.setattr(theirs, "LLM", LLM, raising=False)
    monkeypatch.setattr(theirs, "SamplingParams", lambda **keys: types.SimpleNamespace(**keys), raising=False)
    monkeypatch.setattr("alignment.train.policy_gradient.engines.vllm_is_installed", lambda: True)
    return theirs


@pytest.mark.parametrize("keys", [{}, {"load_in_4bit": True, "use_rslora": True}], ids=["plain", "nf4"])
def test_every_call_samples_with_the_present_adapter_under_a_new_name(base, vllm, keys):
    roles = roles_of(base, **keys)
    engine = build_engine(recipe(base, **keys), roles, template_of(base), PROMPT_TEXTS, Accelerator(cpu=True))
    assert vllm.LLM is LLM  # what was put in TRL's module is gone
    assert LLM.started["enable_lora"]
    assert LLM.started["quantization"] == ("bitsandbytes" if "load_in_4bit" in keys else None)
    sampling = Sampling(max_new_tokens=6, temperature=0.0, stop_token_ids=[1, 7])
    different = set()
    for _ in range(3):
        answers = [each.ids for each in engine.generate(PROMPTS, sampling)]
        assert answers == [each.ids for each in TransformersEngine(roles.policy_lm, 0).generate(PROMPTS, sampling)]
        different.add(str(answers))
        with torch.no_grad():  # an update
            for name, parameter in roles.named_parameters():
                if ".policy." in name:
                    parameter.mul_(2.0)
    assert len(different) == 3
    assert engine.generation.llm.llm.names == ["policy-1", "policy-2", "policy-3"]


OBSTACLES = [
    ({"peft_method": "full"}, "peft_method is full"),
    ({"peft_method": "dora"}, "vLLM has no DoRA"),
    ({"lora_modules_to_save": ["lm_head"]}, "vLLM has no modules_to_save"),
    ({"vllm_enable_sleep_mode": True}, "vllm_enable_sleep_mode discards the base's weights"),
    ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "vLLM quantises by NF4 with nested constants"),
    ({"load_in_4bit": True, "use_bnb_nested_quant": False}, "vLLM quantises by NF4 with nested constants"),
    ({"load_in_8bit": True}, "vLLM quantises no base to 8 bits"),
]


@pytest.mark.parametrize(("keys", "reason"), OBSTACLES, ids=[reason for _, reason in OBSTACLES])
def test_where_vllm_cannot_hold_the_adapter_merged_weights_are_handed_over(base, vllm, caplog, keys, reason):
    if keys.get("vllm_enable_sleep_mode"):
        vllm.LLM.sleep = lambda self, level: None
    roles = roles_of(base, **keys)
    with caplog.at_level(logging.WARNING):
        engine = build_engine(recipe(base, **keys), roles, template_of(base), PROMPT_TEXTS, Accelerator(cpu=True))
    assert f"vLLM is handed merged weights before each rollout, because {reason}" in caplog.text
    assert "enable_lora" not in LLM.started
    assert isinstance(engine.generation.llm, LLM)
    with pytest.raises(ModelError, match="vllm_sync is adapter, but " + reason):
        build_engine(
            recipe(base, vllm_sync="adapter", **keys), roles, template_of(base), PROMPT_TEXTS, Accelerator(cpu=True)
        )  # fmt: skip


def test_merged_weights_on_request(base, vllm):
    given = recipe(base, vllm_sync="merged")
    build_engine(given, roles_of(base), template_of(base), PROMPT_TEXTS, Accelerator(cpu=True))
    assert "enable_lora" not in LLM.started


def test_versions_are_files_of_their_own_and_old_ones_are_removed(tmp_path):
    def save(path: Path) -> None:
        path.mkdir()
        (path / "weights").write_text(str(len(list(tmp_path.rglob("weights")))))

    adapter = VersionedAdapter(save, 9, memory=tmp_path)
    found = [adapter.next_version() for _ in range(3)]
    assert [(name, number) for name, number, _ in found] == [("policy-1", 1), ("policy-2", 2), ("policy-3", 3)]
    assert [Path(path).exists() for _, _, path in found] == [False, False, True]
    assert adapter.largest_rank == 16
    assert all(VersionedAdapter(save, rank, memory=tmp_path).largest_rank == rank for rank in RANKS)
