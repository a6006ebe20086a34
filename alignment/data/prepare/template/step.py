"""Writes prompts and answers of the columns of labelled rows."""

import copy
import itertools
import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from alignment.config.faults import did_you_mean
from alignment.config.schema.steps.templates import JinjaTemplate, TemplateEntry
from alignment.data.keys import ORIGIN
from alignment.data.prepare.split import NOTE as SPLIT
from alignment.data.prepare.step import Change, Drop, Outcome, Row, Rows, Step, StepError
from alignment.data.prepare.template.promptsource import read_promptsource
from alignment.data.prepare.template.sandbox import Compiled, Missing, Sandbox, TemplateFault, sizes

SEPARATOR = "|||"
CHOICES = "answer_choices"
_PROTECTED = "5b0e6f5ac0f94f2cb7a1d1a2separator"  # stands for a separator in the row's own text
# Between the examples of a prompt, and between a prompt and its answer in an example, as in EleutherAI's
# lm-evaluation-harness (fewshot_delimiter, target_delimiter).
BETWEEN_EXAMPLES, BEFORE_ANSWER = "\n\n", " "
TRIED = 100  # rows that are rendered before anything is written
POOL = 10_000  # rows that examples are drawn from


@dataclass(frozen=True)
class Written:
    """The prompt and the answer of a row."""

    prompt: str
    answer: str
    choices: list[str] | None


@dataclass(frozen=True)
class Pairs:
    """A template that writes a prompt and an answer."""

    name: str
    text: Compiled
    choices: Compiled | None

    @property
    def fields(self) -> set[str]:
        """The columns that it reads."""
        inner = self.choices.fields if self.choices is not None else frozenset()
        return {*(self.text.fields - {CHOICES}), *inner}

    def write(self, values: dict[str, Any], dice: random.Random) -> Written | None:
        """Return what it writes of a row; None if it writes nothing, or no answer, or the row lacks a column.

        Raises: TemplateFault.
        """
        if not self.fields <= values.keys():
            return None
        given = {**_protected(copy.deepcopy(values)), CHOICES: None}
        sandbox = self.text.sandbox
        sandbox.begin(dice, sum(sizes(values)))
        if self.choices is not None:
            given[CHOICES] = _parts(self.choices.render(_protected(copy.deepcopy(values))))
        parts = _parts(self.text.render(given))
        if len(parts) > 2:
            raise TemplateFault(f"writes {SEPARATOR} more than once")
        if len(parts) < 2 and parts[0]:
            raise TemplateFault(f"writes no {SEPARATOR} between the prompt and the answer")
        if len(parts) < 2 or not parts[0] or not parts[1]:
            return None
        return Written(parts[0], parts[1], given[CHOICES])


class Templated(Step):
    """Replaces a row by one for each template that is drawn for it."""

    def __init__(self, entry: TemplateEntry, seed: int) -> None:
        self.entry, self.seed = entry, seed
        self.templates = _templates(entry)

    def require(self, rows: Rows) -> None:
        """Refuse templates that read a column of no row, or cannot be rendered for the first rows.

        Raises: StepError.
        """
        columns = {name for row in rows for name in _values(row)}
        for template in self.templates:
            for field in sorted(template.fields - columns):
                raise StepError(
                    f"step {self.entry.label}: the template {template.name} reads {field}, which no row has"
                    f"{did_you_mean(field, columns)}; the columns are {', '.join(sorted(columns))}"
                )
        for template in self.templates:
            self._try(template, rows)

    def _try(self, template: Pairs, rows: Rows) -> None:
        """Render the first rows; a value that all of them lack is a fault."""
        missing: StepError | None = None
        for row in itertools.islice(rows, TRIED):
            try:
                if self._render(template, row, random.Random(0)) is not None:
                    return
            except StepError as error:
                if not isinstance(error.__cause__, Missing):
                    raise
                missing = error
        if missing is not None:
            raise missing

    def apply(self, row: Row) -> Outcome:
        """Return the rows of the templates that are drawn."""
        dice = random.Random(f"{self.seed} {row.origin}")
        rows: list[Row] = []
        for template in dice.sample(self.templates, len(self.templates)):
            if len(rows) == self.entry.per_row:
                break
            pair = self.written(template, row, dice)
            if pair is None:
                continue
            value = {"prompt": self.prompt(row, template, pair, dice), "completion": pair.answer}
            value |= {ORIGIN: row.value[ORIGIN]} if ORIGIN in row.value else {}
            made = replace(row, value=value, layout="prompt_completion").noting(template=template.name)
            rows.append(made.noting(answer_choices=pair.choices) if pair.choices is not None else made)
        if not rows:
            return Drop("no template applies")
        return Change("template", tuple(rows), ", ".join(str(each.notes["template"]) for each in rows))

    def prompt(self, row: Row, template: Pairs, pair: Written, dice: random.Random) -> str:
        """Return the prompt of a row."""
        return pair.prompt

    def written(self, template: Pairs, row: Row, dice: random.Random) -> Written | None:
        """Return what a template writes of a row; None also if the row lacks a value inside a column.

        Raises: StepError if it cannot be rendered.
        """
        try:
            return self._render(template, row, dice)
        except StepError as error:
            if isinstance(error.__cause__, Missing):
                return None
            raise

    def _render(self, template: Pairs, row: Row, dice: random.Random) -> Written | None:
        try:
            return template.write(_values(row), dice)
        except TemplateFault as fault:
            raise StepError(f"step {self.entry.label}: the template {template.name} {fault} ({row.origin})") from fault


class FewShot(Templated):
    """Puts other rows before each prompt, as examples."""

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: TemplateEntry, seed: int) -> None:
        super().__init__(entry, seed)
        self.pool: list[Row] = []

    def look(self, rows: Rows) -> None:
        """Draw the rows that serve as examples: of the split `train`, where rows are split."""
        places = [row.place for row in rows if row.notes.get(SPLIT, "train") == "train"]
        drawn = set(random.Random(self.seed).sample(places, min(POOL, len(places))))
        self.pool = [row for row in rows if row.place in drawn]
        if len(self.pool) <= self.entry.few_shot:
            raise StepError(
                f"step {self.entry.label}: few_shot {self.entry.few_shot} needs more rows of the split train than "
                f"{len(self.pool):,}"
            )

    def prompt(self, row: Row, template: Pairs, pair: Written, dice: random.Random) -> str:
        """Return the prompt behind examples of the same template, none of which is the row or equals it.

        Raises: StepError if there are too few rows.
        """
        examples: dict[str, str] = {}
        for place in dice.sample(range(len(self.pool)), len(self.pool)):
            other = self.pool[place]
            if other.place == row.place or _values(other) == _values(row):
                continue
            found = self.written(template, other, dice)
            if found is not None and found.prompt != pair.prompt:
                examples.setdefault(found.prompt, found.answer)
            if len(examples) == self.entry.few_shot:
                break
        else:
            raise StepError(
                f"step {self.entry.label}: {row.origin}: only {len(examples)} other rows can be examples of the "
                f"template {template.name}; few_shot is {self.entry.few_shot}"
            )
        shown = [f"{prompt}{BEFORE_ANSWER}{answer}" for prompt, answer in examples.items()]
        return BETWEEN_EXAMPLES.join([*shown, pair.prompt])


def _templates(entry: TemplateEntry) -> list[Pairs]:
    given = [*entry.templates, *(each for path in entry.promptsource for each in read_promptsource(path))]
    names = [each.name for each in given]
    for name in entry.names or []:
        if name not in names:
            raise StepError(
                f"step {entry.label}: names: no template is {name}{did_you_mean(name, names)}; there are "
                f"{', '.join(names)}"
            )
    twice = next((name for name in names if names.count(name) > 1 and name in (entry.names or names)), None)
    if twice is not None:
        raise StepError(f"step {entry.label}: two templates have the name {twice}; rows note it, so give other names")
    sandbox = Sandbox()
    return [_compiled(entry, each, sandbox) for each in given if entry.names is None or each.name in entry.names]


def _compiled(entry: TemplateEntry, given: JinjaTemplate, sandbox: Sandbox) -> Pairs:
    try:
        if SEPARATOR not in given.template:
            raise TemplateFault(f"has no {SEPARATOR} between the prompt and the answer")
        choices = None if given.answer_choices is None else sandbox.compiled(given.answer_choices)
        pairs = Pairs(given.name, sandbox.compiled(given.template), choices)
        if CHOICES in pairs.text.fields and choices is None:
            raise TemplateFault(f"reads {CHOICES} and has none")
    except TemplateFault as fault:
        raise StepError(f"step {entry.label}: the template {given.name} {fault}") from None
    return pairs


def _values(row: Row) -> dict[str, Any]:
    """Return a row's columns by names that Jinja reads: promptsource writes `_` for `-`."""
    return {name.replace("-", "_"): value for name, value in row.value.items() if name not in (ORIGIN, CHOICES)}


def _protected(value: Any) -> Any:
    """Return a value in which no text holds the separator."""
    if isinstance(value, dict):
        return {key: _protected(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_protected(one) for one in value]
    return value.replace(SEPARATOR, _PROTECTED) if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    return [part.strip().replace(_PROTECTED, SEPARATOR) for part in text.split(SEPARATOR)]
