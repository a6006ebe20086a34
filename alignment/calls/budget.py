"""A hard limit on the number and cost of calls."""

import threading
from typing import Any

from alignment.calls.call import CallContext, ChatReply, estimated_tokens
from alignment.calls.prices import Tariff
from alignment.calls.replies import count_of
from alignment.errors import BudgetError


class Budget:
    """Refuses calls that could exceed the limits; several threads share one.

    The maximum cost of a call, from its estimated prompt and the maximum length of its reply, is reserved before the
    call. The actual cost, from the endpoint's token counts, replaces it afterwards. A failed call without counts costs
    nothing, but counts as a call.
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
        self.calls, self.spent = calls, spent  # including earlier starts of the run
        self._reserved = 0.0
        self._lock = threading.Lock()

    def reserve(self, request: dict[str, Any], context: CallContext) -> float:
        """Reserve the maximum cost of a call and return it.

        Raises: BudgetError if it exceeds the rest of the budget.
        """
        most = self.prices.cost(context.judge, estimated_tokens(request), context.max_tokens) if self.prices else 0.0
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

    def settle(self, reserved: float, reply: ChatReply, context: CallContext) -> float | None:
        """Replace the reserved cost by the actual one and return it; None without prices.

        A reply without token counts costs the reserved amount.
        """
        if self.prices is None:
            return None
        usage = reply.details.get("usage")
        parts = ("prompt_tokens", "completion_tokens")
        counts = [count_of(usage.get(part)) if isinstance(usage, dict) else None for part in parts]
        known = [count for count in counts if count is not None]
        if len(known) == len(parts):
            cost = self.prices.cost(context.judge, known[0], known[1])
        else:
            cost = 0.0 if reply.status == "api_error" else reserved
        with self._lock:
            self._reserved -= reserved
            self.spent += cost
        return cost

    def summary(self) -> str:
        """Return the calls and the cost so far as text; "" without limits and prices."""
        parts = [f"{self.calls}/{self.max_calls} calls"] if self.max_calls is not None else []
        if self.prices:
            left = "" if self.max_cost is None else f" of {self.max_cost:g}"
            parts.append(f"{self.spent:.4f}{left} {self.prices.currency}")
        return ", ".join(parts)
