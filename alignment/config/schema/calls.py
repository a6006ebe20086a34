"""Keys of the stages that call judges."""

from pydantic import Field

from alignment.config.schema.parts import Free, Part


class CallLimits(Part):
    """How fast judges are called, and what their calls may cost. Several processes share each limit equally."""

    requests_per_minute: Free[float | None] = Field(default=None, ge=0.01, le=10**9)
    """Limit of requests per minute to each judge; a jury counts as one."""
    tokens_per_minute: Free[float | None] = Field(default=None, ge=1, le=10**12)
    """Limit of tokens per minute to and from each judge, estimated from the prompt and the longest reply; a jury counts
    as one."""
    max_calls: Free[int | None] = Field(default=None, gt=0, le=10**12)
    """Maximum number of judge calls. The run stops before it makes more."""
    max_cost: Free[float | None] = Field(default=None, gt=0, le=10**12)
    """Maximum cost of judge calls, in the currency of `judge.prices`. The run stops before it costs more."""


class CallKeys(CallLimits):
    """How stages that ask fixed questions call their judges."""

    max_concurrency: Free[int] = Field(default=8, gt=0, le=1024)
    """Maximum number of judge calls at the same time."""
    max_failure_share: Free[float] = Field(default=0.5, ge=0, le=1)
    """Stop with an error when more than this share of the questions failed."""
    reparse: Free[bool] = False
    """Read the verdicts of a finished run again from its recorded calls, without a call."""
