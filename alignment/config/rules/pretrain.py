"""Rules for the keys of pretraining."""

from collections.abc import Iterator

from alignment.config.methods import TUNING_METHODS
from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.schema.keys import QUANTISING
from alignment.config.schema.pretrain import OBJECTIVES, PretrainRecipe

FORCED = {
    "remove_unused_columns": "whose collator reads columns of its own",
    "use_cache": "where a cache would let the documents of a sequence see each other",
}

NOT_STREAMED = {
    "test_split_size": "give eval_datasets",
    "max_samples": "max_steps bounds what is read",
    "dataloader_num_workers": "each process reads its own part",
    "auto_find_batch_size": "set per_device_train_batch_size",
}


def objective_keys(keys: Keys) -> Iterator[Fault]:
    """Keys that one objective reads are refused beside another."""
    if keys.cls is not PretrainRecipe:
        return
    objective = keys["objective"]
    for name, facts in OBJECTIVES.items():
        for key in facts.keys:
            if name != objective and keys.changed(key):
                yield (key,), f"is read with objective {name} alone, and objective is {objective}; take it out"


def whole_model(keys: Keys) -> Iterator[Fault]:
    """Random weights are trained whole: an adapter would leave them random."""
    if keys.cls is not PretrainRecipe or not keys["from_scratch"]:
        return
    if not TUNING_METHODS[keys["peft_method"]].trains_base or TUNING_METHODS[keys["peft_method"]].has_adapter:
        yield ("peft_method",), f"{keys['peft_method']} leaves the random weights of from_scratch random; use full"
    for key in QUANTISING:
        if keys[key]:
            yield (key,), "holds weights that do not train, and those of from_scratch are random; take it out"


def forced(keys: Keys) -> Iterator[Fault]:
    """What the stage decides itself."""
    for key, reason in FORCED.items():
        if keys.cls is PretrainRecipe and keys[key]:
            yield (key,), f"must be false in {keys.about.title}, {reason}"


def stream(keys: Keys) -> Iterator[Fault]:
    """A stream has no end, no length and one reader in each process."""
    if keys.cls is not PretrainRecipe:
        return
    if not keys["streaming"]:
        if keys.changed("shuffle_buffer_size"):
            yield ("shuffle_buffer_size",), "is read with streaming: true alone; take it out"
        return
    if (keys["max_steps"] or -1) < 1:
        yield ("max_steps",), "must be given with streaming: a stream has no end"
    for key, instead in NOT_STREAMED.items():
        if keys[key]:
            yield (key,), f"cannot be used with streaming; {instead}"
    for place, entry in enumerate(keys["datasets"]):
        split = entry.get("split") if isinstance(entry, dict) else None
        if isinstance(split, str) and "%" in split:
            yield (
                ("datasets", place, "split"),
                "is a share of rows that are not counted in a stream; give numbers of rows",
            )


PRETRAIN_RULES: list[Rule] = [objective_keys, whole_model, forced, stream]
