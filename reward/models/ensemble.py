"""Ensembles of reward models; a single model is an ensemble of one."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alignment.data.rows import Prompt, Ranking
from alignment.data.sampled import Record
from alignment.errors import ModelError
from alignment.manifest import MANIFEST, read_manifest
from alignment.ops.ensemble import Aggregate, aggregate_scores
from reward.models.scoring import RewardScorer, encode_all

MEMBER = re.compile(r"[A-Za-z0-9][\w-]*")  # name of a member's folder
Encoded = list[list[int]]  # token ids of one answer with its prompt, for each member


def member_paths(model: str | Sequence[str]) -> list[str]:
    """Return the reward models that `model` names: one, a run with `num_members`, with its members inside, or several.

    Raises: ModelError if one is neither a folder nor a Hub id.
    """
    if not isinstance(model, str):
        return [path for one in model for path in member_paths(one)]
    if os.path.isdir(model):
        return [str(Path(model, name)) for name in _members(model)] or [model]
    if not model or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(f"{model}: no such folder; name the run folder of a reward model.")
    return [model]


def has_members(path: str) -> bool:
    """Whether a folder is a run with `num_members`."""
    return os.path.isdir(path) and bool(_members(path))


def _members(run: str) -> list[str]:
    """Return the names of the folders in a run that are its members; members are inside the run.

    Raises: ModelError if the manifest names anything else.
    """
    names = read_manifest(run).get("members") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and MEMBER.fullmatch(name) for name in names):
        raise ModelError(
            f"{Path(run, MANIFEST)}: members is {str(names)[:60]}, and a run's members are folders inside it such as "
            "member-0; restore the run's own file."
        )
    return names


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Reward models for inference, and the aggregation of their scores."""

    members: tuple[RewardScorer, ...]
    paths: tuple[str, ...]
    aggregate: Aggregate = "mean"
    uncertainty_penalty: float = 1.0  # aggregate lcb

    @classmethod
    def load(
        cls,
        model: str | Sequence[str],
        *,
        batch_size: int = 64,
        aggregate: Aggregate = "mean",
        uncertainty_penalty: float = 1.0,
        trust_remote_code: bool = False,
    ) -> "Ensemble":
        """Load what `member_paths` finds; further arguments as `RewardScorer.load`.

        Raises: ModelError if there is no such model, one has no score head, or one is named twice.
        """
        paths = member_paths(model)
        doubles = [path for place, path in enumerate(paths) if path in paths[:place]]
        if doubles:
            raise ModelError(f"{doubles[0]} is named twice; two copies of a model have no spread. Remove one.")
        members = tuple(
            RewardScorer.load(path, batch_size=batch_size, trust_remote_code=trust_remote_code) for path in paths
        )
        return cls(members, tuple(paths), aggregate, uncertainty_penalty)

    @property
    def context(self) -> int | None:
        """The smallest context length of the members; None: no limit."""
        return min((member.context for member in self.members if member.context is not None), default=None)

    @property
    def reads_messages(self) -> bool:
        """Whether every member has a chat template, and none was trained on prompts that are text."""
        return all(member.reads_messages for member in self.members)

    def encode(
        self, prompt: Prompt, answer: str, stopped: bool = True, tokens: Sequence[Record] = (), *, where: str
    ) -> Encoded:
        """Token ids of prompt and answer, for each member; tokens: records of this answer, where it was sampled.

        Raises: DataError, which begins with `where`, if they exceed a member's context or cannot be rendered.
        """
        return [member.encode(prompt, answer, stopped, tokens, where=where) for member in self.members]

    def encode_answer(self, ranking: Ranking, place: int, *, where: str) -> Encoded:
        """Token ids of a prompt with one of its answers as training encodes them, for each member.

        Raises: DataError, which begins with `where`.
        """
        return [member.encode_answer(ranking, place, where=where) for member in self.members]

    def member_scores(self, answers: Sequence[Encoded]) -> Tensor:
        """Return each member's scores of encoded answers, (members, answers); equal answers are scored once."""
        rows = []
        for place, member in enumerate(self.members):
            ids = [tuple(answer[place]) for answer in answers]
            different = list(dict.fromkeys(ids))
            found = dict(zip(different, member.score_tokens([list(one) for one in different]), strict=True))
            rows.append([found[one] for one in ids])
        return torch.tensor(rows, dtype=torch.float32).reshape(len(self.members), len(answers))

    def aggregated(self, members: Tensor) -> list[float]:
        """Aggregate the members' scores, (members, answers), to one number per answer."""
        return aggregate_scores(members, self.aggregate, uncertainty_penalty=self.uncertainty_penalty).tolist()

    def score_encoded(self, answers: Sequence[Encoded]) -> list[float]:
        """Score encoded answers."""
        return self.aggregated(self.member_scores(answers))

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        stopped: Sequence[bool] | None = None,
        tokens: Sequence[Record] | None = None,
    ) -> list[float]:
        """Score each answer to its prompt.

        Args:
            stopped: whether each answer ended by itself; default: all did. tokens: of each answer, as sampled.

        Raises: DataError if prompt and answer together exceed a member's context.
        """
        return self.score_encoded(encode_all(self.encode, prompts, answers, stopped, tokens))
