"""Sampling with vLLM, through TRL's `VLLMGeneration`: in this process's GPU memory, or on a server of its own.

vLLM needs a GPU. What is here is tested against a stand-in that checks the calls; it has not been run on hardware.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from alignment.errors import ModelError
from alignment.rollout.engine import Completion, Sampling
from alignment.rollout.vllm_adapter import VersionedAdapter, WithAdapter

Weights = Callable[[], Iterator[tuple[str, Tensor]]]


def vllm_is_installed() -> bool:
    """Whether vLLM can be imported."""
    return importlib.util.find_spec("vllm") is not None


class Generation(Protocol):
    """What is used of TRL's `VLLMGeneration`."""

    temperature: float
    top_p: float
    top_k: int
    max_completion_length: int
    generation_kwargs: dict[str, Any]

    def sync_weights(self) -> None:
        """Hand vLLM the model's weights."""

    def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> tuple[Any, Any, Any, Any]:
        """Return prompts, completions, log-probabilities and their token ids."""


class VLLMEngine:
    """Samples with vLLM; every call first hands it the policy's present weights.

    Answers come with vLLM's own log-probabilities, which differ from the model's: kernels and precision are others.
    They are not reproducible to the bit, and neither is a run that uses them.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Sample one answer per prompt.

        Raises: ModelError if vLLM ends an answer for an unknown reason.
        """
        vllm = self.generation
        vllm.temperature, vllm.top_p, vllm.top_k = sampling.temperature, sampling.top_p, sampling.top_k
        vllm.max_completion_length = sampling.max_new_tokens
        # A model's own end tokens are ignored: an answer ends with the template's stop tokens, as in training.
        vllm.generation_kwargs = {"stop_token_ids": list(sampling.stop_token_ids), "ignore_eos": True}
        vllm.sync_weights()
        _, answers, logps, _ = vllm.generate(prompt_ids, None, num_generations=1)
        if logps is None:
            raise ModelError(
                "vLLM gave no log-probabilities, so it cannot be checked whether it samples with the policy"
            )
        if len(answers) != len(prompt_ids):
            raise ModelError(f"vLLM gave {len(answers)} answers to {len(prompt_ids)} prompts")
        return [self._completion(list(ids), logps[row], sampling) for row, ids in enumerate(answers)]

    @staticmethod
    def _completion(ids: list[int], logps: Any, sampling: Sampling) -> Completion:
        stopped = bool(ids) and ids[-1] in sampling.stop_token_ids
        if not stopped and len(ids) < sampling.max_new_tokens:
            raise ModelError(
                f"vLLM ended an answer after {len(ids)} of {sampling.max_new_tokens} tokens without a stop token "
                f"({', '.join(map(str, sampling.stop_token_ids))}); is vllm_max_model_length too small?"
            )
        return Completion(ids, stopped, [float(each[0]) for each in logps])  # of each token, the sampled one's


def vllm_generation(weights: Weights, adapter: VersionedAdapter | None = None, **settings: Any) -> Generation:
    """Build TRL's generation, which takes what it hands vLLM from here instead of walking the model.

    TRL's own walk merges and unmerges the active adapter in place, which leaves a rounding error in the frozen base
    that the other roles share. TRL also has vLLM quantise a model like the trainer's where that is held in 4 bits;
    whole weights are handed on here, so vLLM holds whole ones.

    Args:
        weights: names and tensors as the plain model has them.
        adapter: hand over this instead, and leave the base as vLLM loaded it.
        settings: of `VLLMGeneration`; `quantization` of the base goes to vLLM and needs `adapter`.
    """
    from trl.generation import vllm_generation as theirs

    quantization = settings.pop("quantization", None)

    class FromRoles(theirs.VLLMGeneration):
        model: Any
        llm: Any

        def _init_vllm(self) -> None:
            policy, self.model = self.model, _Named(self.model.name_or_path)
            try:
                with _started_with_adapters(theirs, adapter, quantization):
                    super()._init_vllm()
            finally:
                self.model = policy

        def _iter_named_params(self) -> Iterator[tuple[str, Tensor]]:
            return weights()

        def sync_weights(self) -> None:
            if adapter is None:
                super().sync_weights()
            else:
                from vllm.lora.request import LoRARequest

                self.llm.request = LoRARequest(*adapter.next_version())

    generation: Generation = FromRoles(**settings)
    return generation


@contextlib.contextmanager
def _started_with_adapters(theirs: Any, adapter: VersionedAdapter | None, quantization: str | None) -> Iterator[None]:
    """Have TRL's module start vLLM with adapters; its own settings have no key for them."""
    if adapter is None:
        yield
        return
    plain = theirs.LLM
    ours = {"enable_lora": True, "max_loras": 1, "max_lora_rank": adapter.largest_rank, "quantization": quantization}
    theirs.LLM = lambda **settings: WithAdapter(plain(**{**settings, **ours}))
    try:
        yield
    finally:
        theirs.LLM = plain


@dataclass(frozen=True, slots=True)
class _Named:
    """A model's name without its modules, of which none is quantised then."""

    name_or_path: str

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        return iter(())
