"""What the stages that train on scores of sampled answers have in common."""

from typing import Literal

from pydantic import Field

from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.schema.calls import CallLimits
from alignment.config.schema.keys import PeftMethod, SamplingKeys
from alignment.config.schema.parts import InputPath, Name
from alignment.config.schema.recipe import TrainingRecipe
from alignment.config.schema.scorers import ScorerEntry, columns_of
from alignment.config.update_rule import UpdateRule


class PolicyGradientRecipe(TrainingRecipe, SamplingKeys, CallLimits):
    """Keys of training on scores of sampled answers."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    reward_model_path: InputPath | None = None
    """The reward model; short for `scorers` with this one entry."""
    scorers: list[ScorerEntry] = Field(default_factory=list)
    """Sources of the score. The score is the sum of all, each times its weight."""
    watch_scorers: list[ScorerEntry] = Field(default_factory=list)
    """Scorers that are logged as `watch_NAME` and never train, to detect reward hacking."""
    watch_interval: int = Field(default=1, gt=0, le=10**9)
    """Number of updates from one score of `watch_scorers` to the next."""
    total_episodes: int = Field(gt=0, le=10**12)
    """Number of answers sampled in the whole run."""
    rollout_batch_size: int = Field(default=64, gt=0, le=10**6)
    """Number of answers of an update, over all processes."""
    num_generations: int = Field(default=1, gt=0, le=10**5)
    """Number of answers to each prompt. It divides `rollout_batch_size`."""
    dynamic_sampling: bool = False
    """Replace prompts whose answers all have the same score, which teach nothing (https://arxiv.org/abs/2503.14476)."""
    dynamic_sampling_max_rounds: int = Field(default=8, gt=1, le=1000)
    """With `dynamic_sampling`: maximum number of rollouts of an update."""
    num_mini_batches: int = Field(default=1, gt=0, le=10**6)
    """Number of optimizer steps of an epoch."""
    log_ratio_clip: float = Field(default=20.0, gt=0, le=1000)
    """Bound of the absolute log ratio before it is exponentiated, in nats."""
    importance_sampling_cap: float | None = Field(default=2.0, gt=0, le=10**6)
    """Cap of the ratio of training to sampling probabilities, where the engine returns the latter. `null`: no
    correction.
    """
    target_kl: float | None = Field(default=None, gt=0, le=10**6)
    """KL from the sampling policy, in nats per token, beyond which an update ends. `null`: never."""
    reward_clip: float | None = Field(default=None, gt=0, le=10**9)
    """Bound of the absolute score. `null`: none."""
    normalize_scores: Literal["none", "running", "reward_model"] = "none"
    """Normalize scores by their `running` mean and standard deviation, or by those recorded with the `reward_model`."""
    missing_eos_penalty: float | None = Field(default=None, ge=0, le=10**9)
    """Subtracted from the score of an answer without a stop token. `null`: nothing."""
    mask_truncated_completions: bool = False
    """Do not train on answers without a stop token (https://arxiv.org/abs/2503.14476)."""
    max_prompt_length: int | None = Field(default=None, gt=0, le=10**8)
    """Maximum number of tokens of a prompt; longer prompts follow `on_bad_row`. `null`: what the context leaves."""
    rollout_eval_batch_size: int = Field(default=64, gt=0, le=10**6)
    """Number of answers sampled together."""
    share_trunk: bool = True
    """Run the layers below all adapters once per rollout, and keep their hidden states for all roles and epochs."""
    ds3_gather_for_generation: bool = True
    """With ZeRO-3 or FSDP: gather all weights while answers are sampled and scored. Faster, and needs the memory."""
    num_sample_generations: int = Field(default=10, ge=0, le=10**6)
    """Number of times in the run that `samples.jsonl` is written."""
    rollout_engine: Literal["transformers", "merged", "continuous_batching", "vllm"] = "transformers"
    """The engine that samples answers. `merged`: as `transformers`, from a bfloat16 copy with the adapter merged."""
    cache_implementation: Literal["dynamic", "static"] = "dynamic"
    """With `rollout_engine` transformers or merged: a cache that grows with the answers, or fixed shapes, each with a
    CUDA graph on a GPU.
    """
    engine_check_updates: int | None = Field(default=10, gt=0, le=10**9)
    """Number of updates between checks that the engine samples from the current policy. `null`: no checks."""
    engine_tolerance: float | None = Field(default=None, gt=0, le=100)
    """Accepted difference of log-probabilities in this check, in nats per token. `null`: by the precision."""
    vllm_mode: Literal["colocate", "server"] = "colocate"
    """vLLM in the training process (`colocate`), or on a `server`."""
    vllm_sync: Literal["auto", "adapter", "merged"] = "auto"
    """What vLLM receives before each rollout: the `adapter`, or `merged` weights."""
    vllm_server_base_url: Name | None = None
    """With `vllm_mode: server`: its address."""
    vllm_gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)
    """With `vllm_mode: colocate`: share of the GPU's memory for vLLM."""
    vllm_tensor_parallel_size: int = Field(default=1, gt=0, le=1024)
    """Number of GPUs that vLLM shards the model over."""
    vllm_max_model_length: int | None = Field(default=None, gt=0, le=10**8)
    """Context length of vLLM. `null`: the longest prompt plus `max_new_tokens`."""
    vllm_enable_sleep_mode: bool = False
    """Free vLLM's memory while training."""

    @property
    def columns_read(self) -> dict[str, bool]:
        """Return the columns of the data that the scorers read beside the prompt: name → whether one needs it."""
        return columns_of((*self.scorers, *self.watch_scorers))

    @property
    def value(self) -> "ValueRecipe | None":
        """The recipe with the keys of its value; None: nothing of a value is loaded, trained, planned or saved."""
        return None

    def update_rule(self) -> UpdateRule:
        """Return what an update does with a rollout."""
        raise NotImplementedError


class ValueRecipe(PolicyGradientRecipe):
    """Keys of the value, which predicts the rewards to come."""

    value_model: Literal["adapter", "head", "model"] = "adapter"
    """The value function: an `adapter` of its own on the base, a `head` on the policy, or a `model` of its own."""
    value_model_path: InputPath | None = None
    """With `value_model: model`: a reward or language model with the policy's tokenizer."""
    value_peft_method: PeftMethod | None = None
    """How the value is trained. `null`: a `model` as `peft_method`; an `adapter` starts as the reward model if that is
    a role, else it is new, of `peft_method` or LoRA.
    """
    value_learning_rate: float | None = Field(default=None, gt=0, le=10**6)
    """Learning rate of the value. `null`: the policy's."""
    value_warmup_updates: int = Field(default=0, ge=0, le=10**9)
    """Number of first updates that train the value only."""
    vf_coef: float = Field(default=0.1, ge=0, le=10**6)
    """Weight of the value loss."""
    cliprange_value: float = Field(default=0.2, gt=0, le=10**6)
    """Clip range of the value's change."""
    lam_value: float = Field(default=1.0, ge=0, le=1)
    """Lambda of GAE for the value's returns (https://arxiv.org/abs/2504.05118)."""
    bootstrap_truncated: bool = False
    """Use the value at the cut in place of the score of an answer without a stop token."""

    @property
    def value_method(self) -> TuningMethod:
        """The facts about the tuning method of a separate value model."""
        return TUNING_METHODS[self.value_peft_method or self.peft_method]
