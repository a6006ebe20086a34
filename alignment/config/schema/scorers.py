"""What a recipe may say of a source of scores."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.parts import DAY, InputPath, Name, Part, Words


class ScorerEntry(Part):
    """One source of PPO's scores; `score` is the sum of all, each times its weight."""

    kind: Literal["reward_model", "ensemble", "function", "http", "judge"]
    name: Words | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")  # logged as score_NAME; default: the kind
    weight: float = Field(default=1.0, ge=-(10**9), le=10**9)
    model_name_or_path: InputPath | None = None  # reward_model; ensemble: a run with num_members
    reward_models: list[InputPath] = Field(default_factory=list)  # ensemble
    trust_remote_code: bool = False  # reward_model, ensemble: run Python code that the models' folders bring
    aggregate: Literal["mean", "min", "lcb"] = "mean"  # ensemble: lcb is mean - uncertainty_penalty * std
    uncertainty_penalty: float = Field(default=1.0, ge=0, le=1000)  # ensemble, lcb: standard deviations subtracted
    function: Words | None = None  # function: "module:function", called with prompts and answers
    url: Name | None = None  # http: where prompts and answers are posted
    api_key_env: Name | None = None  # http: the environment variable that holds a bearer token
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)  # http: for one answer of the server
    max_retries: int = Field(default=5, ge=0, le=100)  # http: of a call that failed in a way that may pass
    judge: JudgeEntry | None = None  # judge: a model that gives each answer a number from 0 to 10
    max_concurrency: int = Field(default=8, gt=0, le=1024)  # judge: calls in flight

    @property
    def label(self) -> str:
        """What logs and errors call it."""
        return self.name or self.kind
