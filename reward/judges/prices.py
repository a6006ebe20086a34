"""What a judge's tokens cost: prices in the recipe, or a table of models in a YAML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignment.config.schema import JudgeEntry
from alignment.errors import JudgeError

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens cost, in `currency` per million."""

    prompt: float
    completion: float
    currency: str = "USD"

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of one call or many."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / MILLION


def prices_of(entry: JudgeEntry) -> Prices | None:
    """Return the prices of a recipe's judge; None where it gives none.

    Raises: JudgeError where the table cannot be read or does not have the model.
    """
    if entry.prices is None:
        return None
    if not isinstance(entry.prices, str):
        return Prices(**entry.prices.model_dump())
    try:
        table = yaml.safe_load(Path(entry.prices).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise JudgeError(f"judge.prices {entry.prices}: cannot be read as a YAML table of prices ({error}).") from None
    found = table.get(entry.model) if isinstance(table, dict) else None
    if not isinstance(found, dict):
        raise JudgeError(
            f"judge.prices {entry.prices}: has no entry for model {entry.model}; add one with prompt and completion, "
            "per million tokens."
        )
    return Prices(_price(found, "prompt", entry), _price(found, "completion", entry), str(found.get("currency", "USD")))


def _price(found: dict[str, Any], name: str, entry: JudgeEntry) -> float:
    price = found.get(name)
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
        raise JudgeError(
            f"judge.prices {entry.prices}: {entry.model}.{name} is {price!r}, not a price per million tokens."
        )
    return float(price)
