"""Labelling: its recipe."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.config.schema.calls import CallKeys
from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.keys import DataKeys, ModelKeys, ProxyEntry, SamplingKeys
from alignment.config.schema.parts import Free, InputPath, Late, Mark, Part
from alignment.config.schema.recipe import Recipe, Stage


class GateEntry(Part):
    """What labels must show before anything may train on them; see docs/feedback.md."""

    gold: InputPath | None = None
    """Preferences of people, in any layout. The judge labels them first."""
    min_comparisons: int = Field(default=50, gt=0, le=10**6)
    """Minimum number of comparisons in `gold` that the judge gave a verdict on."""
    min_kappa: float | None = Field(default=None, ge=-1, le=1)
    """Minimum of Cohen's kappa between the judge and people."""
    min_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Minimum share of verdicts that agree with people."""
    min_accuracy_when_consistent: float | None = Field(default=None, ge=0, le=1)
    """Minimum of the same share where both orders of presentation give the same winner."""
    max_length_bias: float | None = Field(default=None, ge=0, le=1)
    """Maximum share by which the judge prefers longer answers more often than people do."""
    max_ece: float | None = Field(default=None, ge=0, le=1)
    """Maximum expected calibration error of the judge's uncalibrated probabilities."""
    min_coverage: float | None = Field(default=None, ge=0, le=1)
    """Minimum share of comparisons with a label."""
    min_consistency: float | None = Field(default=None, ge=0, le=1)
    """Minimum share of comparisons where both orders of presentation give the same winner."""
    max_position_bias: float | None = Field(default=None, ge=0, le=0.5)
    """Maximum distance from one half of the share of winners that were shown first."""
    max_cyclic_triads: float | None = Field(default=None, ge=0, le=1)
    """Maximum share of cyclic triads (A over B, B over C, C over A)."""
    max_tie_rate: float | None = Field(default=None, ge=0, le=1)
    """Maximum share of ties."""
    whole_interval: bool = False
    """Apply each limit to the worse end of the 95 % interval instead of the value."""


class CalibrationEntry(Part):
    """A map from the judge's probabilities to calibrated ones, fitted on people's judgements."""

    gold: InputPath
    """Preferences of people, in any layout, that the map is fitted on."""
    method: Literal["temperature", "isotonic"] = "temperature"
    """The map from the judge's probabilities to calibrated ones."""


class RevisionEntry(Part):
    """How answers are criticised and revised by `judge.constitution`."""

    rounds: int = Field(default=1, gt=0, le=100)
    """Number of critiques and revisions; each revision starts from the last one."""
    max_tokens: int = Field(default=1024, gt=0, le=10**7)
    """Maximum number of tokens of a critique, and of a revision."""
    critique_prompt: InputPath | None = None
    """A prompt file for critiques. `null`: the package's own."""
    revision_prompt: InputPath | None = None
    """A prompt file for revisions. `null`: the package's own."""


class LabelRecipe(Recipe, ModelKeys, DataKeys, SamplingKeys, CallKeys):
    """Sample K answers a prompt, have a judge compare them, write rankings."""

    STAGE = Stage(
        title="Sampling and judging",
        help="Sample answers from a policy and have a judge rank them.",
        makes="labels",
        rows="prompts",
        next_step="measure the labels with `alignment audit {run}`, or train on {run} in stage reward, dpo or kto",
        encoder_decoders=True,
        samples=True,
        one_process=True,
    )
    stage: Literal["label"]
    proxy: ProxyEntry | None = None
    """A pair of small models that changes the logits of the policy that is sampled from."""
    judge: JudgeEntry
    """The judge that compares the answers."""
    model_name_or_path: Annotated[str, Mark.INPUT] = ""
    """The policy that the answers are sampled from; empty with `responses: given`."""
    responses: Literal["sampled", "given"] = "sampled"
    """`sampled`: sample answers from the policy. `given`: judge the answers in `datasets`."""
    num_generations: int = Field(default=4, ge=2, le=1024)
    """Number of answers sampled for each prompt, K."""
    pairs_per_prompt: int | None = Field(default=None, gt=0, le=10**6)
    """Number of pairs of answers to judge for each prompt. `null`: all K(K-1)/2."""
    per_device_eval_batch_size: int = Field(default=64, gt=0, le=10**6)
    """Number of answers sampled together."""
    dry_run: Free[bool] = False
    """Print calls, tokens and cost without calling the judge."""
    max_prompt_length: int | None = Field(default=None, gt=0, le=10**8)
    """Maximum number of tokens of a prompt; longer prompts follow `on_bad_row`. `null`: what the context leaves."""
    gate: Late[GateEntry | None] = None
    """Requirements for the labels. Labels that miss one end the stage, and nothing trains on them."""
    calibration: Late[CalibrationEntry | None] = None
    """Calibrate the judge's probabilities on judgments of people."""
    acceptable_rating: Late[float | None] = Field(default=None, ge=-(10**6), le=10**6)
    """With `judge.asks: pointwise`: the lowest rating of a good answer. Each answer then also gets the probability that
    it is good, which stage kto learns from.
    """
    revisions: RevisionEntry | None = None
    """Have the judge also revise answers by its constitution, into `revisions.jsonl`."""
