"""The common part of DPO and KTO: tokenised rows with a probability, and a frozen reference that checkpoints hold."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from alignment.errors import RecipeError
from alignment.policy.adapters import preserve_dtype
from alignment.policy.dropout import without_dropout
from alignment.train.dpo_reference import complete_reference, frozen_reference
from alignment.train.evaluating import WeighedEvaluation
from alignment.train.sharding import is_sharded
from alignment.train.token_rows import as_dataset

REFERENCE = "reference.safetensors"  # in a checkpoint, where the reference is synchronised with the policy


class ReferenceTrainer(WeighedEvaluation):
    """To be combined with a trainer of TRL that compares the policy with a reference."""

    accelerator: Any
    precompute_ref_logps: bool
    _starts = True  # until the first training batch
    _reference_complete = False

    def __init__(self, *args: Any, before_reference: Callable[[], None], **options: Any) -> None:
        self._before_reference = before_reference  # restores what TRL casts before it computes the reference
        super().__init__(*args, **options)

    def _save_rng_state(self, output_dir: str) -> None:
        """Called on every process for every checkpoint: a reference that follows the policy is part of it."""
        super()._save_rng_state(output_dir)
        if self.args.sync_ref_model and self.args.should_save:
            weights = {name: p.detach().contiguous() for name, p in self._reference().named_parameters()}
            save_file(weights, Path(output_dir) / REFERENCE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        policy = self.model if model is None else model
        beside = list(Path(resume_from_checkpoint).glob("*/adapter_config.json"))
        if beside and isinstance(policy, PeftModel) and not is_sharded(self.accelerator):
            # transformers 5.17 reads TRL's reference adapter in its folder, and not the policy's beside it
            policy.load_adapter(resume_from_checkpoint, policy.active_adapters[0], is_trainable=True)
        if self.args.sync_ref_model:
            weights = load_file(Path(resume_from_checkpoint) / REFERENCE)
            with torch.no_grad():
                for name, parameter in self._reference().named_parameters():
                    parameter.copy_(weights[name])

    def _reference(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.ref_model)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Leave rows as they are: tokenised by the project's template."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "probability" not in self._signature_columns:
            self._signature_columns.append("probability")

    def _precompute_ref_logps(self, dataset: Dataset, *how: Any) -> Dataset:
        """Let each process write the numbers, which all of them have, to a cache of its own.

        TRL's main process alone writes them, to a temporary folder that the others do not know.
        """
        self.complete_reference()
        shared, self.accelerator = self.accelerator, _EachWrites(self.accelerator)
        try:
            found: Dataset = super()._precompute_ref_logps(dataset, *how)
        finally:
            self.accelerator = shared
        return found

    def complete_reference(self) -> None:
        """Make an adapter's reference the policy's start; once, before its first pass and before weights are cut."""
        if not self._reference_complete:
            self._before_reference()
            complete_reference(self.accelerator.unwrap_model(self.model))
            self._reference_complete = True

    def is_first_batch(self) -> bool:
        """Whether this is the first batch of a run that starts, of which policy and reference are equal; once."""
        starts = self._starts and self.model.training
        self._starts = self._starts and not starts
        return starts and self.state.global_step == 0

    @contextmanager
    def _references_given(self) -> Iterator[None]:
        before, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            yield
        finally:
            self.precompute_ref_logps = before


class _EachWrites:
    """An accelerator that takes every process for the one that writes."""

    is_main_process = True

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)


class NotedCalls:
    """Calls a model and keeps the log-probabilities, (sequences, time), of each call with the fused output layer."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model
        self.logps: list[Tensor] = []

    def __call__(self, **inputs: Any) -> Any:
        """Call the model."""
        outputs = self.model(**inputs)
        if inputs.get("fused_lm_head"):
            self.logps.append(outputs.log_probs)
        return outputs


def without_probability(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch as TRL knows it."""
    return {key: value for key, value in inputs.items() if key != "probability"}


Trainer = TypeVar("Trainer", bound=ReferenceTrainer)


def built_with_reference(
    trainer_class: Callable[..., Trainer],
    model: Any,
    arguments: Any,
    *,
    reference: Any,
    tokenizer: Any,
    collator: Any,
    train: Sequence[dict[str, Any]],
    evaluation: Sequence[dict[str, Any]],
    callbacks: list[TrainerCallback] | None,
) -> Trainer:
    """Build a trainer of TRL with a frozen reference.

    Args:
        reference: the reference model of full fine-tuning; an adapter's is its start: the base, or a frozen copy.

    Raises: RecipeError where TRL refuses the keys, or no checkpoint could hold the reference.
    """
    for each in (model, reference):
        if each is not None:
            without_dropout(each)  # TRL's disable_dropout sets modules only
    try:
        with preserve_dtype(model) as restore, frozen_reference(model):
            trainer = trainer_class(
                model,
                before_reference=restore,
                ref_model=reference,
                args=arguments,
                data_collator=collator,
                train_dataset=as_dataset(train),
                eval_dataset=as_dataset(evaluation) if evaluation else None,
                processing_class=tokenizer,
                callbacks=callbacks,
            )
    except (ValueError, NotImplementedError) as error:
        raise RecipeError([str(error)]) from error
    trainer.complete_reference()
    if arguments.sync_ref_model and is_sharded(trainer.accelerator):
        fault = (
            "sync_ref_model: no checkpoint holds a reference whose weights lie in shards, so that a killed run could "
        )
        raise RecipeError([fault + "not go on; use data parallelism or ZeRO-2, or leave the key out."])
    return trainer
