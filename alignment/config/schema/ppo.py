"""PPO: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.schema.keys import PeftMethod, SamplingKeys
from alignment.config.schema.parts import InputPath, Name, Words
from alignment.config.schema.recipe import Stage, TrainingRecipe
from alignment.config.schema.scorers import ScorerEntry


class PolicyGradientRecipe(TrainingRecipe, SamplingKeys):
    """Keys of training on scores of sampled answers; names as in TRL's last `PPOConfig`."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    reward_model_path: InputPath | None = None  # short for scorers with this one reward model
    scorers: list[ScorerEntry] = Field(default_factory=list)
    watch_scorers: list[ScorerEntry] = Field(default_factory=list)  # logged as watch_NAME, never in the reward
    watch_interval: int = Field(default=1, gt=0, le=10**9)  # updates from one asking of watch_scorers to the next
    advantage_estimator: Words = "gae"  # a name of `alignment.config.estimators`
    value_model: Literal["adapter", "head", "model"] = "adapter"  # own adapter, head on the policy, or own model
    value_model_path: InputPath | None = None  # value_model model: a reward or language model of the same tokenizer
    value_peft_method: PeftMethod | None = None  # value_model model; None: as peft_method
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
    vllm_server_base_url: Name | None = None  # server: where it answers
    vllm_gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)  # colocate: the trainer needs the rest
    vllm_tensor_parallel_size: int = Field(default=1, gt=0, le=1024)
    vllm_max_model_length: int | None = Field(default=None, gt=0, le=10**8)  # None: longest prompt + max_new_tokens
    vllm_enable_sleep_mode: bool = False  # give vLLM's memory back while training

    @property
    def uses_value(self) -> bool:
        """Whether the advantage estimator needs a value; without one, nothing of it is loaded, trained or saved."""
        return ADVANTAGE_ESTIMATORS[self.advantage_estimator].uses_value

    @property
    def value_method(self) -> TuningMethod:
        """The facts about the tuning method of a separate value model."""
        return TUNING_METHODS[self.value_peft_method or self.peft_method]


class PPORecipe(PolicyGradientRecipe):
    """PPO with policy, reference, value and reward on one base; names as in TRL's last `PPOConfig`."""

    STAGE = Stage(
        title="PPO",
        help="Align a policy with a reward model (PPO).",
        makes="policy",
        rows="prompts",
        trains=True,
        samples=True,
        ratio="the ratio of new to old probabilities is noise",
    )
    stage: Literal["ppo"]
