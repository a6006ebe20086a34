"""Labelling: its recipe."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.keys import DataKeys, ModelKeys, SamplingKeys
from alignment.config.schema.parts import Free, InputPath, Late, Mark, Part
from alignment.config.schema.recipe import Recipe, Stage


class GateEntry(Part):
    """What labels must show before anything may train on them; see docs/feedback.md."""

    gold: InputPath | None = None  # people's preferences, any layout; the judge is asked about them before all else
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

    gold: InputPath  # people's preferences, any layout
    method: Literal["temperature", "isotonic"] = "temperature"


class RevisionEntry(Part):
    """How answers are criticised and revised by `judge.constitution`."""

    rounds: int = Field(default=1, gt=0, le=100)  # of a critique and a revision; each starts from the last revision
    max_tokens: int = Field(default=1024, gt=0, le=10**7)  # of a critique, and of a revision
    critique_prompt: InputPath | None = None  # a prompt file; None: the package's own
    revision_prompt: InputPath | None = None


class LabelRecipe(Recipe, ModelKeys, DataKeys, SamplingKeys):
    """Sample K answers a prompt, have a judge compare them, write rankings."""

    STAGE = Stage(
        title="Sampling and judging",
        help="Sample answers from a policy and have a judge rank them.",
        makes="labels",
        rows="prompts",
        samples=True,
        one_process=True,
    )
    stage: Literal["label"]
    judge: JudgeEntry
    model_name_or_path: Annotated[str, Mark.INPUT] = ""  # the policy; none where the answers are given
    responses: Literal["sampled", "given"] = "sampled"  # given: those of `datasets` are judged
    num_generations: int = Field(default=4, ge=2, le=1024)  # K answers a prompt
    pairs_per_prompt: int | None = Field(default=None, gt=0, le=10**6)  # None: all K(K-1)/2
    per_device_eval_batch_size: int = Field(default=64, gt=0, le=10**6)  # sequences sampled together
    max_concurrency: Free[int] = Field(default=8, gt=0, le=1024)  # judge calls in flight
    max_failure_share: Free[float] = Field(default=0.5, ge=0, le=1)  # stop once this share of questions failed
    requests_per_minute: Free[float | None] = Field(default=None, ge=0.01, le=10**9)  # to the judge
    tokens_per_minute: Free[float | None] = Field(default=None, ge=1, le=10**12)  # estimated prompt and longest reply
    max_calls: Free[int | None] = Field(default=None, gt=0, le=10**12)  # a hard budget; the run ends before it
    max_cost: Free[float | None] = Field(default=None, gt=0, le=10**12)  # likewise, in the currency of the prices
    dry_run: Free[bool] = False  # tell calls, tokens and cost; ask nobody and write no labels
    reparse: Free[bool] = False  # write the labels anew from the calls of a finished run, without a call
    max_prompt_length: int | None = Field(
        default=None, gt=0, le=10**8
    )  # longer prompts are an error unless on_bad_row is skip
    gate: Late[GateEntry | None] = None  # labels that miss it end the stage and train nothing
    calibration: Late[CalibrationEntry | None] = None
    revisions: RevisionEntry | None = None  # have the judge revise the answers too, into revisions.jsonl
