"""Pretraining: its recipe."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from alignment.config.schema.keys import PeftMethod
from alignment.config.schema.recipe import SPEEDS, Stage, TrainingRecipe
from alignment.config.tasks import CAUSAL, MASKED, SEQ2SEQ


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The facts about one value of `objective`."""

    task: str  # PEFT's name for the kind of model
    keys: tuple[str, ...]  # of the recipe, that this objective alone reads
    generates: bool = True  # whether the model writes answers


OBJECTIVES = {
    "causal": Objective(task=CAUSAL, keys=("packing",)),
    "masked": Objective(task=MASKED, keys=("mlm_probability", "whole_word_mask"), generates=False),
    "seq2seq": Objective(task=SEQ2SEQ, keys=("noise_density", "mean_noise_span_length")),
}


class PretrainRecipe(TrainingRecipe):
    """Pretraining on text, from random weights or continued, with a `transformers.Trainer`."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    STAGE = Stage(
        title="Pretraining",
        help="Pretrain a model on text, from scratch or continued.",
        makes="policy",
        rows="demonstrations",
        next_step="use it as model_name_or_path of stage sft",
        trains=True,
        splits=True,
        held_out=True,
        metrics=("loss", "perplexity", "bits_per_byte", "predicted_tokens", *SPEEDS),
    )
    stage: Literal["pretrain"]
    objective: Literal["causal", "masked", "seq2seq"] = "causal"
    """What is learned: the next token (`causal`), hidden tokens (`masked`), or hidden spans and answers (`seq2seq`)."""
    from_scratch: bool = False
    """Start from random weights of the model's configuration, drawn with `seed`, in place of its own weights."""
    peft_method: PeftMethod = "full"
    """`full` trains all weights; `lora`, `dora` and most others train an adapter. docs/tuning.md lists the methods."""
    max_length: int | None = Field(default=1024, gt=1, le=10**8)
    """Maximum number of tokens of a sequence; longer documents are split. `null`: the model's context length."""
    packing: bool | None = None
    """With `objective: causal`: fill sequences with documents, which do not attend to each other. `null`: true, unless
    a soft prompt is trained.
    """
    streaming: bool = False
    """Read files of JSON lines while training, in memory that does not grow with them. Needs `max_steps`."""
    shuffle_buffer_size: int = Field(default=1000, gt=0, le=10**7)
    """With `streaming`: number of documents from which the next one is drawn."""
    mlm_probability: float = Field(default=0.15, gt=0, lt=1)
    """With `objective: masked`: share of the tokens that are predicted. Of these 80 % are replaced by the mask token,
    10 % by a random token, and 10 % stay.
    """
    whole_word_mask: bool = False
    """With `objective: masked`: predict all tokens of a word, or none."""
    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """With `objective: seq2seq`: share of a text's tokens that are hidden, in spans."""
    mean_noise_span_length: float = Field(default=3.0, ge=1, le=10**4)
    """With `objective: seq2seq`: mean number of tokens of a hidden span."""
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
    """Stop after this many evaluations without improvement. Needs `load_best_model_at_end`."""

    @property
    def task(self) -> str:
        """PEFT's name for the kind of model that the stage makes."""
        return OBJECTIVES[self.objective].task

    @property
    def generates(self) -> bool:
        """Whether the model writes answers, which end at stop tokens."""
        return OBJECTIVES[self.objective].generates

    @property
    def packs(self) -> bool:
        """Whether sequences are filled with documents."""
        packing = self.method.family != "soft_prompts" if self.packing is None else self.packing
        return self.objective == "causal" and packing
