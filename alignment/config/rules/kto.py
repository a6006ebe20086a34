"""Combinations of KTO's keys that are refused."""

from collections.abc import Iterator

from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.schema.kto import KTORecipe

NEEDS = {  # keys, with the key that they need
    "precompute_ref_batch_size": "precompute_ref_log_probs",
    "ref_model_mixup_alpha": "sync_ref_model",
    "ref_model_sync_steps": "sync_ref_model",
}
SEQUENTIAL = "sequential"


def microbatches(keys: Keys) -> Iterator[Fault]:
    """The KL is estimated on other answers of the same microbatch, which keeps its rows."""
    if not issubclass(keys.cls, KTORecipe) or keys["loss_type"] != "kto":
        return
    if keys["per_device_train_batch_size"] == 1:
        yield (
            ("per_device_train_batch_size",),
            "must be 2 or more with loss_type kto: its KL is estimated on the answers to other prompts of a "
            "microbatch; use gradient_accumulation_steps to keep the batch, or loss_type apo_zero_unpaired",
        )
    if keys["auto_find_batch_size"]:
        told = (
            "cannot be used with loss_type kto, whose rows are paired for one per_device_train_batch_size; take it out"
        )
        yield ("auto_find_batch_size",), told
    order = keys["train_sampling_strategy"]
    if order not in (None, SEQUENTIAL):
        told = (
            f"must be {SEQUENTIAL} with loss_type kto, found {order}: a microbatch keeps its rows, for the KL's pairs. "
        )
        yield ("train_sampling_strategy",), f"{told}The rows are shuffled once, by seed"


def reference(keys: Keys) -> Iterator[Fault]:
    """Keys of the reference have an effect."""
    if not issubclass(keys.cls, KTORecipe):
        return
    for key, needed in NEEDS.items():
        if keys.given(key) and not keys[needed]:
            yield (key,), f"has no effect without {needed}: true; take it out"
    if keys["sync_ref_model"] and keys["precompute_ref_log_probs"]:
        yield ("sync_ref_model",), "excludes precompute_ref_log_probs, whose reference does not change; give one"


KTO_RULES: list[Rule] = [microbatches, reference]
