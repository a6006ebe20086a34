from pathlib import Path
from typing import Any

import pytest

from alignment.calls.store import CallStore, Sampled
from alignment.data.prompts import fitting_prompts
from alignment.data.template import Template
from alignment.errors import DataError, LineageError, RecipeError
from alignment.rollout.engine import Completion, Sampling
from reward.feedback.sampling import require_one_process, sample_answers
from tests.models import EOS, make_tokenizer

PROMPTS = [f"Tell me a story about {i}." for i in range(11)]


class Scripted:
    """An engine whose answers say which seed and row they came from; it fails at call `fail_at`."""

    def __init__(self, template: Template, fail_at: int = 10**9) -> None:
        self.template = template
        self.fail_at = fail_at
        self.calls = 0

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        self.calls += 1
        if self.calls >= self.fail_at:
            raise KeyboardInterrupt
        stop = self.template.stop_token_ids[0]
        answers = [self.template.answer_ids("p", f" {sampling.seed % 997} {row}", stop=False) for row in range(99)]
        return [
            Completion(answers[row] + [stop], True) if row % 2 else Completion(answers[row], False)
            for row in range(len(prompt_ids))
        ]


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(make_tokenizer())


def run(template: Template, engine: Any, path: Path, prompts: list[Any] = PROMPTS, **keys: Any) -> list[Sampled]:
    with CallStore(path) as store:
        return sample_answers(
            prompts,
            engine=engine,
            template=template,
            store=store,
            sampling=Sampling(8, stop_token_ids=template.stop_token_ids, seed=7),
            **{"num_generations": 3, "batch_size": 2, **keys},
        )


def test_interrupted_sampling_goes_on_with_the_same_answers(template: Template, tmp_path: Path) -> None:
    whole = Scripted(template)
    expected = run(template, whole, tmp_path / "whole")
    assert whole.calls == 6  # 4 batches of 2 hold 2 prompts of 3 answers; 11 prompts need 6 chunks
    assert [sample.prompt for sample in expected] == PROMPTS
    assert len({answer for sample in expected for answer in sample.responses}) == 33  # every chunk has its own seed
    with pytest.raises(KeyboardInterrupt):
        run(template, Scripted(template, fail_at=4), tmp_path / "cut")
    rest = Scripted(template)
    assert run(template, rest, tmp_path / "cut") == expected
    assert rest.calls == 3


def test_answers_keep_their_space_and_lose_their_stop_token(template: Template, tmp_path: Path) -> None:
    samples = run(template, Scripted(template), tmp_path / "s")
    assert samples[0].stopped == [False, True, False]
    for sample in samples:
        for answer in sample.responses:
            assert answer.startswith(" ")
            assert EOS not in answer


def test_other_prompts_or_settings_are_refused(template: Template, tmp_path: Path) -> None:
    run(template, Scripted(template), tmp_path / "s")
    with pytest.raises(LineageError, match="another prompts; restore it"):
        run(template, Scripted(template), tmp_path / "s", prompts=PROMPTS[:-1])
    with pytest.raises(LineageError, match="another sampling; restore it"):
        run(template, Scripted(template), tmp_path / "s", num_generations=4)


def fit(template: Template, prompts: list[Any], **keys: Any) -> tuple[list[Any], list[str]]:
    options = {"max_prompt_length": None, "context": None, "max_new_tokens": 8, "skip": False, **keys}
    return fitting_prompts(prompts, template, **options)


def test_prompts_that_are_too_long_are_named_or_left_out(
    template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "a small cat " * 40
    tokens = len(template.prompt_ids(long))
    short = len(template.prompt_ids("Hi"))
    with pytest.raises(DataError) as caught:
        fit(template, ["Hi", long], max_prompt_length=short)
    assert "prompt 2 ('a small cat a small cat" in str(caught.value)
    assert f"has {tokens} tokens; max_prompt_length is {short}" in str(caught.value)
    assert "set on_bad_row: skip" in str(caught.value)
    with pytest.raises(DataError, match=rf"max_new_tokens 8 that is more than the model's context of {tokens + 7}"):
        fit(template, ["Hi", long], context=tokens + 7)
    assert fit(template, ["Hi", long], context=tokens + 8) == (["Hi", long], [])
    kept, skipped = fit(template, ["Hi", long], max_prompt_length=short, skip=True)
    assert (kept, len(skipped)) == (["Hi"], 1)
    assert "left out 1 of 2 prompts (on_bad_row: skip); the first is prompt 2 ('a small cat" in capsys.readouterr().err
    with pytest.raises(DataError, match="no prompt is left"):
        fit(template, [long], max_prompt_length=1, skip=True)


def test_a_prompt_without_a_token_is_named(template: Template) -> None:
    with pytest.raises(DataError, match=r"prompt 1 \(''\): the prompt is empty"):
        fit(template, [""])


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    require_one_process()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(RecipeError, match="label runs in one process and 4 were started"):
        require_one_process()


def test_a_stop_token_that_is_ordinary_text_is_dropped_too(tmp_path: Path) -> None:
    template = Template(make_tokenizer(chat_template=None), eos_token=".")
    sample = run(template, Scripted(template), tmp_path / "s", prompts=["Hi"])[0]
    assert sample.stopped == [False, True, False]
    assert not sample.responses[1].endswith(".")
