"""Resolves a reward model once: where its weights are, their hash, its scale, its lineage, and its role in PPO."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError, named_inputs
from alignment.manifest import read_manifest
from alignment.meter import say_once
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import config_of
from alignment.policy.held import held_as_trained
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.quantised import as_stored
from alignment.policy.weight_files import require_floats
from alignment.policy.weights import weights_hash

READS_THE_SAME_IDS = ("tokenizer_sha256", "template_sha256", "stop_token_ids")  # of a lineage


@dataclass(frozen=True, slots=True)
class RewardModel:
    """One reward model of a recipe."""

    path: str  # as the recipe names it
    base: str
    adapter: str | None
    weights_sha256: str  # of the adapter, else of the base
    scale: tuple[float, float] | None = None  # mean and standard deviation of its scores in training; None: unknown
    lineage: Mapping[str, Any] = field(default_factory=dict)  # of its manifest
    role: str | None = None  # its role on the policy's base; None: a separate model

    @classmethod
    def resolve(cls, path: str) -> "RewardModel":
        """Find a reward model's weights and read its manifest.

        Raises: ModelError if there is no such model.
        """
        source = resolve_model(path)
        manifest = read_manifest(source.newest)
        mean, std = manifest.get("score_mean"), manifest.get("score_std")
        return cls(
            path,
            source.base,
            source.adapter,
            weights_sha256=weights_hash(source.newest),
            scale=None if mean is None or std is None or std <= 0 else (mean, std),
            lineage=manifest.get("lineage", {}),
        )

    def fits(self, policy: ModelSource, lineage: Mapping[str, Any]) -> bool:
        """Whether it can be a role on the policy's base.

        It can if it is an adapter on the same weights and reads the same token ids: tokenizer, template and stop tokens
        agree, as far as its manifest records them.
        """
        if self.adapter is None or not Path(self.adapter).is_dir():
            return False
        if any(self.lineage.get(key, lineage.get(key)) != lineage.get(key) for key in READS_THE_SAME_IDS):
            return False
        return weights_hash(self.base) == weights_hash(policy.base)


@named_inputs()
def require_reward_models(paths: Sequence[str]) -> None:
    """Refuse reward models that are missing, and adapters that are damaged or of a policy, before a run begins.

    Raises: ModelError or LineageError, with the exit code of a recipe's faults.
    """
    for path in paths:
        adapter = resolve_model(path).adapter
        if adapter is None or not Path(adapter).is_dir():
            continue
        if read_adapter_config(adapter).task_type != "SEQ_CLS":
            raise ModelError(
                f"{path} is the adapter of a policy, and a reward model is needed here; name the run of a reward stage."
            )
        require_floats(Path(adapter))


def name_roles(models: Sequence[RewardModel]) -> list[RewardModel]:
    """Give reward models on the base their roles: `reward`, `reward_1`, `reward_2` and so on."""
    return [replace(model, role=f"reward_{i}" if i else "reward") for i, model in enumerate(models)]


def resolve_on(keys: ModelKeys, paths: Sequence[str], lineage: Mapping[str, Any]) -> dict[str, RewardModel]:
    """Resolve reward models by path, and give those that fit the policy's base their roles.

    Args:
        keys: the policy. lineage: of the policy, as in the manifest.
    """
    policy = resolve_model(keys.model_name_or_path, revision=keys.model_revision)
    models = {path: RewardModel.resolve(path) for path in paths}
    roles = name_roles([model for model in models.values() if model.fits(policy, lineage)])
    for model in roles:
        _tell_bits(model, keys)
    return models | {model.path: model for model in roles}


def _tell_bits(model: RewardModel, keys: ModelKeys) -> None:
    """Report a reward model that trained on the base in another precision than the policy's roles have.

    Args:
        keys: the policy.
    """
    held = held_as_trained(model.path)
    if not held:
        return
    config = config_of(keys)
    trained, here = (as_stored(each, config) for each in (keys.in_floats(**held), keys))
    if trained.bits != here.bits:
        then, now = (f"{each.bits} bits" if each.bits else "floating point" for each in (trained, here))
        say_once(
            f"{model.path} was trained on the base in {then}, and scores on it in {now}: its scores differ by the "
            "rounding. Hold both alike for the scores of training."
        )
