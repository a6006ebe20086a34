"""The calls of one run: callers within the recipe's limits, and their store."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.calls.budget import Budget
from alignment.calls.caller import Caller
from alignment.calls.prices import tariff_of
from alignment.calls.rate_limiter import RateLimiter
from alignment.calls.store import CallStore
from alignment.config.schema.calls import CallLimits
from alignment.config.schema.chat_models import CalledEntry

STORE = "calls.sqlite"


def caller_of(judge: CalledEntry, limits: CallLimits, max_concurrency: int) -> Caller:
    """Return the caller of one judge, without a store and a budget: `recording` or `JudgeCalls` adds them."""
    limiter = RateLimiter(
        judge.at_once(max_concurrency),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
    )
    return Caller(rate_limiter=limiter, max_retries=judge.retries)


def budget_of(judges: Sequence[CalledEntry], limits: CallLimits) -> Budget:
    """Return the budget that a run's judges share, before anything is spent.

    Raises: JudgeError if the judges' prices cannot be read or are in several currencies.
    """
    return Budget(tariff_of(*judges), max_calls=limits.max_calls, max_cost=limits.max_cost)


@contextlib.contextmanager
def recording(
    folder: Path,
    judges: Sequence[CalledEntry],
    limits: CallLimits,
    callers: Sequence[Caller],
    *,
    may_rebind: bool = False,
    outcomes: bool = False,
) -> Iterator[CallStore]:
    """Open the store of a run's folder; all calls are stored there and share one budget.

    Args:
        callers: those of the run's judges. may_rebind, outcomes: as `CallStore`.

    Raises: JudgeError as `budget_of`.
    """
    with CallStore(folder / STORE, may_rebind=may_rebind, outcomes=outcomes) as store:
        budget = budget_of(judges, limits)
        _attach(store, budget, *callers)
        yield store


def _attach(store: CallStore, budget: Budget, *callers: Caller) -> None:
    """Let callers use a store and a budget, from which the store's earlier calls are taken."""
    before = store.totals()
    budget.calls += before.calls
    budget.spent += before.cost or 0.0
    for caller in callers:
        caller.cache, caller.budget = store, budget


@dataclass(frozen=True, slots=True)
class JudgeCalls:
    """The calls of a training run's judges in one process: a store for each judge, and one budget.

    Args:
        folder: of the run. Where it does not exist, no call is stored.
        limits: of this process.
        rank: of this process; it is a part of the stores' names.
        prefix: of the stores' names.
    """

    folder: Path
    limits: CallLimits
    budget: Budget
    rank: int = 0
    prefix: str = ""

    @classmethod
    def of(
        cls, folder: Path, judges: Sequence[CalledEntry], limits: CallLimits, *, rank: int = 0, processes: int = 1
    ) -> "JudgeCalls":
        """Give this process its share of the run's limits, so that all processes together keep them.

        Raises: JudgeError as `budget_of`.
        """
        share = _share(limits, processes)
        return cls(folder, share, budget_of(judges, share), rank)

    def caller(self, judge: CalledEntry, name: str, max_concurrency: int) -> Caller:
        """Return the caller of one judge, whose calls are stored as `calls_NAME.sqlite`.

        Raises: DataError if the file is not a store.
        """
        caller = caller_of(judge, self.limits, max_concurrency)
        caller.budget = self.budget
        if self.folder.is_dir():
            process = f"_{self.rank}" if self.rank else ""
            _attach(CallStore(self.folder / f"calls_{self.prefix}{name}{process}.sqlite"), self.budget, caller)
        return caller


def _share(limits: CallLimits, processes: int) -> CallLimits:
    """Return the part of the limits that one of several processes may use."""
    given = {name: getattr(limits, name) for name in CallLimits.model_fields}
    shares = {name: limit / processes for name, limit in given.items() if limit is not None}
    if limits.max_calls is not None:
        shares["max_calls"] = limits.max_calls // processes
    return CallLimits.model_construct(**shares)


def usage(store: CallStore, judges: Sequence[CalledEntry]) -> dict[str, Any]:
    """Return the number, tokens, cost and time of the run's calls, for its manifest."""
    prices = tariff_of(*judges)
    return {**asdict(store.totals()), "currency": prices.currency if prices else None}
