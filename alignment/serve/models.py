"""The models that a server answers for: each base is held once, and its adapters share its batches."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch

from alignment.data.rows import Message, Prompt
from alignment.data.tokenising import TextTooLong
from alignment.data.unwritten import NameUnwritten, TemplateError
from alignment.errors import DataError, ModelError, printable
from alignment.policy.base import config_of
from alignment.policy.policies import Held, Policy, hold, hold_base
from alignment.rollout.context import context_of
from alignment.rollout.reading import Reading
from alignment.serve.engine import Bounds, Delivery, Engine
from alignment.serve.faults import ApiError
from alignment.serve.token_texts import TokenTexts

CONTEXT_OF_UNLIMITED = 8_192  # tokens, for a model whose configuration names no limit
MEMORY_SHARE = 0.5  # of the free memory, for keys and values
TOKENS_PER_ROW = 2_048  # of memory for each answer of a full batch, unless the context is shorter
Post = Callable[[list[Delivery]], None]


@dataclass
class Base:
    """A model in memory and the engine that runs it."""

    held: Held
    engine: Engine
    identity: tuple[Any, ...]
    context: int
    vocabulary: int


@dataclass(frozen=True)
class Served:
    """A model by the name that requests give."""

    name: str
    policy: Policy
    base: Base
    adapter: str | None  # its name on the base; None: the model in memory is the policy
    texts: TokenTexts
    created: int = field(default_factory=lambda: int(time.time()))
    lock: threading.Lock = field(default_factory=threading.Lock)  # a tokenizer is not used in two threads at once

    def chat_ids(self, messages: list[Message], tools: str | None) -> list[int]:
        """Return the ids from which an answer to messages is sampled.

        A name of a speaker that the chat template does not write is left out, as vLLM does.

        Raises: ApiError if the chat template refuses the messages, or they are too long.
        """
        try:
            return self._ids(messages, "messages", tools)
        except NameUnwritten as error:
            unnamed = [_without_name(message) if message["role"] == error.role else message for message in messages]
            return self.chat_ids(unnamed, tools)  # once for each role at most

    def text_ids(self, prompt: str) -> list[int]:
        """Return the ids of a text to continue.

        Raises: ApiError if it is empty or too long.
        """
        return self._ids(prompt, "prompt")

    def _ids(self, prompt: Prompt, key: str, tools: str | None = None) -> list[int]:
        try:
            with self.lock:
                return self.policy.template.prompt_ids(prompt, tools)
        except NameUnwritten:
            raise
        except TextTooLong as error:
            raise self.too_long(f"{error.characters} characters", key) from error
        except DataError as error:
            fault = error.fault if isinstance(error, TemplateError) else str(error)
            raise ApiError(f"{fault.removesuffix('.')}.", key) from error

    def too_long(self, size: str, key: str, *, remedy: str = "Shorten the prompt.") -> ApiError:
        """Return the error for a prompt that does not fit the context.

        Args:
            size: what the prompt has. key: of the request, which has the prompt.
        """
        return ApiError(
            f"the context of {self.name!r} has {self.base.context} tokens; the prompt has {size}. {remedy}", key,
            code="context_length_exceeded",
        )  # fmt: skip


def _without_name(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "name"}


class Models:
    """All models of a server.

    Args:
        bounds: of each base. length: most tokens of prompt and answer; None: as the model allows.
        post: is given the pieces of answers, see `Engine`.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        bounds: Bounds,
        cache_tokens: int | None,
        length: int | None,
        post: Post,
    ) -> None:
        self._bounds, self._cache_tokens, self._length, self._post = bounds, cache_tokens, length, post
        self._numbers = count()
        self._served: dict[str, Served] = {}
        self._lock = threading.Lock()
        self._bases: list[Base] = []
        for policy in policies.values() if length is not None else ():  # before any is loaded
            self._require_context(policy, context_of(SimpleNamespace(config=config_of(policy.keys))))
        for name, policy in policies.items():
            self._open(name, policy)

    @property
    def engines(self) -> list[Engine]:
        """The engines, one for each model in memory."""
        return [base.engine for base in self._bases]

    def all(self) -> list[Served]:
        """Return the models in the order in which they were opened."""
        return list(self._served.values())

    def get(self, name: str) -> Served:
        """Return a model by its name.

        Raises: ApiError if there is none.
        """
        if name not in self._served:
            raise ApiError(
                f"the model {name[:100]!r} does not exist; served are {', '.join(list(self._served)[:20])}.",
                "model", status=404, code="model_not_found",
            )  # fmt: skip
        return self._served[name]

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[Served]:
        """Return a model by its name, which stays in memory until the context ends.

        Raises: ApiError if there is none.
        """
        served = self.get(name)
        with served.base.engine.keeping(served.adapter):
            if self.get(name) is served:  # from now on, `unload` waits
                yield served
                return
        raise ApiError(f"the model {name[:100]!r} was unloaded.", "model", status=404, code="model_not_found")

    def load(self, name: str, policy: Policy) -> None:
        """Put an adapter on the base that is in memory. Its weights are read between two steps.

        Raises: ModelError if it is of no base here, or damaged.
        """
        base = next((one for one in self._bases if one.identity == policy.base_identity and one.held.adapters), None)
        if policy.source.adapter is None:
            raise ModelError(f"{policy.path} is a whole model; only adapters are loaded while the server runs.")
        if base is None:
            raise ModelError(f"{policy.path} is an adapter of another base ({policy.source.base}) than those served.")
        with self._lock:
            self._require_free(name)
            self._add(name, policy, base)

    def unload(self, name: str) -> None:
        """Forget an adapter that was loaded, once the answers that it is writing are finished.

        Raises: ApiError if there is none.
        """
        with self._lock:
            served = self.get(name)
            if served.adapter is None:
                raise ApiError(f"{name[:100]!r} is no adapter, so it stays.", "lora_name")
            del self._served[name]
        served.base.engine.when_unused(served.adapter, lambda: served.base.held.remove(served.policy))

    def close(self) -> None:
        """End the engines."""
        for base in self._bases:
            base.engine.close()

    def _require_context(self, policy: Policy, context: int | None) -> None:
        """Refuse a length that the model cannot read.

        Raises: ModelError.
        """
        if self._length is not None and context is not None and self._length > context:
            raise ModelError(
                f"--max_length {self._length} is more than the context of {policy.path}, {context} tokens; set it to "
                f"{context} or less, or leave it out."
            )

    def _require_free(self, name: str) -> None:
        if name in self._served:
            raise ApiError(f"a model {name[:100]!r} is loaded already; unload it first.", "lora_name")

    def _open(self, name: str, policy: Policy) -> None:
        """Serve a policy on a base that is in memory, on a new one, or, if it cannot share one, alone."""
        self._require_free(name)
        if policy.proxy is None:
            base = next((one for one in self._bases if one.identity == policy.base_identity), None)
            new = base or self._base(hold_base(policy, capacity=self._bounds.rows), policy)
            try:
                self._add(name, policy, new)
            except ModelError:  # a type that cannot share a base; a damaged one is refused as it is loaded alone
                if base is None:
                    new.engine.close()
            else:
                self._bases += [] if base else [new]
                return
        alone = self._base(hold([policy])[0], policy)
        self._bases.append(alone)
        self._served[name] = Served(name, policy, alone, None, TokenTexts(policy.tokenizer))

    def _base(self, held: Held, policy: Policy) -> Base:
        self._require_context(policy, held.context)  # a soft prompt takes a part of it
        context = self._length or held.context or CONTEXT_OF_UNLIMITED
        size = bytes_of_token(held.model, policy.path)
        tokens = self._cache_tokens or tokens_of_memory(held.model, size, context, self._bounds.rows)
        bounds = replace(self._bounds, tokens=tokens)
        engine = Engine(
            held.model, pad_token_id=policy.pad_token_id, adapters=held.adapters, bounds=bounds, post=self._post
        )
        identity = policy.base_identity if held.adapters is not None else ()
        vocabulary = int(held.model.config.get_text_config().vocab_size)
        return Base(held, engine, identity, context, vocabulary)

    def _add(self, name: str, policy: Policy, base: Base) -> None:
        adapter = str(next(self._numbers))
        base.engine.between_steps(lambda: base.held.add(policy, adapter)).result()
        own = None if policy.source.adapter is None else adapter
        self._served[name] = Served(name, policy, base, own, TokenTexts(policy.tokenizer))


def bytes_of_token(model: Any, path: str) -> int:
    """Return the bytes of a token's keys and values; 0 if the model's cache has others.

    Raises: ModelError if the model cannot read a token and keep what it has read, as one without a cache.
    """
    with torch.no_grad():
        reading = Reading(model, [[0]], 0, None)
        try:
            reading.advance()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # of the model's code
            raise ModelError(
                f"{path} cannot be served: {type(model).__name__} fails to read a token into a cache "
                f"({type(error).__name__}: {printable(str(error))})."
            ) from error
    return bytes_of(reading.cache)


def tokens_of_memory(model: Any, size: int, context: int, rows: int) -> int:
    """Return how many tokens the keys and values of a batch may take: as many as it needs, in the memory there is.

    Args:
        size: bytes of one.
    """
    wanted = rows * min(context, TOKENS_PER_ROW)
    if not size:
        return max(wanted, context)
    device = next(model.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    return max(context, min(wanted, int(free * MEMORY_SHARE) // size))


def bytes_of(cache: Any) -> int:
    """Return the bytes of the keys and values in a cache; 0 if it has others."""
    layers = [layer for part in getattr(cache, "parts", [cache]) for layer in getattr(part, "layers", [])]
    tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, torch.Tensor))


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
