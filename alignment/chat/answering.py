"""Answers of one or several policies to one prompt, a token at a time."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from alignment.chat.settings import ChatKeys
from alignment.data.rows import Prompt
from alignment.errors import DataError
from alignment.policy.policies import Held, Policy, hold
from alignment.rollout.engine import Sampling
from alignment.rollout.streaming import Row, stream

APART = 2**20  # places in the noise between two answers of one policy to one prompt
CUT = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


@dataclass
class Answer:
    """One policy's answer, which may still grow."""

    policy: Policy
    prompt_ids: list[int]
    most: int  # tokens that it may have
    fills_context: bool  # `most` is what the context leaves
    ids: list[int] = field(default_factory=list)
    text: str = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop token ended it."""
        return bool(self.ids) and self.ids[-1] in self.policy.template.stop_token_ids

    @property
    def ended(self) -> bool:
        """Whether no token follows."""
        return self.stopped or len(self.ids) >= self.most

    @property
    def fault(self) -> str:
        """Why it was cut off; "" if it was not."""
        if self.stopped:
            return ""
        if len(self.ids) < self.most:
            return "stopped by Ctrl-C"
        if self.fills_context:
            return "cut off: the context is full; /reset begins a new conversation"
        return f"cut off at max_new_tokens {self.most}"

    def add(self, token: int) -> None:
        """Append a token; `text` waits for all bytes of a character."""
        self.ids.append(token)
        words = self.ids[:-1] if self.stopped else self.ids
        text = self.policy.template.answer_text(self.prompt_ids, words)
        self.text = text if self.ended else text.rstrip(CUT)


class Answering:
    """Policies in memory; those on one base answer in one batch."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        """Load the policies.

        Raises: ModelError.
        """
        self.policies = list(policies)
        self.held = hold(self.policies)
        self._places = [_place(policy, self.held) for policy in self.policies]

    def begin(self, prompt: Prompt, keys: ChatKeys) -> list[Answer]:
        """Return an empty answer of each policy, in their order.

        Raises: DataError if a chat template refuses the prompt, or it fills a context.
        """
        return [
            _begin(policy, held.context, prompt, keys.max_new_tokens)
            for policy, (held, _) in zip(self.policies, self._places, strict=True)
        ]

    def write(
        self, answers: Sequence[Answer], keys: ChatKeys, turn: int, interrupted: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Write the answers of `begin`, a token of each at every step.

        An answer is a function of policy, prompt, sampling keys and turn; other policies beside it change its rounding
        alone. The same policy given twice answers twice.

        Args:
            interrupted: whether to stop before the next token.
        """
        streams = going_on = [self._stream(held, answers, keys, turn) for held in self.held]
        try:
            while not interrupted():
                going_on = [each for each in going_on if next(each, False)]
                if not going_on:
                    return
                yield
        finally:
            for each in streams:
                each.close()

    def _stream(self, held: Held, answers: Sequence[Answer], keys: ChatKeys, turn: int) -> Generator[bool]:
        """Write the answers of the policies on one model."""
        own: list[Answer] = []
        rows: list[Row] = []
        for place, (answer, (model, index)) in enumerate(zip(answers, self._places, strict=True)):
            if model is held:
                noise = turn + APART * sum(other.policy.path == answer.policy.path for other in answers[:place])
                stops = answer.policy.template.stop_token_ids
                rows.append(Row(answer.prompt_ids, stops, answer.most, noise, held.names[index]))
                own.append(answer)
        sampling = Sampling(keys.max_new_tokens, keys.temperature, keys.top_p, keys.top_k, seed=keys.seed)
        pad = held.policies[0].pad_token_id
        for tokens in stream(held.model, rows, sampling, pad_token_id=pad, adapters=held.adapters):
            for answer, token in zip(own, tokens, strict=True):
                if token is not None:
                    answer.add(token)
            yield True


def _place(policy: Policy, held: Sequence[Held]) -> tuple[Held, int]:
    """Return the model that computes a policy, and the policy's place there."""
    return next((model, place) for model in held for place, own in enumerate(model.policies) if own is policy)


def _begin(policy: Policy, context: int | None, prompt: Prompt, max_new_tokens: int) -> Answer:
    ids = policy.template.prompt_ids(prompt)
    room = max_new_tokens if context is None else context - len(ids)
    if room <= 0:
        raise DataError(
            f"not sent: the conversation has {len(ids)} tokens, and the context of {policy.path} holds {context} with "
            "the answer; /reset begins a new conversation."
        )
    return Answer(policy, ids, min(room, max_new_tokens), fills_context=room < max_new_tokens)
