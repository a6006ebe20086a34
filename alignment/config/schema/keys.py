"""Groups of keys that several stages have: the model, its adapter, the data, sampling."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.schema.parts import InputPath, Mark, Name, OtherPath, Part, Text, TextOrPath, Words

if TYPE_CHECKING:
    PeftMethod = str
else:
    PeftMethod = Literal[tuple(TUNING_METHODS)]

Fraction = Field(default=None, gt=0, lt=1)


class DatasetEntry(Part):
    """One data set of a mixture; the keys are those of TRL's `DatasetConfig`, plus `format`."""

    path: InputPath  # a file, a folder of files, or a Hub id
    name: Name | None = None
    data_dir: Annotated[Text, Mark.PATH] | None = None
    data_files: OtherPath | list[OtherPath] | None = None
    split: Name = "train"
    columns: list[Words] | dict[Words, Words] | None = None  # the columns to look at, or key of a layout → column
    ignore_columns: list[Words] = Field(default_factory=list)  # keys of rows and messages to leave out
    fraction: float | None = Field(default=None, gt=0, le=10**9)  # share of the mixture, normalised to sum to one
    format: Words | None = None  # None: found over the whole file


class ModelKeys(Part):
    """Which model, how it is held and which of its weights train; names as in TRL's `ModelConfig`."""

    model_name_or_path: InputPath  # a model, an adapter or a run directory
    model_revision: Name = "main"
    trust_remote_code: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    attn_implementation: Name | None = None
    chat_template: TextOrPath | None = None  # Jinja text, a file, chatml or plain; in place of the tokenizer's own
    eos_token: Name | None = None  # the token that ends an answer, where it is not the tokenizer's own
    load_in_4bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    use_bnb_nested_quant: bool = True


class AdapterKeys(Part):
    """What trains: everything, or a PEFT adapter; names as in TRL's `ModelConfig`."""

    peft_method: PeftMethod = "lora"
    lora_r: int = Field(default=16, gt=0, le=2**16)
    lora_alpha: int = Field(default=32, gt=0, le=2**20)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: Words | list[Words] = "all-linear"
    lora_modules_to_save: list[Words] | None = None
    use_rslora: bool = False

    @property
    def method(self) -> TuningMethod:
        """The facts about `peft_method`."""
        return TUNING_METHODS[self.peft_method]


class DataKeys(Part):
    """What is read; names as in TRL's `DatasetMixtureConfig`."""

    datasets: list[DatasetEntry] = Field(min_length=1)
    eval_datasets: list[DatasetEntry] = Field(default_factory=list)
    test_split_size: float | None = Fraction  # share of prompts held out of `datasets` for evaluation
    max_samples: int | None = Field(default=None, gt=0, le=10**9)  # rows taken from the shuffled mixture
    max_eval_samples: int | None = Field(default=None, gt=0, le=10**9)
    on_bad_row: Literal["stop", "skip"] = "stop"


class SamplingKeys(Part):
    """How answers are sampled; names as in transformers' `GenerationConfig`."""

    max_new_tokens: int = Field(default=128, gt=0, le=10**7)
    temperature: float = Field(default=1.0, gt=0, le=1000)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=2**31 - 1)  # 0: off
