"""Sampling with transformers' continuous batching: paged attention, and a new prompt wherever one has ended."""

import dataclasses
import math
from typing import Any

import torch
from transformers import GenerationConfig

from alignment.errors import ModelError
from alignment.rollout.engine import Completion, Sampling

PAGE_SIZE = 32  # tokens; on the CPU, where the library would size its cache by all of the memory
MEMORY_SHARE = 0.5  # of the free memory of a GPU; the library would take 0.9 of it and leave none to training


class ContinuousBatchingEngine:
    """Samples with `model` as it is now, through `model.generate_batch`.

    Equal calls give equal answers, but unlike with `TransformersEngine` an answer hangs on what else is in the call.
    Attention is computed by other kernels than in training, so the log-probabilities differ in rounding and come along.

    Args:
        model: a causal LM whose attention transformers can page. pad_token_id: any valid id.
        batch_size: sequences in flight on the CPU; on a GPU the library fills half of the memory that is free.
    """

    def __init__(self, model: Any, pad_token_id: int, batch_size: int = 64) -> None:
        if not hasattr(model, "generate_batch"):
            raise ModelError(
                f"{type(model).__name__} cannot be sampled by continuous batching with the installed transformers; "
                "use rollout_engine: transformers"
            )
        self.model = model
        self.pad_token_id = pad_token_id
        self.batch_size = batch_size

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Sample one answer per prompt; the global random state is left as it was.

        Raises: ModelError if the library loses or fails a request.
        """
        generation = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            eos_token_id=list(sampling.stop_token_ids) or -1,
            pad_token_id=self.pad_token_id,
        )
        training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng():  # the library seeds the global generator
                found = self.model.generate_batch(
                    prompt_ids,
                    generation_config=generation,
                    continuous_batching_config=self._configuration(prompt_ids, sampling),
                    warmup=self.model.device.type == "cuda",
                )
        finally:
            self.model.train(training)
        outputs = list(found.values())
        failed = [str(output.error) for output in outputs if output.error is not None]
        if failed or len(outputs) != len(prompt_ids):
            why = failed[0] if failed else f"{len(prompt_ids) - len(outputs)} of {len(prompt_ids)} requests were lost"
            raise ModelError(f"continuous batching failed: {why}. Use rollout_engine: transformers")
        return [self._completion(output, sampling) for output in outputs]

    def _configuration(self, prompt_ids: list[list[int]], sampling: Sampling) -> Any:
        from transformers import ContinuousBatchingConfig

        seed = (sampling.seed + sampling.first_row) % 2**32
        if self.model.device.type != "cpu":
            return ContinuousBatchingConfig(return_logprobs=True, seed=seed, max_memory_percent=MEMORY_SHARE)
        longest = max(map(len, prompt_ids)) + sampling.max_new_tokens
        together = min(self.batch_size, len(prompt_ids))
        known = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
        page_size = "page_size" if "page_size" in known else "block_size"  # transformers 5.17 has the latter alone
        return ContinuousBatchingConfig(
            return_logprobs=True,
            seed=seed,
            **{page_size: PAGE_SIZE},
            num_blocks=together * (math.ceil(longest / PAGE_SIZE) + 1),
            max_batch_tokens=max(256, longest, together),
            max_requests_per_batch=together,
            use_cuda_graph=False,
        )

    @staticmethod
    def _completion(output: Any, sampling: Sampling) -> Completion:
        ids = list(output.generated_tokens)
        return Completion(ids, bool(ids) and ids[-1] in sampling.stop_token_ids, list(output.logprobs))
