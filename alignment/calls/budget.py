"""What calls may cost: a hard budget, and a dry run that only counts."""

import threading
from typing import Any

from alignment.calls.caller import About, Caller, ChatReply, Ledger, call_key, estimated_tokens
from alignment.calls.prices import Tariff
from alignment.calls.store_rows import count_of
from alignment.errors import BudgetError


class Budget:
    """Lets no call begin that could pass the limits; several threads share one.

    What a call may cost at most is set aside before it: its estimated prompt, and as many tokens as its reply may have.
    What it did cost, by the endpoint's own count, takes its place afterwards. A failed call without a count costs
    nothing, but it is a call.
    """

    def __init__(
        self,
        prices: Tariff | None = None,
        *,
        max_calls: int | None = None,
        max_cost: float | None = None,
        calls: int = 0,
        spent: float = 0.0,
    ) -> None:
        self.prices = prices
        self.max_calls, self.max_cost = max_calls, max_cost
        self.calls, self.spent = calls, spent  # of earlier processes of the same run too
        self._reserved = 0.0
        self._lock = threading.Lock()

    def reserve(self, request: dict[str, Any], about: About) -> float:
        """Set aside what a call may cost at most and return it.

        Raises: BudgetError where that is more than what is left.
        """
        most = self.prices.cost(about.judge, estimated_tokens(request), about.max_tokens) if self.prices else 0.0
        with self._lock:
            if self.max_calls is not None and self.calls >= self.max_calls:
                raise BudgetError(f"the budget of {self.max_calls} calls (max_calls) is used up.")
            if self.max_cost is not None and self.spent + self._reserved + most > self.max_cost:
                currency = self.prices.currency if self.prices else ""
                raise BudgetError(
                    f"{self.spent:.4f} {currency} of the budget of {self.max_cost:g} (max_cost) are spent, and the "
                    f"next call may cost {most:.4f}, beside {self._reserved:.4f} for calls in flight."
                )
            self.calls += 1
            self._reserved += most
        return most

    def settle(self, reserved: float, reply: ChatReply, about: About) -> float | None:
        """Take what the call did cost instead and return it; None without prices.

        A reply whose endpoint counts no tokens costs what was set aside for it.
        """
        if self.prices is None:
            return None
        usage = reply.details.get("usage")
        parts = ("prompt_tokens", "completion_tokens")
        counts = [count_of(usage.get(part)) if isinstance(usage, dict) else None for part in parts]
        told = [count for count in counts if count is not None]
        if len(told) == len(parts):
            cost = self.prices.cost(about.judge, told[0], told[1])
        else:
            cost = 0.0 if reply.status == "api_error" else reserved
        with self._lock:
            self._reserved -= reserved
            self.spent += cost
        return cost

    def told(self) -> str:
        """Say what is spent and what is left, where anybody counts."""
        parts = [f"{self.calls}/{self.max_calls} calls"] if self.max_calls is not None else []
        if self.prices:
            left = "" if self.max_cost is None else f" of {self.max_cost:g}"
            parts.append(f"{self.spent:.4f}{left} {self.prices.currency}")
        return ", ".join(parts)


class DryCaller(Caller):
    """Makes no call and counts those that a run would make beyond what is known."""

    asks_nobody = True

    def __init__(self, ledger: Ledger | None = None, prices: Tariff | None = None) -> None:
        super().__init__(ledger=ledger)
        self.prices = prices
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = 0.0  # at most

    def call(self, about: About, request: dict[str, Any], send: Any) -> ChatReply:
        """Return what is known, else count the call and fail."""
        known = self.ledger.known(call_key(about, request)) if self.ledger else None
        if known is not None:
            return known
        if about.step == "repair":  # that was never asked, so what came before it stays unreadable
            return ChatReply("ok", "")
        calls = 1 + about.calls_to_come
        with self._lock:
            self.calls += calls
            self.prompt_tokens += calls * estimated_tokens(request)
            self.completion_tokens += calls * about.max_tokens
            if self.prices:
                self.cost += calls * self.prices.cost(about.judge, estimated_tokens(request), about.max_tokens)
        return ChatReply("api_error", "a dry run asks nobody")
