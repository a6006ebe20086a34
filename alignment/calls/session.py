"""The calls of one run: what makes them, within the recipe's limits, and where they are stored."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignment.calls.budget import Budget
from alignment.calls.caller import Caller
from alignment.calls.prices import tariff_of
from alignment.calls.rate_limiter import RateLimiter
from alignment.calls.store import CallStore
from alignment.config.schema.calls import CallKeys
from alignment.config.schema.judges import AnyJudge

STORE = "calls.sqlite"


def caller_of(judge: AnyJudge, keys: CallKeys) -> Caller:
    """Return what makes one judge's calls, before the folder that stores them is known."""
    limiter = RateLimiter(
        judge.at_once(keys.max_concurrency),
        requests_per_minute=keys.requests_per_minute,
        tokens_per_minute=keys.tokens_per_minute,
    )
    return Caller(rate_limiter=limiter, max_retries=judge.retries)


@contextlib.contextmanager
def recording(
    folder: Path, judges: Sequence[AnyJudge], keys: CallKeys, callers: Sequence[Caller], *, may_rebind: bool = False
) -> Iterator[CallStore]:
    """Open the store of a run's folder; all calls are stored there and share one budget.

    Args:
        callers: those of the run's judges. may_rebind: as `CallStore`.

    Raises: JudgeError where the judges' prices are in several currencies.
    """
    with CallStore(folder / STORE, may_rebind=may_rebind) as store:
        spent = store.totals()
        budget = Budget(
            tariff_of(*judges),
            max_calls=keys.max_calls,
            max_cost=keys.max_cost,
            calls=spent.calls,
            spent=spent.cost or 0.0,
        )
        for caller in callers:
            caller.cache, caller.budget = store, budget
        yield store


def usage(store: CallStore, judges: Sequence[AnyJudge]) -> dict[str, Any]:
    """Return what the run's calls took, for its manifest."""
    prices = tariff_of(*judges)
    return {**asdict(store.totals()), "currency": prices.currency if prices else None}
