"""How many judge calls a stage makes, and their maximum cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment.config.documents import read_document
from alignment.config.schema import PolicyGradientRecipe, Recipe
from alignment.config.schema.chat_models import PricesEntry
from alignment.config.schema.judges import AnyJudge, ChatEntry, RemoteEntry
from alignment.config.schema.scorers import JudgeScorerEntry
from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.errors import RecipeError
from alignment.planner.rows import pairs_of
from alignment.planner.settings import Lengths

INSTRUCTIONS = 400  # tokens around request and answers; the package's longest prompt has 974 bytes
REPLY = {"pairwise": (16, 512), "listwise": (96, 768), "pointwise": (16, 512)}  # tokens: a verdict; reasoning before it


@dataclass(frozen=True, slots=True)
class Calls:
    """Judge calls, for texts of maximum length and without repeated calls."""

    number: int
    prompt_tokens: int
    reply_tokens: int
    cost: float | None  # None if a paid judge has no prices
    currency: str

    def __add__(self, other: "Calls") -> "Calls":
        """Return the sum; its cost is None if one cost is unknown or the currencies differ."""
        unknown = self.cost is None or other.cost is None
        foreign = bool(self.cost and other.cost) and self.currency != other.currency
        return Calls(
            self.number + other.number,
            self.prompt_tokens + other.prompt_tokens,
            self.reply_tokens + other.reply_tokens,
            None if unknown or foreign else (self.cost or 0.0) + (other.cost or 0.0),
            self.currency if self.cost else other.currency,
        )


def calls_of(recipe: Recipe, rows: int, lengths: Lengths) -> Calls | None:
    """Count a stage's calls for `rows` prompts. None if it has no judge.

    Raises: RecipeError if a table of prices cannot be read.
    """
    found = [calls_of_judge(*asked, lengths) for asked in _asked(recipe, rows)]
    return sum(found[1:], found[0]) if found else None


def calls_of_writer(recipe: SynthesizeRecipe) -> Calls:
    """Count the calls of stage synthesize, by a dry run.

    Raises: DataError if the seeds cannot be read; JudgeError if a table of prices cannot be.
    """
    from alignment.synthesize.stage import lacking_calls

    dry = lacking_calls(recipe)
    cost = dry.cost if dry.prices else 0.0 if recipe.writer.IN_PROCESS else None
    currency = dry.prices.currency if dry.prices else "USD"
    return Calls(dry.calls, dry.prompt_tokens, dry.completion_tokens, cost, currency)


def _asked(recipe: Any, rows: int) -> Iterator[tuple[AnyJudge, int, int]]:
    """Yield each judge, or each member of a jury, with its number of questions and the answers in one question."""
    if recipe.STAGE.makes == "labels":
        answers, judge = recipe.num_generations, recipe.judge
        ways = {
            "pairwise": (2 * rows * pairs_of(recipe), 2),
            "listwise": (2 * rows, answers),
            "pointwise": (rows * answers, 1),
        }
        number, shown = ways[judge.mode]
        for member in judge.each():
            yield member, number * judge.repeats, shown
    elif recipe.STAGE.makes == "results":
        pairs = rows * recipe.num_generations * len(recipe.candidates)
        for judge in recipe.judges:
            for member in judge.each():
                yield member, 2 * pairs, 2
    elif isinstance(recipe, PolicyGradientRecipe):
        asked = [(entry, 1) for entry in recipe.scorers]
        asked += [(entry, recipe.watch_interval) for entry in recipe.watch_scorers]
        for entry, every in asked:
            if isinstance(entry, JudgeScorerEntry):
                yield entry.judge.model_copy(update={"asks": "pointwise"}), recipe.total_episodes // every, 1


def calls_of_judge(judge: AnyJudge, questions: int, answers: int, lengths: Lengths) -> Calls:
    """Count the calls of one judge for questions that each show some answers."""
    chat = judge if isinstance(judge, ChatEntry) else None
    number = questions * (_criteria(chat.rubric) if chat and chat.rubric else 1)
    prompt = number * (INSTRUCTIONS + lengths.prompt + answers * lengths.answer)
    longest = chat.max_tokens if chat else None
    reply = number * (longest or REPLY[judge.mode][bool(chat and chat.reasoning)])
    if not isinstance(judge, RemoteEntry):
        return Calls(number, prompt, reply, 0.0, "USD")
    prices = _prices(judge)
    if prices is None:
        return Calls(number, prompt, reply, None, "USD")
    return Calls(number, prompt, reply, (prompt * prices.prompt + reply * prices.completion) / 1e6, prices.currency)


def _prices(judge: RemoteEntry) -> PricesEntry | None:
    if judge.prices is None or isinstance(judge.prices, PricesEntry):
        return judge.prices
    try:
        return PricesEntry(**_table(judge.prices)[str(judge.model)])
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError([f"prices {judge.prices}: has no prices of model {judge.model} ({error})"]) from None


def _criteria(path: str) -> int:
    try:
        return len(_table(path)["criteria"])
    except (KeyError, TypeError) as error:
        raise RecipeError([f"rubric {path}: has no list of criteria ({error})"]) from None


def _table(path: str) -> dict[str, Any]:
    return read_document(path).values
