"""Prices of a judge's tokens: in the recipe, or in a YAML table by model name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignment.calls.yaml_files import read_yaml
from alignment.config.schema.chat_models import CalledEntry, EndpointKeys
from alignment.errors import JudgeError
from alignment.strict_json import shown

MILLION = 1_000_000
HIGHEST_PRICE = 10**9  # for as many tokens, so that all sums stay finite


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of tokens, in `currency` per million."""

    prompt: float
    completion: float
    currency: str = "USD"

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of one call or many."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / MILLION


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices by judge; the tokens of other judges cost nothing."""

    judges: Mapping[str, Prices]

    @property
    def currency(self) -> str:
        """The currency of all prices."""
        return next(iter(self.judges.values())).currency

    def cost(self, judge: str, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of a judge's tokens."""
        prices = self.judges.get(judge)
        return prices.cost(prompt_tokens, completion_tokens) if prices else 0.0


def tariff_of(*entries: CalledEntry) -> Tariff | None:
    """Return the prices of a recipe's judges, or of a jury's members; None without prices.

    Raises: JudgeError if a table cannot be read or lacks a model, the judges' currencies differ, or two judges of the
        same name have different prices.
    """
    found: dict[str, Prices] = {}
    for judge in (each for entry in entries for each in entry.each()):
        prices = prices_of(judge)
        if prices is None:
            continue
        known = found.setdefault(judge.label, prices)
        if known != prices:
            raise JudgeError(f"two judges are named {judge.label} and have different prices; give each a name.")
    currencies = sorted({prices.currency for prices in found.values()})
    if len(currencies) > 1:
        raise JudgeError(f"the judges' prices are in {' and '.join(currencies)}; give them in one currency.")
    return Tariff(found) if found else None


def prices_of(entry: CalledEntry) -> Prices | None:
    """Return the prices of a recipe's judge; None without prices.

    Raises: JudgeError if the table cannot be read or lacks the model.
    """
    if not isinstance(entry, EndpointKeys) or entry.prices is None:
        return None
    if not isinstance(entry.prices, str):
        return Prices(**entry.prices.model_dump())
    _, table = read_yaml(entry.prices, f"{entry.FAMILY}.prices")
    found = table.get(entry.model) if isinstance(table, dict) else None
    if not isinstance(found, dict):
        raise JudgeError(
            f"{entry.FAMILY}.prices {entry.prices}: has no entry for model {entry.model}; add one with the prices "
            "prompt and completion per million tokens."
        )
    return Prices(_price(found, "prompt", entry), _price(found, "completion", entry), str(found.get("currency", "USD")))


def _price(found: dict[str, Any], name: str, entry: EndpointKeys) -> float:
    price = found.get(name)
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= HIGHEST_PRICE:
        raise JudgeError(
            f"{entry.FAMILY}.prices {entry.prices}: {entry.model}.{name} is {shown(price)}, not a price per million "
            "tokens."
        )
    return float(price)
