"""Policies that answer: behind a run's folder its tokenizer, chat template, stop tokens and model.

Adapters on one base share it in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pydantic

from alignment.config.faults import from_pydantic
from alignment.config.schema import ModelKeys, ProxyEntry
from alignment.config.schema.keys import QUANTISING
from alignment.data.template import Template
from alignment.errors import DataError, ModelError, RecipeError
from alignment.manifest import read_manifest
from alignment.policy.base import load_causal_lm, require_loadable, whole_modules
from alignment.policy.held import held_as_trained
from alignment.policy.inference import best_device, context_limit
from alignment.policy.many_adapters import ManyAdapters
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.proxy import proxy_tuned, require_one_tokenizer
from alignment.policy.tokenizer import load_tokenizer
from alignment.policy.weights import weights_hash


@dataclass(frozen=True)
class Policy:
    """A policy whose weights are not loaded yet."""

    path: str  # as it was named: a run, a model's or an adapter's folder, or a Hub id
    keys: ModelKeys
    source: ModelSource
    tokenizer: Any
    template: Template
    proxy: ProxyEntry | None = None

    @classmethod
    def find(cls, path: str, given: Mapping[str, Any] | None = None, *, proxy: ProxyEntry | None = None) -> "Policy":
        """Find a policy, held as its run held it, with the chat template and the stop tokens of its training.

        Args:
            given: keys of `ModelKeys` that the user sets, in place of what the run recorded. proxy: a pair of small
                models that changes its logits.

        Raises: ModelError if there is no policy: nothing, a reward model, a missing base, a chat template that fails;
            LineageError if the proxy has another tokenizer.
        """
        source = resolve_model(path, revision=(given or {}).get("model_revision", "main"))
        held = held_as_trained(path)
        if given and any(map(given.get, QUANTISING)):
            held = {key: value for key, value in held.items() if key not in QUANTISING}
        keys = _keys({**held, **(given or {}), "model_name_or_path": path})
        require_loadable(keys, trainable=False, peft=None)
        if proxy is not None:
            require_one_tokenizer(keys, proxy)
        tokenizer = load_tokenizer(keys)
        try:
            template = Template(tokenizer, keys.chat_template, keys.eos_token)
        except DataError as error:
            raise ModelError(f"{path}: {error}") from error
        return cls(path, keys, source, tokenizer, template, proxy)

    @cached_property
    def base_identity(self) -> tuple[Any, ...]:
        """What is equal for policies that can share a base in memory: its weights, and how they are held."""
        held = self.keys.model_dump(exclude={"model_name_or_path", "chat_template", "eos_token"})
        return (weights_hash(self.source.base), *held.values())

    @property
    def chats(self) -> bool:
        """Whether it answers messages; without a chat template it continues text."""
        return self.template.chat_template is not None

    @cached_property
    def trained_on_text(self) -> bool:
        """Whether its run trained on text that the chat template was not applied to, as far as it recorded this."""
        manifest = read_manifest(self.path)
        return manifest.get("prompt_kind") == "text" or manifest.get("stage") == "pretrain"

    @property
    def pad_token_id(self) -> int:
        """A token for padding, which is masked."""
        own = self.tokenizer.pad_token_id
        return int(own) if own is not None else self.template.stop_token_ids[0]


def _keys(values: dict[str, Any]) -> ModelKeys:
    """Return checked keys.

    Raises: RecipeError if the user gave one a value that it cannot have.
    """
    try:
        return ModelKeys(**values)
    except pydantic.ValidationError as error:
        faults = from_pydantic(error, ModelKeys, values)
        raise RecipeError([f"{'.'.join(map(str, where))}: {fault}" for where, fault in faults]) from None


@dataclass
class Held:
    """A model in memory, and the policies that it computes."""

    model: Any
    policies: list[Policy] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # of each policy's adapter in `adapters`; None: the base
    adapters: ManyAdapters | None = None  # None: `model` is the one policy

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and answer; None if there is no limit."""
        return context_limit(self.model)

    def add(self, policy: Policy, name: str) -> None:
        """Put a policy on the base in memory, its adapter under a name.

        Raises: ModelError if it is of another base, cannot share one, or its weights are damaged; nothing has changed.
        """
        adapter = policy.source.adapter
        if self.adapters is None or policy.proxy is not None:
            raise ModelError(f"{policy.path} cannot share the base in memory.")
        if adapter is not None and whole_modules(policy.source.base, policy.keys, [adapter], []):
            raise ModelError(
                f"{policy.path} trained modules whole, which the base in memory holds in {policy.keys.bits} bits."
            )
        if adapter is not None:
            try:
                self.adapters.add(name, adapter)
                self.adapters.activate(name)  # reads its weights
            except BaseException:
                self.adapters.remove(name)
                raise
            finally:
                self.adapters.assign(None)
        self.policies.append(policy)
        self.names.append(None if adapter is None else name)

    def remove(self, policy: Policy) -> None:
        """Forget a policy that was added, and free its adapter."""
        place = next(place for place, one in enumerate(self.policies) if one is policy)
        name = self.names.pop(place)
        self.policies.pop(place)
        if name is not None and self.adapters is not None:
            self.adapters.remove(name)


def hold(policies: Sequence[Policy]) -> list[Held]:
    """Load policies; those on one base share it, unless an adapter is of a type that cannot.

    Raises: ModelError.
    """
    groups: dict[tuple[Any, ...], list[Policy]] = {}
    for place, policy in enumerate(policies):
        alone = (place,) if policy.proxy is not None else ()
        groups.setdefault((*policy.base_identity, *alone), []).append(policy)
    return [held for group in groups.values() for held in _held(group)]


def hold_base(policy: Policy, *, capacity: int) -> Held:
    """Load a policy's base without the policy; `Held.add` puts policies on it.

    Args:
        capacity: adapters in memory, see `ManyAdapters`.
    """
    model = _on_device(policy.keys.model_copy(update={"model_name_or_path": policy.source.base}))
    return Held(model, adapters=ManyAdapters(model, policy.source.base, capacity=capacity))


def _held(group: list[Policy]) -> list[Held]:
    """Load policies of one base."""
    if len(group) == 1:
        return [_alone(group[0])]
    shared, apart = hold_base(group[0], capacity=len(group)), []
    for place, policy in enumerate(group):
        try:
            shared.add(policy, str(place))
        except ModelError:  # a type that cannot share a base; a damaged one is refused as it is loaded alone
            apart.append(_alone(policy))
    return [*([shared] if shared.policies else []), *apart]


def _alone(policy: Policy) -> Held:
    model = _on_device(policy.keys)
    if policy.proxy is not None:
        model = proxy_tuned(model, policy.keys, policy.proxy)
    return Held(model, [policy], [None])


def _on_device(keys: ModelKeys) -> Any:
    model = load_causal_lm(keys, trainable=False)
    return (model if keys.bits else model.to(best_device())).eval()
