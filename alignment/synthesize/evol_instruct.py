"""Evol-Instruct, https://arxiv.org/abs/2304.12244, section 3.

Each round rewrites every instruction by one operation, drawn with equal chance: five make it harder (in depth), one
writes a rarer one (in breadth). An evolution that is eliminated leaves its instruction in the pool for the next round.
All evolutions of all rounds become rows, with the answer that was written for each. The prompts are our own.
"""

import random
import re
from dataclasses import dataclass
from typing import Any

from alignment.config.schema.synthesize import EvolInstructEntry, SynthesizeRecipe
from alignment.errors import JudgeError
from alignment.synthesize.replies import why_nothing
from alignment.synthesize.rows import Row, Seed, instruction_row
from alignment.synthesize.writing import Ask, Record, Writer, Written, declines

IN_DEPTH = """\
Rewrite the instruction in the box so that it is somewhat harder to fulfil for a capable assistant. {operation} It \
must make sense, and a person must be able to understand and answer it. Keep tables, code and other input that \
it holds. Add between 10 and 20 words, and no more. Reply with the new instruction alone.

[box]
{instruction}
[/box]"""
OPERATIONS = {
    "constraints": "Add one more constraint or requirement.",
    "deepen": "If it inquires into a matter, widen or deepen the inquiry.",
    "concretize": "Replace general concepts by more specific ones.",
    "reasoning": "If few simple steps of thought answer it, make it explicitly require several steps of reasoning.",
    "complicate_input": "Add input to work on in a format such as a table, code, JSON or XML that the task needs.",
}
IN_BREADTH = """\
Write a new instruction, inspired by the one in the box. It is from the same domain and even rarer, of similar length \
and difficulty. It must make sense, and a person must be able to understand and answer it. Reply with the new \
instruction alone.

[box]
{instruction}
[/box]"""
COMPARE = """\
Are these two instructions equal? Equal instructions have the same constraints and requirements, and the same depth \
and breadth of inquiry.

First: {first}

Second: {second}

Reply with one word: equal or different."""
PROMPTS = (IN_DEPTH, *OPERATIONS.values(), IN_BREADTH, COMPARE)
LEAKS = re.compile(r"\[/?box\]|\bin the box\b|\b(given|rewritten|created) prompt\b|\bnew instruction\b", re.IGNORECASE)
COMPARISON_TOKENS = 16  # of a reply that is one word
# The stop words of the paper's third rule are not published; these are the articles, pronouns, prepositions and forms
# of be, have and do.
STOP_WORDS = frozenset(
    "a an the this that these those i you we he she it they me him her us them my your his its our their of in on at "
    "by for with from to as into about and or but if so than then am is are was were be been being have has had do "
    "does did not no".split()
)


@dataclass
class Line:
    """A seed, and what it has become."""

    seed: Seed
    text: str
    operations: tuple[str, ...] = ()  # that led to `text`


def synthesize(
    recipe: SynthesizeRecipe, seeds: list[Seed], writer: Writer, record: Record
) -> tuple[list[Row], dict[str, Any]]:
    """Evolve the seeds `num_rounds` times, and answer every evolution.

    Raises: JudgeError if too many replies give nothing; BudgetError.
    """
    method = recipe.method
    assert isinstance(method, EvolInstructEntry)
    at_once = recipe.writer.at_once(recipe.max_concurrency)
    operations = [*method.in_depth, *(["breadth"] if method.in_breadth else [])]
    rng = random.Random(recipe.seed)
    lines = [Line(seed, seed.text) for seed in seeds]
    known = {seed.text for seed in seeds}
    rows: list[Row] = []
    for number in range(1, method.num_rounds + 1):
        drawn = [rng.choice(operations) for _ in lines]

        def ask(
            step: str, texts: list[str], temperature: float, most: int = method.max_tokens, number: int = number
        ) -> list[Written]:
            asks = [Ask.of(step, text, temperature, most, repeat=number) for text in texts]
            return writer.write(asks, record, max_concurrency=at_once, doing=f"round {number}: {step}")

        evolved = ask(
            "evolve",
            [prompt_of(line.text, operation) for line, operation in zip(lines, drawn, strict=True)],
            method.temperature,
        )
        standing = []
        for line, operation, reply in zip(lines, drawn, evolved, strict=True):
            lineage = {
                "method": method.kind,
                "writer": writer.name,
                "seeds": [line.seed.source],
                "operations": [*line.operations, operation],
                "round": number,
                "call": reply.call,
            }
            text = reply.text
            if reply.status != "ok" or declines(reply):
                record.fail("evolve", reply, why_nothing(reply), provenance=lineage)
            elif LEAKS.search(text) and not LEAKS.search(line.text):
                record.drop("evolve", "copies the prompt", text, provenance=lineage)
            elif text in known:
                record.drop("evolve", "duplicate", text, provenance=lineage)
            else:
                known.add(text)
                standing.append((line, operation, text, lineage))
        compared = ask(
            "compare",
            [COMPARE.format(first=line.text, second=text) for line, _, text, _ in standing],
            0.0,
            COMPARISON_TOKENS,
        )
        gained = []
        for one, reply in zip(standing, compared, strict=True):
            same = read_equal(reply)
            if same is None:
                record.fail("compare", reply, why_nothing(reply), instruction=one[2], provenance=one[3])
            elif same:
                record.drop("compare", "no information gain", one[2], provenance=one[3])
            else:
                gained.append(one)
        answers = ask("answer", [text for _, _, text, _ in gained], method.temperature)
        for (line, operation, text, lineage), reply in zip(gained, answers, strict=True):
            lineage["answer_call"] = reply.call
            reason = why_eliminated(reply, method.short_refusal_words)
            if reply.status != "ok":
                record.fail("answer", reply, instruction=text, provenance=lineage)
            elif reason is not None:
                record.drop("answer", reason, reply.text, instruction=text, provenance=lineage)
            elif declines(reply):
                record.fail("answer", reply, why_nothing(reply), instruction=text, provenance=lineage)
            else:
                rows.append(instruction_row(text, "", reply.text, lineage))
                line.text, line.operations = text, (*line.operations, operation)
        record.check(writer.name)
    if not rows:
        raise JudgeError(f"writer {writer.name}: every evolution was eliminated ({record.counts()}).")
    return rows, {"evolutions": len(rows), "evolved_seeds": sum(bool(line.operations) for line in lines)}


def prompt_of(instruction: str, operation: str) -> str:
    """Return the prompt that evolves an instruction."""
    if operation == "breadth":
        return IN_BREADTH.format(instruction=instruction)
    return IN_DEPTH.format(operation=OPERATIONS[operation], instruction=instruction)


def read_equal(reply: Written) -> bool | None:
    """Return whether a reply finds two instructions equal; None if it begins with neither word."""
    found = re.match(r"\W*(equal|(not equal|different))\b", reply.text, re.IGNORECASE)
    return None if found is None or reply.status not in ("ok", "truncated") else found[2] is None


def why_eliminated(answer: Written, short: int) -> str | None:
    """Return why an answer eliminates its instruction; None if it does not."""
    words = re.findall(r"\w+", answer.text.lower())
    if "sorry" in words and len(words) < short:
        return "short refusal"
    if all(word in STOP_WORDS for word in words):
        return "stop words alone"
    return None


def shown(recipe: SynthesizeRecipe, seeds: list[Seed], place: int) -> str:
    """Return a prompt that the writer is given about a seed: that of the first operation."""
    assert isinstance(recipe.method, EvolInstructEntry)
    return prompt_of(seeds[place].text, [*recipe.method.in_depth, "breadth"][0])


def imagine(ask: Ask, number: int, method: Any) -> str:
    """Return the reply that a dry run assumes: no evolution is eliminated."""
    return "different" if ask.step == "compare" else f"imagined {ask.step} {number}"
