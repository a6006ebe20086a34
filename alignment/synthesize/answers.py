"""Answers to given prompts: rows whose prompts are organic and whose answers are synthetic."""

from typing import Any

from alignment.config.schema.synthesize import AnswersEntry, SynthesizeRecipe
from alignment.data.conversations import readable
from alignment.data.rows import Message
from alignment.synthesize.replies import why_nothing
from alignment.synthesize.rows import Row, Seed
from alignment.synthesize.writing import Ask, Record, Writer, declines

PROMPTS = ()  # the data's own


def synthesize(
    recipe: SynthesizeRecipe, seeds: list[Seed], writer: Writer, record: Record
) -> tuple[list[Row], dict[str, Any]]:
    """Write `num_answers` answers to each prompt, and keep its different ones.

    A row has the layout of its prompt: text gives `prompt` and `completion`, messages give `messages`.

    Raises: JudgeError if too many answers fail; BudgetError.
    """
    method = recipe.method
    assert isinstance(method, AnswersEntry)
    asks = [
        Ask.of("answer", messages_of(seed, method.system), method.temperature, method.max_tokens, repeat=repeat)
        for seed in seeds
        for repeat in range(method.num_answers if method.temperature > 0 else 1)
    ]
    at_once = recipe.writer.at_once(recipe.max_concurrency)
    replies = writer.write(asks, record, max_concurrency=at_once, doing="answers")
    each = len(asks) // len(seeds)
    rows: list[Row] = []
    for place, seed in enumerate(seeds):
        texts: set[str] = set()
        for reply in replies[place * each : (place + 1) * each]:
            lineage = {"method": method.kind, "writer": writer.name, "seeds": [seed.source], "call": reply.call}
            if reply.status != "ok" or declines(reply):
                record.fail("answer", reply, why_nothing(reply), provenance=lineage)
            elif reply.text in texts:
                record.drop("answer", "duplicate", reply.text, provenance=lineage)
            else:
                texts.add(reply.text)
                rows.append({**_answered(seed, reply.text), "provenance": lineage})
    return rows, {"prompts": len(seeds)}


def messages_of(seed: Seed, system: str = "") -> list[Message]:
    """Return a prompt as messages, behind one of the system unless that is empty."""
    prompt = [{"role": "user", "content": seed.prompt}] if isinstance(seed.prompt, str) else seed.prompt
    return [{"role": "system", "content": system}, *prompt] if system else list(prompt)


def _answered(seed: Seed, answer: str) -> Row:
    if isinstance(seed.prompt, str):
        return {"prompt": seed.prompt, "completion": answer}
    return {"messages": [*seed.prompt, {"role": "assistant", "content": answer}]}


def shown(recipe: SynthesizeRecipe, seeds: list[Seed], place: int) -> str:
    """Return what the writer is given about a seed."""
    assert isinstance(recipe.method, AnswersEntry)
    return readable(messages_of(seeds[place], recipe.method.system))


def imagine(ask: Ask, number: int, method: Any) -> str:
    """Return the reply that a dry run assumes."""
    return f"imagined {ask.step} {number}"
