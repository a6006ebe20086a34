"""Magpie, https://arxiv.org/abs/2406.08464, section 2: a chat model writes the user's message, then the answer to it.

The model is given its chat template up to where the user's text begins, and nothing else. Settings are those of
https://github.com/magpie-align/magpie: temperature 1 for instructions and 0 for answers; an instruction ends with its
first line, as a model may go on with its answer there.
"""

from typing import Any

from alignment.config.schema.synthesize import MagpieEntry, SynthesizeRecipe
from alignment.data.rows import Message
from alignment.synthesize.replies import why_nothing
from alignment.synthesize.rows import Row, Seed, instruction_row
from alignment.synthesize.writing import Ask, Record, Writer, Written, declines

PROMPTS = ()  # the chat template is the prompt


def synthesize(
    recipe: SynthesizeRecipe, seeds: list[Seed], writer: Writer, record: Record
) -> tuple[list[Row], dict[str, Any]]:
    """Write instructions as the user, then answer each different one. There are no seeds.

    Raises: JudgeError if too many replies give nothing.
    """
    method = recipe.method
    assert isinstance(method, MagpieEntry)
    system: list[Message] = [{"role": "system", "content": method.system}] if method.system else []
    asks = [
        Ask.of("instructions", system, method.temperature, method.max_tokens, repeat=repeat, as_user=True)
        for repeat in range(method.num_instructions)
    ]
    at_once = recipe.writer.at_once(recipe.max_concurrency)
    instructions: dict[str, Written] = {}
    for reply in writer.write(asks, record, max_concurrency=at_once, doing="instructions"):
        text = first_line(reply.text) if method.first_line else reply.text
        is_whole = reply.status == "ok" or (reply.status == "truncated" and text != reply.text)
        if not text or not is_whole:
            record.fail("instructions", reply, why_nothing(reply))
        elif text in instructions:
            record.drop("instructions", "duplicate", text, call=reply.call)
        else:
            instructions[text] = reply
    record.check(writer.name)
    asks = [
        Ask.of("answer", [*system, {"role": "user", "content": text}], method.answer_temperature, method.max_tokens)
        for text in instructions
    ]
    rows: list[Row] = []
    answers = writer.write(asks, record, max_concurrency=at_once, doing="answers")
    for (text, written), reply in zip(instructions.items(), answers, strict=True):
        lineage: dict[str, Any] = {"method": method.kind, "writer": writer.name, "seeds": []}
        lineage |= {"instructions_call": written.call, "call": reply.call}
        if reply.status != "ok" or declines(reply):
            record.fail("answer", reply, why_nothing(reply), instruction=text, provenance=lineage)
        else:
            rows.append(instruction_row(text, "", reply.text, lineage))
    return rows, {"instructions_wanted": method.num_instructions, "instructions": len(rows)}


def first_line(text: str) -> str:
    """Return the first line of a text that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def imagine(ask: Ask, number: int, method: Any) -> str:
    """Return the reply that a dry run assumes."""
    return f"imagined {ask.step} {number}"
