"""Policy, reference, value and reward as adapters, of any PEFT types, on one frozen base."""

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from alignment.meter import say_once
from alignment.ops.logits import LogitRule
from alignment.ops.rewards import last_valid
from alignment.policy.checkpointing import checkpoint_switched_layers, layer_classes
from alignment.policy.dropout import without_dropout
from alignment.policy.heads import ScalarHead
from alignment.policy.inference import context_limit
from alignment.policy.lora import fuse_lora
from alignment.policy.output_layer import answer_logp, logit_rule, without_rounding
from alignment.policy.switch import ADAPTER, SwitchedBase
from alignment.policy.trunk import Trunk, trunk_below

MERGED_AT_MOST = 2**30  # bytes of merged weights held beside the base while sampling
VALUE_PREFIXES = ("heads.value.", "value_model.")
ON_THE_BASE = ("base", "policy", "reference")  # roles that are the base itself where they have no adapter
ROLES = ("policy", "reference", "value", "reward")


class Roles(nn.Module):
    """Holds the models and switches between roles inside one module, so that DDP, ZeRO and FSDP wrap one model.

    Sequences are right-padded: `input_ids` is (batch, time) with prompt, answer, padding; `answer_mask`, (batch, time)
    bool, is True on the answer's tokens. Attention is causal, so right padding needs no attention mask and changes no
    result. Per-token results are flat, (tokens,), row after row in the mask's order.

    Args:
        switched: The frozen causal LM with the adapters of the roles. `policy` and `reference` are the base where they
            have no adapter; another role without an adapter is not held.
        heads: by role: `value` and the reward roles `reward`, `reward_1` and so on.
        policy_model: The policy if all its weights train; `base` is then for the other roles, or is the policy itself
            if there are none.
        value_on_policy: The value is a head on the policy's trunk.
        value_model: The value's trunk if it is a separate model.
    """

    def __init__(
        self,
        switched: SwitchedBase,
        *,
        heads: Mapping[str, ScalarHead],
        policy_model: Any = None,
        value_on_policy: bool = False,
        value_model: Any = None,
    ) -> None:
        super().__init__()
        self.switched = switched
        self.base = switched.base
        self.base_trains = policy_model is switched.base
        self.policy_model = None if self.base_trains else policy_model  # sharding needs one name of each module
        self.value_model = value_model
        self.heads = nn.ModuleDict(dict(heads))
        self.adapters = switched.adapters
        self.value_on_policy = value_on_policy
        fuse_lora(self.base)
        held = [model for model in (self.base, policy_model, value_model) if model is not None]
        self._no_split_modules = layer_classes(*held)  # where Accelerate cuts under FSDP2
        self._active: str | None = None
        self.logit_rules: dict[int, LogitRule] = {}  # by the model's id; found when first needed
        self.trunk: Trunk | None = None  # once `find_trunk` has found one
        self._train_only_policy_and_value()
        for model in held:
            without_dropout(model)
        for model in map(self.causal_lm, ("reference", "policy")):
            without_rounding(model)
        self.activate("policy")

    # The active role

    def activate(self, role: str) -> None:
        """Compute as `role` from now on. What trains stays as it is."""
        if role == self._active or self._own_model(role) is not None:
            return
        if role not in self.adapters and role not in ON_THE_BASE:
            raise KeyError(role)
        self.switched.activate(role)
        self._active = role

    def causal_lm(self, role: str) -> Any:
        """The transformers model of a role; it computes as the role while the role is active."""
        own = self._own_model(role)
        model = self.base if own is None else own
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _own_model(self, role: str) -> Any:
        """The separate model of a role; None if the role is an adapter on the base."""
        return {"policy": self.whole_policy, "value": self.value_model}.get(role)

    @property
    def whole_policy(self) -> Any:
        """The policy's model if all its weights train, else None."""
        return self.base if self.base_trains else self.policy_model

    @property
    def whole_policy_name(self) -> str:
        """The attribute that holds `whole_policy`."""
        return "base" if self.base_trains else "policy_model"

    @property
    def policy_lm(self) -> Any:
        """The policy as a causal LM to sample from."""
        self.activate("policy")
        return self.causal_lm("policy")

    @property
    def context(self) -> int | None:
        """Maximum number of tokens of prompt and answer; None if the models have no limit."""
        limits = [context_limit(self.causal_lm(role)) for role in ("policy", "value")]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def has_value(self) -> bool:
        """Whether a value is held."""
        return "value" in self.heads

    # Forward passes

    def forward(self, *inputs: Any, call: str = "trained", **options: Any) -> Any:
        """Call the method named by `call`.

        ZeRO-3 and FSDP gather sharded weights only around this module's own forward pass, so every role is run through
        it.
        """
        return getattr(self, call)(*inputs, **options)

    def trained(
        self,
        input_ids: Tensor,
        answer_mask: Tensor,
        *,
        temperature: float,
        with_entropy: bool = False,
        trunk: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the trained roles on one microbatch: logp, entropy if requested, and values if held; each (tokens,).

        Args:
            trunk: what `trunk_states` returned for the microbatch, here and below; None: the whole pass is computed.
        """
        hidden = self._hidden("policy", input_ids, trunk)
        logp, entropy = self._answer_logp("policy", hidden, input_ids, answer_mask, temperature, with_entropy)
        values = self._answer_values(hidden, input_ids, answer_mask, trunk) if self.has_value else None
        return logp, entropy, values

    def reference_logp(
        self,
        input_ids: Tensor,
        answer_mask: Tensor,
        *,
        temperature: float,
        role: str = "reference",
        trunk: Tensor | None = None,
    ) -> Tensor:
        """Return log-probabilities of the answers under a frozen role, (tokens,); `base` has no adapter."""
        hidden = self._hidden(role, input_ids, trunk)
        return self._answer_logp(role, hidden, input_ids, answer_mask, temperature, False)[0]

    def scores(
        self, input_ids: Tensor, answer_mask: Tensor, role: str = "reward", *, trunk: Tensor | None = None
    ) -> Tensor:
        """Return a reward role's score of each sequence, read at the answer's last token, (batch,)."""
        return self._at_the_end(role, self._hidden(role, input_ids, trunk), answer_mask)

    def last_values(self, input_ids: Tensor, answer_mask: Tensor, *, trunk: Tensor | None = None) -> Tensor:
        """Return the value of the state after each answer's last token, (batch,)."""
        hidden = self._hidden("policy" if self.value_on_policy else "value", input_ids, trunk)
        return self._at_the_end("value", hidden, answer_mask)

    def _at_the_end(self, head: str, hidden: Tensor, answer_mask: Tensor) -> Tensor:
        rows = torch.arange(len(hidden), device=hidden.device)
        numbers: Tensor = self.heads[head](hidden[rows, last_valid(answer_mask)])
        return numbers

    def policy_step(self, **inputs: Any) -> Any:
        """Run the policy as a causal LM with a cache: one step of sampling."""
        return self.policy_lm(**inputs)

    def perform(self, task: Callable[[], Any]) -> Any:
        """Call `task` inside the forward pass, where sharded weights can be gathered and kept."""
        return task()

    def _hidden(self, role: str, input_ids: Tensor, trunk: Tensor | None = None) -> Tensor:
        """Last hidden states, (batch, time, width); trunk: the shared trunk's, if they are known."""
        self.activate(role)
        decoder = self.causal_lm(role).get_decoder()
        given: AbstractContextManager[None] = contextlib.nullcontext()
        if trunk is not None and self.trunk is not None and decoder is self.trunk.decoder:
            given = self.trunk.given(trunk)
        with given:
            hidden: Tensor = decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        return hidden

    def _answer_values(
        self, policy_hidden: Tensor, input_ids: Tensor, answer_mask: Tensor, trunk: Tensor | None
    ) -> Tensor:
        hidden = policy_hidden if self.value_on_policy else self._hidden("value", input_ids, trunk)
        values: Tensor = self.heads["value"](hidden[_before(answer_mask)])
        return values

    def _answer_logp(
        self, role: str, hidden: Tensor, input_ids: Tensor, answer_mask: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        model = self.causal_lm(role)
        if id(model) not in self.logit_rules:
            self.logit_rules[id(model)] = logit_rule(model)
        return answer_logp(
            model,
            self.logit_rules[id(model)],
            hidden[_before(answer_mask)],
            input_ids[answer_mask],
            temperature=temperature,
            with_entropy=entropy,
        )

    # The shared trunk

    @torch.no_grad()
    def find_trunk(self) -> dict[str, int]:
        """Find the layers that policy and other roles share, and return their number as `layers`: 0 if there are none.

        A probe compares passes that start from the trunk's states with whole ones, for each role on the base.
        """
        self.trunk = self.trunk_below_adapters()
        roles = [role for role in ("base", *self.adapters) if self._own_model(role) is None]
        found = self.trunk and self.trunk.disagreement([partial(self._hidden, role) for role in roles])
        if found:
            self.trunk = None
            say_once(f"the layers below all adapters are not shared; {type(self.base).__name__}: {found}")
        return {"layers": 0 if self.trunk is None else self.trunk.depth}  # DeepSpeed takes no number from a module

    def trunk_below_adapters(self) -> Trunk | None:
        """Return the layers below all adapters; None if there are none, or the policy trains whole."""
        return trunk_below(self.switched) if self.whole_policy is None else None

    def trunk_states(self, input_ids: Tensor) -> Tensor:
        """Return the shared trunk's hidden states, (batch, time, width)."""
        assert self.trunk is not None
        return self.trunk.states(input_ids)

    # Sampling

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Activate the policy for sampling, and merge its adapter if that is cheap.

        A decoding step is mostly overhead, and an adapter triples the calls. The base's own weights are kept and
        restored. Only float32 weights are merged: rounded to bfloat16, as autocast does at each call, a merged weight
        loses the part of the adapter that is below 1/256 of it.
        """
        self.activate("policy")
        layers = self._mergeable()
        kept = [(layer, layer.get_base_layer().weight, layer.get_base_layer().weight.data) for layer in layers]
        try:
            for layer, _, _ in kept:
                layer.merge(safe_merge=True, adapter_names=[ADAPTER])
            yield
        finally:
            for layer, weight, original in kept:
                weight.data = original
                layer.merged_adapters.clear()
                layer._caches.clear()

    def _mergeable(self) -> list[Any]:
        """The policy's LoRA layers if all can be merged, else none."""
        adapter = self.adapters.get("policy")
        layers = [] if adapter is None else adapter.lora_layers
        if not all(isinstance(layer, Linear) and not layer.lora_bias[ADAPTER] for layer in layers):
            return []
        if any(layer.lora_A[ADAPTER]._forward_hooks for layer in layers):  # it computes with a part of the matrix
            return []
        weights = [layer.get_base_layer().weight for layer in layers]
        owners = collections.Counter(id(p) for _, p in self.base.named_parameters(remove_duplicate=False))
        cheap = sum(weight.nbytes for weight in weights) <= MERGED_AT_MOST
        alone = all(weight.dtype == torch.float32 and owners[id(weight)] == 1 for weight in weights)
        cast = any(torch.is_autocast_enabled(kind) for kind in {weight.device.type for weight in weights})
        return layers if cheap and alone and not cast else []

    # What trains

    def _train_only_policy_and_value(self) -> None:
        self.base.requires_grad_(False)
        for role in ("policy", "value"):
            for parameter in self.adapters[role].trained if role in self.adapters else ():
                parameter.requires_grad_(True)
        if self.whole_policy is not None:
            self.whole_policy.requires_grad_(True)
        for name, head in self.heads.items():
            head.requires_grad_(name == "value")

    def value_parameters(self) -> set[str]:
        """Names of the trained parameters that only the value uses."""
        own = (*VALUE_PREFIXES, *self._prefixes("value"))
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad and name.startswith(own)}

    def policy_parameters(self) -> set[str]:
        """Names of the trained parameters of the policy's adapter."""
        own = self._prefixes("policy")
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad and name.startswith(own)}

    def _prefixes(self, role: str) -> tuple[str, ...]:
        """How the names of a role's adapter's weights begin."""
        modules = self.adapters[role].modules.values() if role in self.adapters else ()
        own = {id(module) for module in modules}
        return tuple(f"{name}." for name, module in self.named_modules() if id(module) in own)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Checkpoint activations; each recomputation runs as the role whose forward pass it repeats."""
        models = {id(model): model for model in map(self.causal_lm, ("reference", "policy", "value"))}
        for model in models.values():
            checkpoint_switched_layers(
                model, self._recompute_in_same_role, activation_checkpointing_kwargs or {}, **options
            )

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Call `activation_checkpointing_enable`, for trainers that use the older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def _recompute_in_same_role(self) -> tuple[Any, Any]:
        return contextlib.nullcontext(), self._as_role(self._active)

    @contextlib.contextmanager
    def _as_role(self, role: str | None) -> Iterator[None]:
        before = self._active
        if role is not None:
            self.activate(role)
        try:
            yield
        finally:
            if before is not None:
                self.activate(before)


def _before(answer_mask: Tensor) -> Tensor:
    """The positions one to the left of the answer's, whose hidden states predict its tokens and give its values."""
    return nn.functional.pad(answer_mask[:, 1:], (0, 1))
