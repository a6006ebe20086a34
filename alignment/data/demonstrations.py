"""From a conversation to a demonstration: which of the assistant's messages are trained."""

from typing import Any

from alignment.data.answers import is_empty, message_of_answer
from alignment.data.conversations import UNTRAINED, carrying_tools, split_answer, without_mark
from alignment.data.fields import BadRow
from alignment.data.rows import Demonstration, Message, Ranking
from alignment.data.sampled import of_answers


def demonstration_of(messages: list[Message], what: str, tools: str | None) -> Demonstration:
    """Make a demonstration of a conversation that ends with the assistant; it ends with the last trained answer."""
    split_answer(messages, what)
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    untrained = frozenset(place for place in answers if UNTRAINED in messages[place])
    trained = [place for place in answers if place not in untrained]
    if not trained:
        raise BadRow(
            f"{what} has no message of the assistant that is trained: all are marked with weight 0 or the like"
        )
    if trained[0] == 0:
        raise BadRow(
            f"{what} begins with a message of the assistant, which answers nothing; take it out, or mark it with "
            "weight 0 to keep it as context"
        )
    *prompt, answer = [without_mark(message) for message in messages[: trained[-1] + 1]]
    more = answer if answer.keys() - {"role", "content"} else None
    return Demonstration(prompt, answer["content"], tools, answer=more, untrained=untrained - {trained[-1]})


def demonstration_of_best(ranking: Ranking, best: int | None, source: str) -> Demonstration | None:
    """Make a demonstration of the answer that wins a ranking; None if there is none, or an empty one."""
    if best is None or is_empty(ranking.responses[best]):
        return None
    prompt, text = ranking.prompt, ranking.responses[best]
    answer = message_of_answer(text, from_field=ranking.reasoning_field(best))
    more = answer if isinstance(prompt, list) and answer.keys() - {"role", "content"} else None
    kept = of_answers(ranking.provenance, [best])
    sampled = Ranking(prompt, [text], [], kept, source) if kept else None
    return Demonstration(prompt, text, source=source, answer=more, sampled=sampled)


def sampled_answer(row: Demonstration, provenance: dict[str, Any]) -> Ranking | None:
    """Return the answer alone with what the row's provenance holds of it; None where no policy sampled it."""
    kept = of_answers(provenance, [0])
    prompt = carrying_tools(row.prompt, row.tools) if isinstance(row.prompt, list) else row.prompt
    return Ranking(prompt, [row.completion], [], kept) if kept else None
