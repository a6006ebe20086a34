"""Self-Instruct, https://arxiv.org/abs/2212.10560, sections 2.2 and A.

Numbers, filters and the reading of replies are those of https://github.com/yizhongw/self-instruct: the scripts
bootstrap_instructions.py, identify_clf_or_not.py, generate_instances.py and prepare_for_finetuning.py. The prompts are
our own, for chat models, which get no stop sequences: what the scripts' stop sequences cut off (a paragraph behind the
list, items beyond the eighth, another `Task:`) is cut from the reply. Four more things differ: only the first letter of
an instruction is capitalised (the script lowers all others); at a ROUGE-L of exactly the limit an instruction is left
out, as the paper states it; of more than `max_instances` the first are kept in place of a sample; and the marks of a
reply (`Example 1`, `Input:`, `Output:`, `Class label:`) count at the beginning of a line alone.
"""

import random
import re
import string
from dataclasses import dataclass, field
from typing import Any

from alignment.config.schema.synthesize import SelfInstructEntry, SynthesizeRecipe
from alignment.errors import JudgeError
from alignment.synthesize.replies import read_examples, read_labelled, read_list, read_yes_or_no, why_nothing
from alignment.synthesize.rouge import RougeIndex
from alignment.synthesize.rows import Row, Seed, instruction_row
from alignment.synthesize.writing import Ask, Record, Writer, Written, declines

NEW_PER_PROMPT = 8  # the script's prompts list 8 tasks and stop at number 16
CLASSIFICATION_TOKENS = 16  # of a reply that begins with yes or no

NEW_TASKS = """\
Here is a numbered list of tasks for an assistant that only reads and writes text.

{examples}

Continue the list with {count} new tasks, numbered {first} to {last}. Vary topic, wording and kind of task. \
Each task is one or two sentences that make sense without the others. Write the list alone."""

IS_CLASSIFICATION = """\
A task is a classification task if its answer is one of a small, fixed set of labels.

Task: Decide whether the film review is positive or negative.
Classification: yes

Task: Suggest three names for a bakery.
Classification: no

Task: Which of the options A, B, C and D answers the question?
Classification: yes

Task: Summarise the article in two sentences.
Classification: no

Task: Tell if the following claim is true or false.
Classification: yes

Task: Translate the sentence into Spanish.
Classification: no

Task: {instruction}
Classification: answer yes or no."""

INPUT_FIRST = """\
Write up to {count} examples of the last task: an input that the task can be applied to, if it needs one, then the \
correct output. Follow the form of these examples. A task that needs no input gets one example with an output alone.

Task: Put the words in alphabetical order.
Example 1
Input: pear, apple, fig
Output: apple, fig, pear
Example 2
Input: stone, cloud, river, hill
Output: cloud, hill, river, stone

Task: Convert the temperature from Celsius to Fahrenheit.
Example 1
Input: 25
Output: 77

Task: Give one reason to keep a diary.
Example 1
Output: It helps you notice how your days and moods change over time.

Task: {instruction}"""

OUTPUT_FIRST = """\
Write up to {count} examples of the last classification task. First choose a label, then write an input that has this \
label, and use different labels. Follow the form of these examples.

Task: Decide whether the message is urgent. Answer with Urgent or Not urgent.
Class label: Urgent
Message: The server room is flooding, please come now!
Class label: Not urgent
Message: Could you send me last month's newsletter when you have time?

Task: Which language is the sentence written in?
Class label: Italian
Sentence: Dove si trova la stazione?
Class label: Dutch
Sentence: Waar is het station?

Task: {instruction}"""

PROMPTS = (NEW_TASKS, IS_CLASSIFICATION, INPUT_FIRST, OUTPUT_FIRST)


@dataclass
class Instruction:
    """An instruction that was written, and where it comes from."""

    number: int
    text: str
    lineage: dict[str, Any]  # the examples of its prompt, its nearest seed, and the calls
    instances: list[tuple[str, str]] = field(default_factory=list)  # input and output


def synthesize(
    recipe: SynthesizeRecipe, seeds: list[Seed], writer: Writer, record: Record
) -> tuple[list[Row], dict[str, Any]]:
    """Write instructions, then inputs and outputs of each.

    Raises: JudgeError if nothing usable is written; BudgetError.
    """
    method = recipe.method
    assert isinstance(method, SelfInstructEntry)
    instructions, rounds = _new_instructions(recipe, method, seeds, writer, record)
    asks = [
        Ask.of("classification", IS_CLASSIFICATION.format(instruction=each.text), 0.0, CLASSIFICATION_TOKENS)
        for each in instructions
    ]
    at_once = recipe.writer.at_once(recipe.max_concurrency)
    replies = writer.write(asks, record, max_concurrency=at_once, doing="classification")
    known: list[tuple[Instruction, bool]] = []
    for each, reply in zip(instructions, replies, strict=True):
        is_classification = read_yes_or_no(reply)
        if is_classification is None:
            record.fail("classification", reply, why_nothing(reply), instruction=each.text, provenance=each.lineage)
        else:
            each.lineage |= {"classification": is_classification}
            known.append((each, is_classification))
    record.check(writer.name)
    asks = [
        Ask.of(
            "instances",
            (OUTPUT_FIRST if is_classification else INPUT_FIRST).format(
                instruction=each.text, count=method.max_instances
            ),
            0.0,
            method.max_tokens,
        )
        for each, is_classification in known
    ]
    replies = writer.write(asks, record, max_concurrency=at_once, doing="instances")
    for (each, is_classification), reply in zip(known, replies, strict=True):
        _read_instances(each, is_classification, reply, method.max_instances, record)
    rows = [
        instruction_row(each.text, given, output, each.lineage) for each, _ in known for given, output in each.instances
    ]
    kinds = [is_classification for each, is_classification in known if each.instances]
    return rows, {
        "instructions": len(kinds),
        "instructions_written": len(instructions),
        "instructions_wanted": method.num_instructions,
        "classification_tasks": sum(kinds),
        "rounds": rounds,
    }


@dataclass
class Pool:
    """The seeds and the instructions written so far, from which prompts show examples."""

    method: SelfInstructEntry
    seeds: list[Seed]
    rng: random.Random
    written: list[Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._of_seeds, self._all = (RougeIndex(any_script=not self.method.english_only) for _ in range(2))
        for seed in self.seeds:
            self._of_seeds.add(seed.text)
            self._all.add(seed.text)

    def draw(self) -> tuple[str, dict[str, Any]]:
        """Return a prompt with examples in random order, and where they come from."""
        written = self.rng.sample(self.written, min(self.method.num_written_examples, len(self.written)))
        chosen = self.rng.sample(self.seeds, self.method.least_seeds - len(written))
        texts = [each.text for each in written] + [each.text for each in chosen]
        self.rng.shuffle(texts)
        shown = {"seeds": [seed.source for seed in chosen], "written": [each.number for each in written]}
        return prompt_of(texts), shown

    def take(self, text: str, lineage: dict[str, Any], record: Record) -> None:
        """Add an instruction that passes all filters; record any other."""
        reason = why_left_out(text, self.method)
        if reason is None and self._all.reaches(text, self.method.max_rouge_l):
            reason = "similar"
        similarity, place = self._of_seeds.nearest(text)
        nearest = self.seeds[place].source if place is not None else None
        lineage = {**lineage, "nearest_seed": nearest, "rouge_l": round(similarity, 4)}
        if reason is not None:
            record.drop("instructions", reason, text, provenance=lineage)
            return
        number = len(self.written)
        self.written.append(Instruction(number, text, {"instruction": number, **lineage}))
        self._all.add(text)


def _new_instructions(
    recipe: SynthesizeRecipe, method: SelfInstructEntry, seeds: list[Seed], writer: Writer, record: Record
) -> tuple[list[Instruction], int]:
    """Write instructions in rounds: prompts of one round show examples of the same pool."""
    pool = Pool(method, seeds, random.Random(recipe.seed))
    at_once = recipe.writer.at_once(recipe.max_concurrency)
    rounds = asked = barren = 0
    with writer.bar("instructions", "instructions", method.num_instructions) as progress:
        while len(pool.written) < method.num_instructions and barren < method.patience:
            before = len(pool.written)
            drawn = [pool.draw() for _ in range(method.prompts_per_round)]
            asks = [
                Ask.of("instructions", prompt, method.temperature, method.max_tokens, repeat=asked + place)
                for place, (prompt, _) in enumerate(drawn)
            ]
            replies = writer.write(asks, record, max_concurrency=at_once)
            for (_, examples), reply in zip(drawn, replies, strict=True):
                texts = read_list(reply)[:NEW_PER_PROMPT]
                if not texts:
                    record.fail("instructions", reply, why_nothing(reply))
                lineage = {"method": method.kind, "writer": writer.name, **examples, "call": reply.call}
                for text in texts:
                    if len(pool.written) < method.num_instructions:
                        pool.take(text, lineage, record)
            asked += len(asks)
            rounds += 1
            barren = barren + 1 if len(pool.written) == before else 0
            progress.advance(len(pool.written) - before)
            record.check(writer.name)
    if not pool.written:
        raise JudgeError(
            f"writer {writer.name}: {rounds} rounds gave no new instruction; left out {record.counts()}. Last failure: "
            f"{record.last or 'none'}"
        )
    return pool.written, rounds


def prompt_of(examples: list[str]) -> str:
    """Return the prompt that shows examples as a numbered list and requests its continuation."""
    tasks = [re.sub(r"\s+", " ", text).strip().rstrip(":") for text in examples]
    first = len(tasks) + 1
    return NEW_TASKS.format(
        examples="\n".join(f"{number}. {task}" for number, task in enumerate(tasks, 1)),
        count=NEW_PER_PROMPT,
        first=first,
        last=first + NEW_PER_PROMPT - 1,
    )


def why_left_out(text: str, method: SelfInstructEntry) -> str | None:
    """Return the filter that an instruction does not pass; None if it passes all."""
    count = len(text.split())
    if count < method.min_words:
        return "too short"
    if count > method.max_words:
        return "too long"
    if any(re.search(rf"\b({re.escape(word)})\b", text, re.IGNORECASE) for word in method.keywords):
        return "keyword"
    if text.startswith("Write a program"):
        return "program"
    if text[0] in string.punctuation:
        return "punctuation"
    if method.english_only and not text[0].isascii():
        return "not English"
    return None


def _read_instances(each: Instruction, is_classification: bool, reply: Written, most: int, record: Record) -> None:
    """Fill the instances of an instruction, and record what is left out."""
    read = read_labelled if is_classification else read_examples
    pairs = list(read(reply.text)) if reply.status in ("ok", "truncated") and not declines(reply) else []
    if not pairs:
        record.fail("instances", reply, why_nothing(reply), instruction=each.text, provenance=each.lineage)
        return
    if reply.status == "truncated":
        record.drop("instances", "cut off", "\n".join(pairs.pop()), instruction=each.text, provenance=each.lineage)
    each.lineage |= {"instances_call": reply.call}
    valid: list[tuple[str, str]] = []
    for given, output in pairs:
        reason = why_invalid(given, output)
        if reason is None and (given, output) in valid:
            reason = "duplicate"
        if reason is not None:
            record.drop("instances", reason, output, instruction=each.text, input=given, provenance=each.lineage)
        else:
            valid.append((given, output))
    inputs = [given for given, _ in valid if given]
    if len(set(inputs)) < len(inputs):
        text = "\n".join(output for _, output in valid)
        record.drop("instances", "outputs contradict", text, instruction=each.text, provenance=each.lineage)
        valid = []
    each.instances = valid[:most]
    if not each.instances:
        record.drop("instances", "none left", each.text, provenance=each.lineage)


def why_invalid(given: str, output: str) -> str | None:
    """Return why an instance is left out; None if it is kept."""
    if not output:
        return "no output"
    if given == output:
        return "output repeats input"
    if given.endswith(":") or output.endswith(":"):
        return "ends with a colon"
    return None


def shown(recipe: SynthesizeRecipe, seeds: list[Seed], place: int) -> str:
    """Return a prompt for new instructions that shows a seed."""
    assert isinstance(recipe.method, SelfInstructEntry)
    return prompt_of([seed.text for seed in (seeds[place:] + seeds[:place])[: recipe.method.least_seeds]])


def imagine(ask: Ask, number: int, method: Any) -> str:
    """Return the reply that a dry run assumes: as many new instructions as were asked for, each with one output."""
    if ask.step == "instructions":
        words = range(min(max(16, method.min_words), method.max_words))
        tasks = [" ".join(f"imagined{number}x{item}x{word}" for word in words) for item in range(NEW_PER_PROMPT)]
        return "\n".join(f"{item}. {task}" for item, task in enumerate(tasks, 1))
    return "no" if ask.step == "classification" else "Output: imagined"
