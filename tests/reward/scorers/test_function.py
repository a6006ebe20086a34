"""Functions as scorers: what they are given, and every way in which they can fail."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment.config.schema import scorer_entry
from alignment.errors import ScorerError
from alignment.train.policy_gradient.scoring import Answered
from reward.scorers.function import FunctionScorer

HERE = __name__
PROMPTS: list[Any] = ["count", [{"role": "user", "content": "hi"}]]
seen: list[Any] = []


def length(prompts: list[Any], answers: list[str]) -> list[int]:
    seen.append((prompts, answers))
    return [len(answer) for answer in answers]


def array(prompts: list[Any], answers: list[str]) -> Any:
    return np.array([0.5, -1.0])


def tensor(prompts: list[Any], answers: list[str]) -> Any:
    return torch.tensor([0.5, -1.0])


def one_number(prompts: list[Any], answers: list[str]) -> float:
    return 1.0


def words(prompts: list[Any], answers: list[str]) -> list[str]:
    return ["good", "bad"]


def raises(prompts: list[Any], answers: list[str]) -> list[float]:
    raise ZeroDivisionError("division by zero")


class FaultyText(Exception):
    def __str__(self) -> str:
        raise ValueError


def raises_faulty_text(prompts: list[Any], answers: list[str]) -> list[float]:
    raise FaultyText


def disables_gradients(prompts: list[Any], answers: list[str]) -> list[float]:
    torch.set_grad_enabled(False)
    return [1.0 for _ in answers]


def by_row(prompts: list[Any], answers: list[str]) -> dict[int, float]:
    return dict.fromkeys(range(len(answers)), 1.0)


def numerals(prompts: list[Any], answers: list[str]) -> list[str]:
    return ["1.0", "2.0"]


def leaves(prompts: list[Any], answers: list[str]) -> list[float]:
    raise SystemExit(3)


def leaves_well(prompts: list[Any], answers: list[str]) -> list[float]:
    raise SystemExit(0)


def leaves_later(prompts: list[Any], answers: list[str]) -> Iterator[float]:
    yield 1.0
    raise SystemExit


def ends_a_generator(prompts: list[Any], answers: list[str]) -> list[float]:
    raise GeneratorExit


NOT_CALLABLE = 3


def scorer_of(name: str) -> FunctionScorer:
    return FunctionScorer.from_entry(scorer_entry(kind="function", function=name if ":" in name else f"{HERE}:{name}"))


def test_a_function_is_called_once_with_everything() -> None:
    scorer = scorer_of("length")
    assert scorer.score_rows(Answered(PROMPTS, ["a", "bcd"], [True, False])) == [1.0, 3.0]
    assert seen == [(PROMPTS, ["a", "bcd"])]
    assert scorer.identity["function"] == f"{HERE}:length"
    assert len(scorer.identity["code_sha256"]) == 16


def test_the_gradient_mode_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disables_when_imported.py").write_text(
        "import torch\ntorch.set_grad_enabled(False)\ndef score(prompts, answers): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    scorer_of("disables_when_imported:score")
    assert torch.is_grad_enabled()
    assert scorer_of("disables_gradients").score_rows(Answered(PROMPTS, ["a", "b"], [True, True])) == [1.0, 1.0]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["array", "tensor"])
def test_numbers_of_any_kind(name: str) -> None:
    assert scorer_of(name).score_rows(Answered(PROMPTS, ["a", "b"], [True, True])) == [0.5, -1.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one_number", r"returned '1.0'; it must return one number for each of 2 answers"),
        ("words", r"returned \"\['good', 'bad'\]\""),
        ("raises", "raised ZeroDivisionError: division by zero; correct the function"),
        ("raises_faulty_text", r"raised FaultyText: \(no text: its __str__ raised ValueError\); correct the function"),
        ("by_row", r"returned '\{0: 1.0, 1: 1.0\}'; it must return one number"),
        ("numerals", r"returned \"\['1.0', '2.0'\]\"; it must return one number"),
        ("leaves", "raised SystemExit: 3; correct the function"),
        ("leaves_well", "raised SystemExit: 0; correct the function"),
        ("leaves_later", "raised SystemExit; correct the function"),
        ("ends_a_generator", "raised GeneratorExit; correct the function"),
        ("NOT_CALLABLE", "NOT_CALLABLE is not a function"),
        ("missing", "missing does not exist"),
        ("no_such_module:f", "no module 'no_such_module'"),
    ],
)
def test_an_invalid_scorer_is_reported(name: str, said: str) -> None:
    with pytest.raises(ScorerError, match=rf"scorer function .*{said}"):
        scorer_of(name).score_rows(Answered(PROMPTS, ["a", "b"], [True, True]))
