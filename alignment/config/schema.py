"""What a recipe may say: one typed, frozen model per stage.

A recipe is flat. Keys named here are ours; every other key must be one of the stage's trainer configuration
(`TRAINER_CONFIG`) in the installed TRL or transformers and is handed to it unchanged, see `alignment.config.library`.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from alignment.config.judge_entry import JudgeEntry as JudgeEntry
from alignment.config.judge_entry import PricesEntry as PricesEntry
from alignment.config.parts import DAY, Text
from alignment.config.parts import Part as Part

Fraction = Field(default=None, gt=0, lt=1)


class DatasetEntry(Part):
    """One data set of a mixture; the keys are those of TRL's `DatasetConfig`, plus `format`."""

    path: Text  # a file, a folder of files, or a Hub id
    name: Text | None = None
    data_dir: Text | None = None
    data_files: str | list[str] | None = None
    split: Text = "train"
    columns: list[str] | dict[str, str] | None = None  # the columns to look at, or key of a layout → column
    ignore_columns: list[str] = Field(default_factory=list)  # keys of rows and messages to leave out
    fraction: float | None = Field(default=None, gt=0, le=10**9)  # share of the mixture, normalised to sum to one
    format: str | None = None  # None: found over the whole file


class GateEntry(Part):
    """What labels must show before anything may train on them; see docs/feedback.md."""

    gold: Text | None = None  # people's preferences, any layout; the judge is asked about them before all else
    min_comparisons: int = Field(default=50, gt=0, le=10**6)  # gold: fewer say too little
    min_kappa: float | None = Field(default=None, ge=-1, le=1)  # gold: Cohen's
    min_accuracy: float | None = Field(default=None, ge=0, le=1)  # gold
    min_accuracy_when_consistent: float | None = Field(default=None, ge=0, le=1)  # gold: where both orders agree
    max_length_bias: float | None = Field(default=None, ge=0, le=1)  # gold: share of longer winners beyond people's
    max_ece: float | None = Field(default=None, ge=0, le=1)  # gold: of the probabilities as the judge gives them
    min_coverage: float | None = Field(default=None, ge=0, le=1)  # comparisons with a label
    min_consistency: float | None = Field(default=None, ge=0, le=1)  # both orders name the same winner
    max_position_bias: float | None = Field(default=None, ge=0, le=0.5)  # share of winners shown first, from one half
    max_cyclic_triads: float | None = Field(default=None, ge=0, le=1)
    max_tie_rate: float | None = Field(default=None, ge=0, le=1)
    whole_interval: bool = False  # the worse end of each 95 % interval must hold, not only the value


class CalibrationEntry(Part):
    """A map from the judge's probabilities to calibrated ones, fitted on people's judgements."""

    gold: Text  # people's preferences, any layout
    method: Literal["temperature", "isotonic"] = "temperature"


class RevisionEntry(Part):
    """How answers are criticised and revised by `judge.constitution`."""

    rounds: int = Field(default=1, gt=0, le=100)  # of a critique and a revision; each starts from the last revision
    max_tokens: int = Field(default=1024, gt=0, le=10**7)  # of a critique, and of a revision
    critique_prompt: Text | None = None  # a prompt file; None: the package's own
    revision_prompt: Text | None = None


class ScorerEntry(Part):
    """One source of PPO's scores; `score` is the sum of all, each times its weight."""

    kind: Literal["reward_model", "ensemble", "function", "http", "judge"]
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")  # logged as score_NAME; default: the kind
    weight: float = Field(default=1.0, ge=-(10**9), le=10**9)
    model_name_or_path: Text | None = None  # reward_model; ensemble: a run with num_members
    reward_models: list[Text] = Field(default_factory=list)  # ensemble
    trust_remote_code: bool = False  # reward_model, ensemble: run Python code that the models' folders bring
    aggregate: Literal["mean", "min", "lcb"] = "mean"  # ensemble: lcb is mean - uncertainty_penalty * std
    uncertainty_penalty: float = Field(default=1.0, ge=0, le=1000)  # ensemble, lcb: standard deviations subtracted
    function: str | None = None  # function: "module:function", called with prompts and answers
    url: Text | None = None  # http: where prompts and answers are posted
    api_key_env: Text | None = None  # http: the environment variable that holds a bearer token
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)  # http: for one answer of the server
    max_retries: int = Field(default=5, ge=0, le=100)  # http: of a call that failed in a way that may pass
    judge: JudgeEntry | None = None  # judge: a model that gives each answer a number from 0 to 10
    max_concurrency: int = Field(default=8, gt=0, le=1024)  # judge: calls in flight

    @property
    def label(self) -> str:
        """What logs and errors call it."""
        return self.name or self.kind


class Recipe(Part):
    """Keys of every stage."""

    TRAINER_CONFIG: ClassVar[str | None] = None  # "package.module:Class", the class whose fields are also keys

    stage: str
    output_dir: Text
    seed: int = Field(default=42, ge=0, lt=2**32)  # numpy takes no other
    run_name: Text | None = None
    report_to: str | list[str] = "none"
    project: Text | None = None  # at the tracker; None: WANDB_PROJECT, else the tracker's default
    log_model: bool = False  # send the trained weights to W&B too
    overwrite: bool = False  # start anew where output_dir holds a finished or interrupted run
    round: int | None = Field(default=None, gt=0, le=100)  # of a pipeline with rounds, which sets it
    library: dict[str, Any] = Field(default_factory=dict, exclude=True)  # keys of TRAINER_CONFIG, as given
    source: str = Field(default="", exclude=True)  # the recipe file


class ModelKeys(Part):
    """Which model, how it is held and which of its weights train; names as in TRL's `ModelConfig`."""

    model_name_or_path: Text  # a model, an adapter or a run directory
    model_revision: Text = "main"
    trust_remote_code: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    attn_implementation: Text | None = None
    chat_template: Text | None = None  # Jinja text, a file's path, chatml or plain; in place of the tokenizer's own
    eos_token: Text | None = None  # the token that ends an answer, where it is not the tokenizer's own
    load_in_4bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    use_bnb_nested_quant: bool = True


class AdapterKeys(Part):
    """What trains: everything, or a PEFT adapter; names as in TRL's `ModelConfig`."""

    peft_method: Literal["full", "lora", "dora"] = "lora"
    lora_r: int = Field(default=16, gt=0, le=2**16)
    lora_alpha: int = Field(default=32, gt=0, le=2**20)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"
    lora_modules_to_save: list[str] | None = None
    use_rslora: bool = False


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


class SFTRecipe(Recipe, ModelKeys, AdapterKeys, DataKeys):
    """Supervised fine-tuning with TRL's `SFTTrainer`."""

    TRAINER_CONFIG = "trl.trainer.sft_config:SFTConfig"
    stage: Literal["sft"]
    add_tokens: list[Text] | None = None  # marks of chat_template that the vocabulary lacks: added, and trained
    max_length: int | None = Field(default=1024, gt=0, le=10**8)  # tokens of prompt and answer
    history_strategy: Literal["split", "refuse"] = "split"  # conversations whose earlier turns the template rewrites
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)  # evaluations without improvement


class LabelRecipe(Recipe, ModelKeys, DataKeys, SamplingKeys):
    """Sample K answers a prompt, have a judge compare them, write rankings."""

    stage: Literal["label"]
    judge: JudgeEntry
    model_name_or_path: str = ""  # the policy; none where the answers are given
    responses: Literal["sampled", "given"] = "sampled"  # given: those of `datasets` are judged
    num_generations: int = Field(default=4, ge=2, le=1024)  # K answers a prompt
    pairs_per_prompt: int | None = Field(default=None, gt=0, le=10**6)  # None: all K(K-1)/2
    per_device_eval_batch_size: int = Field(default=64, gt=0, le=10**6)  # sequences sampled together
    max_concurrency: int = Field(default=8, gt=0, le=1024)  # judge calls in flight
    max_failure_share: float = Field(default=0.5, ge=0, le=1)  # stop once this share of questions failed
    requests_per_minute: float | None = Field(default=None, ge=0.01, le=10**9)  # to the judge
    tokens_per_minute: float | None = Field(default=None, ge=1, le=10**12)  # estimated prompt and longest reply
    max_calls: int | None = Field(default=None, gt=0, le=10**12)  # a hard budget; the run stops before it is passed
    max_cost: float | None = Field(default=None, gt=0, le=10**12)  # likewise, in the currency of the judge's prices
    dry_run: bool = False  # tell calls, tokens and cost; ask nobody and write no labels
    reparse: bool = False  # write the labels anew from the calls of a finished run, without a call
    max_prompt_length: int | None = Field(
        default=None, gt=0, le=10**8
    )  # longer prompts are an error unless on_bad_row is skip
    gate: GateEntry | None = None  # labels that miss it end the stage and train nothing
    calibration: CalibrationEntry | None = None
    revisions: RevisionEntry | None = None  # have the judge revise the answers too, into revisions.jsonl


class RewardRecipe(Recipe, ModelKeys, AdapterKeys, DataKeys):
    """Train a scalar reward model on rankings and pairs."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    stage: Literal["reward"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    center_rewards_coefficient: float = Field(
        default=0.0, ge=0, le=10**6
    )  # weight of the mean squared sum of a pair's scores
    ties: Literal["half", "davidson"] = "half"  # a tie is the label one half, or an outcome of its own (Davidson 1970)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # share of labels taken to be the wrong way round
    num_members: int = Field(default=1, ge=1, le=100)  # reward models trained alike but for their seeds: an ensemble
    use_margin: bool = False  # subtract the row's `margin` from the score difference (Llama 2)
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)


class DPORecipe(Recipe, ModelKeys, AdapterKeys, DataKeys):
    """Direct preference optimisation with TRL's `DPOTrainer`, probabilities in the loss."""

    TRAINER_CONFIG = "trl.trainer.dpo_config:DPOConfig"
    stage: Literal["dpo"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)


class PPORecipe(Recipe, ModelKeys, AdapterKeys, DataKeys, SamplingKeys):
    """PPO with policy, reference, value and reward on one base; names as in TRL's last `PPOConfig`."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    stage: Literal["ppo"]
    reward_model_path: Text | None = None  # short for scorers with this one reward model
    scorers: list[ScorerEntry] = Field(default_factory=list)
    watch_scorers: list[ScorerEntry] = Field(default_factory=list)  # logged as watch_NAME, never in the reward
    watch_interval: int = Field(default=1, gt=0, le=10**9)  # updates from one asking of watch_scorers to the next
    value_model: Literal["adapter", "head", "model"] = "adapter"  # own adapter, head on the policy, or own model
    value_model_path: Text | None = None  # value_model model: a reward model or language model of the same tokenizer
    value_peft_method: Literal["full", "lora", "dora"] | None = None  # value_model model; None: as peft_method
    total_episodes: int = Field(gt=0, le=10**12)  # answers sampled in the whole run
    rollout_batch_size: int = Field(default=64, gt=0, le=10**6)  # answers per update, all processes together
    num_ppo_epochs: int = Field(default=4, gt=0, le=10**4)
    num_mini_batches: int = Field(default=1, gt=0, le=10**6)  # optimizer steps per epoch
    kl_coef: float = Field(default=0.05, ge=0, le=10**6)
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_placement: Literal["reward", "loss"] = "reward"
    adaptive_kl_target: float | None = Field(
        default=None, gt=0, le=10**6
    )  # nats per answer that kl_coef is steered to hold
    adaptive_kl_horizon: int = Field(
        default=10_000, gt=0, le=10**12
    )  # answers over which it may change by about a fifth
    gamma: float = Field(default=1.0, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)  # for the policy's advantages
    lam_value: float = Field(default=1.0, ge=0, le=1)  # for the value's returns (VAPO)
    cliprange: float = Field(default=0.2, gt=0, le=10**6)
    cliprange_high: float = Field(default=0.28, gt=0, le=10**6)
    dual_clip: float | None = Field(default=3.0, gt=1, le=10**6)
    log_ratio_clip: float = Field(default=20.0, gt=0, le=1000)  # nats
    importance_sampling_cap: float | None = Field(
        default=2.0, gt=0, le=10**6
    )  # where the engine says with what it sampled
    target_kl: float | None = Field(
        default=None, gt=0, le=10**6
    )  # nats per token from the policy that sampled: the update ends
    cliprange_value: float = Field(default=0.2, gt=0, le=10**6)
    vf_coef: float = Field(default=0.1, ge=0, le=10**6)
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"] = "token-mean"
    value_learning_rate: float | None = Field(default=None, gt=0, le=10**6)  # None: the policy's
    value_warmup_updates: int = Field(default=0, ge=0, le=10**9)  # updates at first that train the value alone
    whiten_advantages: bool = True
    reward_clip: float | None = Field(default=None, gt=0, le=10**9)
    normalize_scores: Literal["none", "running", "reward_model"] = "none"  # whose mean and standard deviation
    missing_eos_penalty: float | None = Field(
        default=None, ge=0, le=10**9
    )  # subtracted where no stop token was sampled
    mask_truncated_completions: bool = False  # answers without a stop token do not train (DAPO)
    bootstrap_truncated: bool = False  # the value of where they were cut off stands for their score
    max_prompt_length: int | None = Field(default=None, gt=0, le=10**8)
    rollout_eval_batch_size: int = Field(default=64, gt=0, le=10**6)  # sequences sampled together
    ds3_gather_for_generation: bool = True  # ZeRO-3, FSDP: hold all weights whole while answers are sampled and scored
    num_sample_generations: int = Field(default=10, ge=0, le=10**6)  # times in the run that samples.jsonl is written
    rollout_engine: Literal["transformers", "continuous_batching", "vllm"] = "transformers"
    engine_check_updates: int | None = Field(default=10, gt=0, le=10**9)  # None: the engine is never checked
    engine_tolerance: float | None = Field(default=None, gt=0, le=100)  # nats a token; None: by the precision
    vllm_mode: Literal["colocate", "server"] = "colocate"
    vllm_sync: Literal["auto", "adapter", "merged"] = "auto"  # what vLLM is handed before each rollout
    vllm_server_base_url: Text | None = None  # server: where it answers
    vllm_gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)  # colocate: the trainer needs the rest
    vllm_tensor_parallel_size: int = Field(default=1, gt=0, le=1024)
    vllm_max_model_length: int | None = Field(default=None, gt=0, le=10**8)  # None: longest prompt + max_new_tokens
    vllm_enable_sleep_mode: bool = False  # give vLLM's memory back while training


class Candidate(Part):
    """One policy under evaluation."""

    name: Text
    model_name_or_path: Text


class EvaluateRecipe(Recipe, ModelKeys, DataKeys, SamplingKeys):
    """Compare candidates with a baseline (`model_name_or_path`, also the KL's reference) on held-out prompts."""

    stage: Literal["evaluate"]
    candidates: list[Candidate] = Field(min_length=1)
    baseline_name: str = "sft"
    judges: list[JudgeEntry] = Field(min_length=1)
    reward_model_path: Text | None = None
    perplexity_datasets: list[DatasetEntry] = Field(default_factory=list)  # text outside the domain
    perplexity_max_tokens: int = Field(default=20_000, gt=0, le=10**9)
    num_generations: int = Field(
        default=1, gt=0, le=1024
    )  # answers per prompt and policy; from 2 the reward model is checked
    max_concurrency: int = Field(default=8, gt=0, le=1024)  # judge calls in flight
    max_failure_share: float = Field(default=0.5, ge=0, le=1)  # stop once this share of calls failed
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(default=2_000, gt=0, le=10**5)
    per_device_eval_batch_size: int = Field(default=64, gt=0, le=10**6)
    num_examples: int = Field(default=8, ge=0, le=10**6)  # prompts whose answers the report shows side by side


class PipelineStage(Part):
    """One step: a recipe, or a command that prepares data."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # also the name of its log
    recipe: str | None = None  # a YAML file, relative to the pipeline's folder
    overrides: dict[str, Any] = Field(default_factory=dict)  # recipe: keys that differ here; `judge.model` reaches deep
    command: list[str] | None = Field(default=None, min_length=1)  # arguments after `python -m`
    inputs: list[str] = Field(default_factory=list)  # command: what it reads besides its own code
    outputs: list[str] = Field(default_factory=list)  # command: what it writes
    each_round: bool = False  # every round repeats it


class PipelineRecipe(Part):
    """Stages in order."""

    name: Text
    output_dir: Text  # paths in the stages' recipes that begin with it move when it is moved
    rounds: int | None = Field(
        default=None, gt=0, le=100
    )  # times that the stages with each_round run, see docs/feedback.md
    accelerate_config: str | None = None  # training stages run under `accelerate launch --config_file` this
    stages: list[PipelineStage] = Field(min_length=1)


STAGES: dict[str, type[Recipe]] = {
    "sft": SFTRecipe,
    "label": LabelRecipe,
    "reward": RewardRecipe,
    "dpo": DPORecipe,
    "ppo": PPORecipe,
    "evaluate": EvaluateRecipe,
}
