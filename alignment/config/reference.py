"""The reference of all recipe keys, docs/recipes.md, written from the schema.

python -m alignment.config.reference > docs/recipes.md
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from alignment.config.faults import annotation_text, shown
from alignment.config.library import trainer_keys
from alignment.config.renamed import DECIDED
from alignment.config.schema import (
    STAGES,
    AdapterKeys,
    DataKeys,
    DatasetEntry,
    GRPORecipe,
    Mark,
    ModelKeys,
    Part,
    PipelineRecipe,
    PolicyGradientRecipe,
    PPORecipe,
    Recipe,
    RewardRecipe,
    RLOORecipe,
    SamplingKeys,
    ValueRecipe,
)
from alignment.config.schema.calls import CallKeys, CallLimits
from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import mappings_of, marks_of, parts_within

INTRODUCTION = """# Recipe keys

<!-- Written by `python -m alignment.config.reference > docs/recipes.md`; change the schema, not this page. -->

A recipe is one flat YAML file. `stage` names the command that runs it. Every key can be changed on the command line:
`alignment sft --config sft.yaml --learning_rate 1e-5 --datasets.0.split test`. An unknown key, a wrong type and an
impossible combination are errors; `alignment check RECIPE` shows all of them at once.

The column *source* names the class of TRL or transformers that has a key of this name. `~` and `$VARIABLE` are expanded
in paths. Keys marked † do not affect the result: an interrupted run resumes when they change.
"""
BOUNDS: dict[type[Any], tuple[str, str]] = {Gt: ("gt", "> "), Ge: ("ge", "≥ "), Lt: ("lt", "< "), Le: ("le", "≤ ")}
LARGEST_BOUND = 1000  # larger upper bounds only exclude mistakes
TRAINING_ARGUMENTS = "transformers.training_args:TrainingArguments"
GROUPS: dict[type[Part], tuple[str, str]] = {
    Recipe: ("Every stage", TRAINING_ARGUMENTS),
    ModelKeys: ("Model", "trl.trainer.model_config:ModelConfig"),
    AdapterKeys: ("Adapter", "trl.trainer.model_config:ModelConfig"),
    DataKeys: ("Data", "trl.scripts.utils:DatasetMixtureConfig"),
    SamplingKeys: ("Sampling", "trl.trainer.grpo_config:GRPOConfig"),
    CallLimits: ("Limits of judge calls", TRAINING_ARGUMENTS),
    CallKeys: ("Calls of judges", TRAINING_ARGUMENTS),
    PolicyGradientRecipe: ("Policy gradients", "trl.trainer.grpo_config:GRPOConfig"),
    ValueRecipe: ("Value", TRAINING_ARGUMENTS),
}
MORE_SOURCES: dict[type[Part], tuple[str, ...]] = {
    DatasetEntry: ("trl.scripts.utils:DatasetConfig",),
    RewardRecipe: ("trl.trainer.reward_config:RewardConfig",),
    GRPORecipe: ("trl.trainer.grpo_config:GRPOConfig",),
    RLOORecipe: ("trl.trainer.rloo_config:RLOOConfig",),
}
TRL_PPO = (
    "TRL 1.12 `PPOConfig`",
    (
        "reward_model_path", "total_episodes", "num_ppo_epochs", "num_mini_batches", "kl_coef", "kl_estimator",
        "gamma", "lam", "cliprange", "cliprange_value", "vf_coef", "missing_eos_penalty", "num_sample_generations",
        "ds3_gather_for_generation",
    ),
)  # fmt: skip
OTHER_SOURCES: dict[type[Part], tuple[str, tuple[str, ...]]] = {  # of classes that cannot be read here
    SamplingKeys: ("transformers `GenerationConfig`", ("max_new_tokens", "temperature", "top_p", "top_k")),
    PolicyGradientRecipe: TRL_PPO,
    ValueRecipe: TRL_PPO,
    PPORecipe: TRL_PPO,
}
HEAD = ("| key | type | default | meaning | source |", "|---|---|---|---|---|")
INTERNAL = ("library", "source")


def markdown() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *map(_stage, STAGES), *_groups(), *_entries(), _pipelines(), _decided()])


def _stage(name: str) -> str:
    cls = STAGES[name]
    titles = [GROUPS[part][0] for part in cls.__mro__ if part in GROUPS]
    keys = [f"[{title.lower()}](#{_anchor(title)})" for title in titles]
    if cls.TRAINER_CONFIG:
        keys.append(f"every other key of {_named(cls.TRAINER_CONFIG)}, which `alignment {name} --help` lists")
    table = _table(cls, cls.TRAINER_CONFIG or TRAINING_ARGUMENTS, *MORE_SOURCES.get(cls, ()))
    end = "; and:" if table else "."
    return "\n".join([f"## {name}", "", f"{_sentence(cls)} Keys: {', '.join(keys)}{end}", "", *table])


def _groups() -> Iterator[str]:
    for part, (title, spec) in GROUPS.items():
        yield "\n".join([f"## {title}", "", _sentence(part), "", *_table(part, spec)])


def _entries() -> Iterator[str]:
    """Mappings inside recipes, with the keys that take them; all kinds of one thing together."""
    taken: dict[type[Part], list[str]] = {}
    for part in dict.fromkeys(part for cls in STAGES.values() for part in parts_within(cls)):
        for name, info in part.model_fields.items():
            for entry in dict.fromkeys(map(_whole, mappings_of(info))):
                names = taken.setdefault(entry, [])
                names += [name] if name not in names else []
    for entry, names in taken.items():
        where = f"The mapping, or each mapping, of `{'`, `'.join(names)}`. {_sentence(entry)}"
        table = _kinds_table(entry) if issubclass(entry, Entry) else _table(entry, *MORE_SOURCES.get(entry, ()))
        yield "\n".join([f"## {_title(entry)}", "", where, "", *table])


def _whole(entry: type[Part]) -> type[Part]:
    """Return the common class of all kinds of an entry."""
    return entry.family() if issubclass(entry, Entry) else entry


def _kinds_table(family: type[Entry]) -> list[str]:
    """The keys of all kinds; those of some kinds name them."""
    kinds = {each.kind_names()[0]: each for each in family.kinds()}
    what = " ".join(f"`{kind}`: {each.model_fields['kind'].description}" for kind, each in kinds.items())
    rows = [f"| `kind` | one of {', '.join(kinds)} | required | {what} | ours |"]
    for name in family.keys_of_all_kinds():
        found: dict[str, list[str]] = {}  # row of a key → kinds that have it
        for kind, each in kinds.items():
            if name in each.model_fields and name != "kind":
                found.setdefault(_row(name, each.model_fields[name], each, ()), []).append(kind)
        for row, having in found.items():
            cells = row.split(" | ")
            cells[3] = cells[3] if len(having) == len(kinds) else f"`{'`, `'.join(having)}`: {cells[3]}"
            rows.append(" | ".join(cells))
    return [*HEAD, *rows, ""]


def _pipelines() -> str:
    lines = ["## Pipelines", "", "The keys of `pipeline.yaml`, which names stages in order.", ""]
    lines += _table(PipelineRecipe)
    (stage,) = mappings_of(PipelineRecipe.model_fields["stages"])
    lines += [f"## {_title(stage)}", "", f"Each mapping of `stages`. {_sentence(stage)}", "", *_table(stage)]
    inner, key = stage, "require"
    while inside := mappings_of(inner.model_fields[key]):
        (inner,) = inside
        lines += [f"## {_title(inner)}", "", f"The mapping of `{key}`. {_sentence(inner)}", "", *_table(inner)]
        key = next(iter(inner.model_fields))
    return "\n".join(lines)


def _decided() -> str:
    lines = ["## Keys that cannot be set", "", "A recipe with one of these keys of TRL or transformers is refused.", ""]
    lines += ["| key | why |", "|---|---|", *(f"| `{key}` | {_escaped(why)} |" for key, why in DECIDED.items())]
    return "\n".join([*lines, ""])


def _table(part: type[Part], *specs: str) -> list[str]:
    """The keys that a class itself adds."""
    rows = [_row(name, part.model_fields[name], part, specs) for name in keys_of(part)]
    return [*HEAD, *rows, ""] if rows else []


def keys_of(part: type[Part]) -> list[str]:
    """Return the keys that a class adds to those of its bases."""
    inherited = {name for base in part.__bases__ if issubclass(base, Part) for name in base.model_fields}
    own = [name for name in part.model_fields if name in part.__annotations__ and name not in INTERNAL]
    return [name for name in own if name not in inherited or part.model_fields[name].description]


def _row(name: str, info: FieldInfo, part: type[Part], specs: tuple[str, ...]) -> str:
    free = " †" if Mark.FREE in marks_of(info) else ""
    meaning = _linked(" ".join((info.description or "").split()))
    cells = (f"`{name}`{free}", _type(info), _default(info), meaning, _source(name, part, specs))
    return f"| {' | '.join(map(_escaped, cells))} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return f"`{value}`" if isinstance(value, str) and value else f"`{shown(value)}`"


def _linked(text: str) -> str:
    """Turn addresses in parentheses into links."""
    return re.sub(r"\((https?://[^\s)]+)\)", lambda found: f"([{found[1].rpartition('//')[2]}]({found[1]}))", text)


def _type(info: FieldInfo) -> str:
    entries = list(dict.fromkeys(map(_whole, mappings_of(info))))
    text = annotation_text(info.annotation)
    for entry in entries:
        link = f"[mappings](#{_anchor(_title(entry))})"
        text = re.sub(r"mappings( or mappings)*", link, text)
    if not text.startswith("a list of"):
        text = text.replace("[mappings]", "[a mapping]")
    return ", ".join([text, *_bounds(info)])


def _bounds(info: FieldInfo) -> Iterator[str]:
    for limit in info.metadata:
        for kind, (name, sign) in BOUNDS.items():
            if isinstance(limit, kind) and abs(getattr(limit, name)) <= LARGEST_BOUND:
                yield f"{sign}{getattr(limit, name):.10g}"


def _source(name: str, part: type[Part], specs: tuple[str, ...]) -> str:
    label, names = OTHER_SOURCES.get(part, ("", ()))
    if name in names:
        return label
    return next((_named(spec) for spec in specs if name in trainer_keys(spec)), "ours")


def _named(spec: str) -> str:
    """Return `TRL `SFTConfig`` for "trl.trainer.sft_config:SFTConfig"."""
    module, _, name = spec.partition(":")
    package = module.partition(".")[0]
    return f"{'TRL' if package == 'trl' else package} `{name}`"


def _sentence(part: type[Part]) -> str:
    text = " ".join((part.__doc__ or "").split())
    return text if text.endswith(".") else f"{text}."


def _title(entry: type[Part]) -> str:
    """Return "Gate" for `GateEntry`, "Pipeline stage" for `PipelineStage`."""
    if issubclass(entry, Entry):
        return entry.FAMILY.capitalize()
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", entry.__name__.removesuffix("Entry")).capitalize()


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
