"""Groups of keys that several stages have: the model, its adapter, the data, sampling."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from alignment.config.methods import TUNING_METHODS, TuningMethod, known_method
from alignment.config.schema.parts import FilePattern, InputPath, Mark, Name, Part, Text, TextOrPath, Words

PeftMethod = Annotated[Name, AfterValidator(known_method)]
PEFT_NAMES = {  # of the keys that have a name of their own, in PEFT's configuration
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
    "use_rslora": "use_rslora",
}
Fraction = Field(default=None, gt=0, lt=1)


class DatasetEntry(Part):
    """One data set of a mixture; the keys are those of TRL's `DatasetConfig`, plus `format`."""

    path: InputPath
    """A file, a folder of files, a Hub id, or a builder of `datasets` (`json`, `csv`, `parquet`, `text`) with
    `data_files`.
    """
    name: Name | None = None
    """The configuration of a data set on the Hub."""
    data_dir: Annotated[Text, Mark.PATH] | None = None
    """The folder of the data within `path`; with a builder, the folder of `data_files`."""
    data_files: FilePattern | list[FilePattern] | None = None
    """Names or glob patterns of the files to read. `null`: all data files."""
    split: Name = "train"
    """The split to read, or a slice of it such as `train[:1000]`."""
    columns: list[Words] | dict[Words, Words] | None = None
    """The columns to read, or a mapping from a layout's key to the column that holds it."""
    ignore_columns: list[Words] = Field(default_factory=list)
    """Keys of rows and messages to leave out. A key that is neither read nor ignored is an error."""
    fraction: float | None = Field(default=None, gt=0, le=10**9)
    """Share of this data set in the mixture. Shares are normalized to a sum of 1; give all entries one, or none."""
    format: Words | None = None
    """The layout of the rows. `null`: detected over the whole file."""


QUANTISING = ("load_in_4bit", "load_in_8bit")  # keys of `ModelKeys`, of which one may be true


class ModelKeys(Part):
    """Which model, how it is held and which of its weights train; names as in TRL's `ModelConfig`."""

    model_name_or_path: InputPath
    """The model: a folder, an adapter, a run directory or a Hub id."""
    model_revision: Name = "main"
    """Branch, tag or commit of a model on the Hub."""
    trust_remote_code: bool = False
    """Run Python code that the model's folder or repository contains."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the weights. `auto`: that of the checkpoint on a GPU, float32 on a CPU and for full fine-tuning."""
    attn_implementation: Name | None = None
    """Attention implementation of transformers, such as `sdpa`, `eager` or `flash_attention_2`."""
    chat_template: TextOrPath | None = None
    """Jinja text, a file of it, or the name of a template of this package such as `chatml`. `null`: the tokenizer's
    own.
    """
    eos_token: Name | None = None
    """The token that ends an answer. `null`: the tokenizer's end-of-sequence token."""
    load_in_4bit: bool = False
    """Hold the frozen weights in 4 bits with bitsandbytes (QLoRA)."""
    load_in_8bit: bool = False
    """Hold the frozen weights in 8 bits with bitsandbytes: integers with a constant for each row. Activations are not
    rounded.
    """
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Data type of the 4-bit weights."""
    use_bnb_nested_quant: bool = True
    """Also quantize the quantization constants."""

    @property
    def bits(self) -> int | None:
        """In how many bits the frozen weights are held; None: in floating point."""
        return 4 if self.load_in_4bit else 8 if self.load_in_8bit else None

    def in_floats(self, **changes: Any) -> Self:
        """Return a copy whose weights are held in floating point, with other changes."""
        return self.model_copy(update={**dict.fromkeys(QUANTISING, False), **changes})


class AdapterKeys(Part):
    """What trains: everything, or a PEFT adapter; names as in TRL's `ModelConfig`."""

    peft_method: PeftMethod = "lora"
    """`full` trains all weights; `lora`, `dora` and most others train an adapter. docs/tuning.md lists the methods."""
    peft_config: dict[Words, Any] = Field(default_factory=dict)
    """Fields of the method's configuration, for most methods PEFT's: `{target_modules: all-linear, r: 8}`."""
    lora_r: int = Field(default=16, gt=0, le=2**16)
    """Rank of the adapter."""
    lora_alpha: int = Field(default=32, gt=0, le=2**20)
    """Numerator of the adapter's scale, `lora_alpha / lora_r`."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability of the adapter's input."""
    lora_target_modules: Words | list[Words] = "all-linear"
    """Names of the modules that get an adapter, a regular expression for them, or `all-linear`."""
    lora_modules_to_save: list[Words] | None = None
    """Modules that are copied and trained in full beside the adapter."""
    use_rslora: bool = False
    """Scale by `lora_alpha / sqrt(lora_r)` (https://arxiv.org/abs/2312.03732)."""
    lora_layers: int | None = Field(default=None, gt=0, le=4096)
    """Number of layers that get an adapter, counted from the top. `null`: all. The policy gradient stages run the
    layers below them once per rollout.
    """
    loraplus_lr_ratio: float | None = Field(default=None, gt=0, le=10**4)
    """Multiply the learning rate of the matrices B by this ratio (LoRA+, https://arxiv.org/abs/2402.12354)."""

    @property
    def method(self) -> TuningMethod:
        """The facts about `peft_method`."""
        return TUNING_METHODS[self.peft_method]

    def fields(self) -> dict[str, Any]:
        """Return the fields of the method's configuration: defaults, keys of their own and `peft_config`."""
        own = {field: getattr(self, key) for key, field in PEFT_NAMES.items() if key in self.method.keys}
        return {**self.method.defaults, **own, **self.peft_config}

    def with_method(self, name: str) -> dict[str, Any]:
        """Return the changed keys of another adapter beside this one, which trains no module whole.

        Fields of `peft_config` belong to one configuration class; a method with another class has its defaults.
        """
        kept = self.peft_config if TUNING_METHODS[name].config == self.method.config else {}
        kept = {key: value for key, value in kept.items() if key != "modules_to_save"}
        return {"peft_method": name, "peft_config": kept, "lora_modules_to_save": None}

    def training_whole(self, modules: list[str]) -> dict[str, Any]:
        """Return the changed keys under which an adapter also trains modules whole."""
        whole = list(dict.fromkeys([*(self.fields().get("modules_to_save") or []), *modules]))
        if "lora_modules_to_save" in self.method.keys and "modules_to_save" not in self.peft_config:
            return {"lora_modules_to_save": whole}
        return {"peft_config": {**self.peft_config, "modules_to_save": whole}}


class DataKeys(Part):
    """What is read; names as in TRL's `DatasetMixtureConfig`."""

    datasets: list[DatasetEntry] = Field(min_length=1)
    """The training data: one data set or a mixture."""
    eval_datasets: list[DatasetEntry] = Field(default_factory=list)
    """Data for evaluation during training, or for stage `evaluate`."""
    test_split_size: float | None = Fraction
    """Share of the prompts of `datasets` that is held out for evaluation."""
    max_samples: int | None = Field(default=None, gt=0, le=10**9)
    """Number of rows to take from the shuffled mixture. `null`: all."""
    max_eval_samples: int | None = Field(default=None, gt=0, le=10**9)
    """Number of rows to evaluate on. `null`: all."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do with a row that cannot be used: `stop` with an error, or `skip` it and count it."""


class ProxyEntry(Part):
    """A pair of small models that changes how a policy samples (proxy-tuning): base + alpha * (tuned - untuned)."""

    tuned: InputPath
    """The tuned model of the pair: a folder, an adapter or a run directory. It needs the policy's tokenizer."""
    untuned: InputPath
    """The same model before it was tuned."""
    alpha: float = Field(default=1.0, ge=-100, le=100)
    """Strength of the change of the logits."""


class SamplingKeys(Part):
    """How answers are sampled; names as in transformers' `GenerationConfig`."""

    max_new_tokens: int = Field(default=128, gt=0, le=10**7)
    """Maximum number of tokens of an answer."""
    temperature: float = Field(default=1.0, gt=0, le=1000)
    """Temperature of sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the most likely tokens whose probabilities sum to this."""
    top_k: int = Field(default=0, ge=0, le=2**31 - 1)
    """Sample from this many most likely tokens. 0: from all."""
