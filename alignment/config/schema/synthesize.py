"""Synthesis: its recipe, and one class per method; `alignment/synthesize/KIND.py` is the method.

To add a method, write that module and add a class to `MethodEntry`.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from alignment.config.schema.calls import CallKeys
from alignment.config.schema.keys import DataKeys, DatasetEntry
from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import Free, Name, Words
from alignment.config.schema.recipe import Recipe, Stage
from alignment.config.schema.writers import WriterEntry

# of bootstrap_instructions.py in https://github.com/yizhongw/self-instruct
KEYWORDS = "image images graph graphs picture pictures file files map maps draw plot".split()
KEYWORDS += ["go to"]
Operation = Literal["constraints", "deepen", "concretize", "reasoning", "complicate_input"]


class AnyMethod(Entry):
    """Keys of every method."""

    FAMILY: ClassVar[str] = "method"
    SEEDS: ClassVar[bool] = True  # reads `datasets`

    kind: str
    temperature: float = Field(default=1.0, ge=0, le=100)
    """Temperature of the texts that shall differ: instructions, and the answers of `answers`."""
    max_tokens: int = Field(default=2048, gt=0, le=10**7)
    """Maximum number of tokens of a reply."""

    @property
    def least_seeds(self) -> int:
        """Return the number of different seeds that the method needs."""
        return 1

    def most_rows(self, seeds: int | None) -> int | None:
        """Return the maximum number of rows; None if the number of seeds is unknown and matters."""
        raise NotImplementedError


class SelfInstructEntry(AnyMethod):
    """Self-Instruct (https://arxiv.org/abs/2212.10560)."""

    kind: Literal["self_instruct"]
    """New instructions after examples, then their inputs and outputs."""
    num_instructions: int = Field(default=100, gt=0, le=10**7)
    """Number of instructions to write."""
    num_seed_examples: int = Field(default=6, gt=0, le=1000)
    """Number of seeds in a prompt for new instructions."""
    num_written_examples: int = Field(default=2, ge=0, le=1000)
    """Number of written instructions in a prompt for new ones; until so many are written, seeds take their place."""
    prompts_per_round: int = Field(default=5, gt=0, le=10**4)
    """Number of prompts that are drawn from the same pool and sent together."""
    max_rouge_l: float = Field(default=0.7, gt=0, le=1)
    """Leave out an instruction whose ROUGE-L to a seed or a written instruction is this or more."""
    min_words: int = Field(default=4, gt=0, le=10**6)
    """Minimum number of words of an instruction."""
    max_words: int = Field(default=150, gt=0, le=10**6)
    """Maximum number of words of an instruction."""
    keywords: list[Name] = Field(default_factory=lambda: list(KEYWORDS))
    """Leave out instructions with one of these words, which a model of text cannot follow."""
    english_only: bool = True
    """Leave out instructions that begin with a character beyond ASCII, and compute ROUGE-L over runs of a-z and 0-9.
    `false`: words of any script.
    """
    patience: int = Field(default=10, gt=0, le=10**4)
    """Stop after this many rounds in a row without a new instruction."""
    max_instances: int = Field(default=5, gt=0, le=100)
    """Maximum number of inputs with an output for each instruction."""
    temperature: float = Field(default=0.7, ge=0, le=100)
    """Temperature of new instructions; inputs and outputs have 0."""
    max_tokens: int = Field(default=1024, gt=0, le=10**7)
    """Maximum number of tokens of a reply."""

    @property
    def least_seeds(self) -> int:
        """Return the number of examples in a prompt, which are seeds until instructions are written."""
        return self.num_seed_examples + self.num_written_examples

    def most_rows(self, seeds: int | None) -> int | None:
        """Return the maximum number of instances."""
        return self.num_instructions * self.max_instances


class EvolInstructEntry(AnyMethod):
    """Evol-Instruct (https://arxiv.org/abs/2304.12244)."""

    kind: Literal["evol_instruct"]
    """Instructions rewritten into harder and rarer ones, then answered."""
    num_rounds: int = Field(default=4, gt=0, le=100)
    """Number of evolutions of each seed."""
    in_depth: list[Operation] = Field(default_factory=lambda: list(get_args(Operation)))
    """Operations that make an instruction harder; each evolution draws one, or `in_breadth`, with equal chance."""
    in_breadth: bool = True
    """Also draw the operation that writes a rarer instruction of the same domain."""
    short_refusal_words: int = Field(default=80, ge=0, le=10**6)
    """Leave out an evolution whose answer has "sorry" and fewer words than this."""

    def most_rows(self, seeds: int | None) -> int | None:
        """Return the number of evolutions."""
        return None if seeds is None else seeds * self.num_rounds


class MagpieEntry(AnyMethod):
    """Magpie (https://arxiv.org/abs/2406.08464)."""

    SEEDS: ClassVar[bool] = False

    kind: Literal["magpie"]
    """Instructions that a model in this process writes as the user, without a prompt, then its answers."""
    num_instructions: int = Field(default=100, gt=0, le=10**7)
    """Number of instructions to sample."""
    system: Words = ""
    """A message of the system before the user's, which steers the domain."""
    first_line: bool = True
    """Keep the first line of an instruction, as a model may begin its answer in the next."""
    answer_temperature: float = Field(default=0.0, ge=0, le=100)
    """Temperature of answers."""

    def most_rows(self, seeds: int | None) -> int | None:
        """Return the number of instructions."""
        return self.num_instructions


class AnswersEntry(AnyMethod):
    """Answers to given prompts: semi-synthetic rows."""

    kind: Literal["answers"]
    """Answers to the prompts of `datasets`."""
    num_answers: int = Field(default=1, gt=0, le=1000)
    """Number of answers to each prompt."""
    system: Words = ""
    """A message of the system before the prompt, which is not part of the rows."""
    temperature: float = Field(default=0.0, ge=0, le=100)
    """Temperature of answers."""

    def most_rows(self, seeds: int | None) -> int | None:
        """Return the number of answers."""
        return None if seeds is None else seeds * self.num_answers


MethodEntry = Annotated[SelfInstructEntry | EvolInstructEntry | MagpieEntry | AnswersEntry, Field(discriminator="kind")]


class SynthesizeRecipe(Recipe, DataKeys, CallKeys):
    """Have a language model write instructions and answers."""

    STAGE = Stage(
        title="Synthesis",
        help="Have a language model write instruction data from few seeds.",
        makes="data",
        rows="prompts",
        next_step="look at {run}/synthesize.html, then clean {run} in stage prepare or train on it in stage sft",
        one_process=True,
    )
    stage: Literal["synthesize"]
    datasets: list[DatasetEntry] = Field(default_factory=list)
    """The seeds: prompts of any layout. Of rows with `instruction`, `self_instruct` reads that alone. `magpie` reads
    none.
    """
    writer: WriterEntry
    """The model that writes."""
    method: MethodEntry
    """What it writes, and how."""
    dry_run: Free[bool] = False
    """Print calls, tokens and cost without calling the writer."""

    @property
    def columns_read(self) -> dict[str, bool]:
        """Return the column that Self-Instruct reads beside prompts."""
        return {"instruction": False} if isinstance(self.method, SelfInstructEntry) else {}

    def most_rows(self, read: int | None) -> int | None:
        """Return the maximum number of rows that the method writes for as many seeds."""
        return self.method.most_rows(read)
