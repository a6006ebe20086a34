"""Where prompts and microbatches come from, and that the stream goes on exactly where it was."""

import pytest
import torch

from alignment.train.policy_gradient.experience import (
    Experience,
    ExperienceStream,
    by_length,
    minibatch_schedule,
    pack,
    prompt_rows,
    unflatten,
)
from alignment.train.policy_gradient.rewards import RunningMoments


def test_pack_marks_answers_by_length_even_where_padding_is_the_eos_token():
    input_ids, mask = pack([[5, 1], [6]], [[7, 1], [1, 8, 1, 1]], pad_token_id=1)
    assert input_ids.tolist() == [[5, 1, 7, 1, 1], [6, 1, 8, 1, 1]]
    assert mask.tolist() == [[False, False, True, True, False], [False, True, True, True, True]]


def test_unflatten_puts_tokens_where_the_mask_is_and_passes_gradients():
    flat = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    whole = unflatten(flat, mask)
    assert whole.tolist() == [[1.0, 0.0], [2.0, 3.0]]
    (whole * torch.tensor([[1.0, 5.0], [2.0, 3.0]])).sum().backward()
    assert flat.grad.tolist() == [1.0, 2.0, 3.0]


def test_every_epoch_uses_every_answer_once_and_microbatches_are_sorted_by_length():
    lengths = [3, 9, 1, 7, 5, 2, 8, 4]
    keys = {"seed": 0, "num_epochs": 3, "num_mini_batches": 2, "microbatch_size": 2}
    microbatches = minibatch_schedule(lengths, update=0, **keys)
    assert len(microbatches) == 3 * 4
    for epoch in range(3):
        part = microbatches[4 * epoch : 4 * epoch + 4]
        assert sorted(row for rows in part for row in rows) == list(range(8))
        for minibatch in (part[:2], part[2:]):
            found = [lengths[row] for rows in minibatch for row in rows]
            assert found == sorted(found, reverse=True)
    assert minibatch_schedule(lengths, update=0, **keys) == microbatches
    assert minibatch_schedule(lengths, update=1, **keys) != microbatches
    assert microbatches[:4] != microbatches[4:8]


def test_by_length():
    assert by_length([1, 5, 5, 2], 2) == [[1, 2], [3, 0]]


def test_prompts_come_shuffled_lap_after_lap_and_shares_join_to_the_whole():
    whole = prompt_rows(5, seed=1, first=0, length=15)
    laps = [whole[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(lap) == list(range(5)) for lap in laps)
    assert laps[0] != laps[1]
    assert prompt_rows(5, seed=1, first=0, length=7) + prompt_rows(5, seed=1, first=7, length=8) == whole
    assert prompt_rows(5, seed=2, first=0, length=15) != whole


def test_running_moments_are_those_of_all_values_seen():
    g = torch.Generator().manual_seed(0)
    values = torch.randn(30, generator=g) * 3 + 7
    moments = RunningMoments()
    for part in values.split([1, 9, 20]):
        moments.update(part)
    assert moments.mean == pytest.approx(float(values.double().mean()))
    assert moments.std == pytest.approx(float(values.double().std()))
    alone = RunningMoments()
    alone.update(torch.tensor([4.0]))
    assert alone.std == 1.0


class Source:
    """Makes experience that tells in which update it was made, and when it was asked for."""

    def __init__(self):
        self.asked = []

    def collect(self, update):
        self.asked.append(update)
        numbers = torch.full((4, 2), float(update))
        mask = torch.ones(4, 2, dtype=torch.bool)
        return Experience([[3]] * 4, [[5, 6]] * 4, mask, numbers, numbers, numbers, numbers, loss_mask=mask)

    def schedule_of(self, update, lengths):
        return [[0, 1], [2, 3], [3, 0], [1, 2]] if update % 2 else [[1, 3], [0, 2], [0, 1], [2, 3]]


def stream(source):
    return ExperienceStream(source.collect, source.schedule_of, pad_token_id=0)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_stream_collects_only_when_its_first_microbatch_is_asked_for():
    source = Source()
    batches = iter(stream(source))
    assert source.asked == []
    for _ in range(4):
        assert float(next(batches)["logp"][0, 0]) == 0.0
    assert source.asked == [0]
    assert float(next(batches)["logp"][0, 0]) == 1.0
    assert source.asked == [0, 1]


@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 8])
def test_a_resumed_stream_goes_on_without_collecting_anew(taken, tmp_path):
    source = Source()
    first = stream(source)
    batches = iter(first)
    for _ in range(taken):
        next(batches)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    expected = [next(batches) for _ in range(6)]
    again_source = Source()
    again = stream(again_source)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    batches = iter(again)
    assert all(same(next(batches), batch) for batch in expected)
    assert again_source.asked == [update for update in source.asked if update >= -(-taken // 4)]


def test_a_checkpoint_keeps_the_names_of_its_fields():
    """A run of an earlier version resumes: files keep the name `trains` of what the code calls `loss_mask`."""
    first = stream(Source())
    next(iter(first))
    state = first.state_dict()
    assert set(state) == {"update", "cursor", "experience"}
    assert set(state["experience"]) == {
        "prompt_ids", "answer_ids", "mask", "logp", "values", "advantages", "returns", "trains", "weights", "ref_logp",
    }  # fmt: skip
