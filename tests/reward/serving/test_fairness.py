"""One client cannot hold up the others: large requests come in parts, clients take turns, who leaves is left out."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alignment.errors import DataError, ScorerError
from alignment.serving.batching import (
    MESSAGE_CHARACTERS,
    ROUND_SECONDS,
    SMALL_REQUEST,
    Batcher,
    Busy,
    ScoreRequest,
    characters,
)
from reward.models.scoring import RewardScorer
from reward.serving.requests import Limits, rows_of
from reward.serving.serve import CHARACTERS_PER_TOKEN, LEAST_CHARACTERS, characters_read
from tests.reward.serving.test_serving import TOKEN, Counting, Server, body, ensemble
from tests.serving.wire import post, until


class Slow(Counting):
    """Takes the same time for each answer, and remembers their order; answers that begin with ! or ? fail."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.seconds, self.order = seconds, []

    def encode(self, prompt, answer, stopped=True, tokens=(), *, where):
        return [len(answer), 0, *map(ord, answer)]

    def score_tokens(self, sequences):
        self.batches.append(len(sequences))
        self.gate.wait(10)
        texts = ["".join(map(chr, ids[2:])) for ids in sequences]
        if any(text.startswith("!") for text in texts):
            raise DataError("an answer ends in the token that the model pads with.")
        if any(text.startswith("?") for text in texts):
            raise SystemExit(3)
        time.sleep(self.seconds * len(sequences))
        self.order += texts
        return [float(ids[0]) for ids in sequences]


def asked(*answers, client=""):
    return ScoreRequest(["p"] * len(answers), list(answers), [True] * len(answers), client)


def numbered(letter, count, width=20):
    """Different answers of one length: equal ones would be scored once."""
    return [f"{letter}{number:0{width - 1}}" for number in range(count)]


@pytest.fixture
def batcher():
    """A batcher with a gate: what is asked while it is closed waits together."""
    batcher = Batcher(ensemble(Slow()), batch_answers=64, most_waiting=10_000)
    model = batcher.model.members[0]
    model.gate.clear()
    first = batcher.submit(asked("first"))
    until(lambda: model.batches)
    yield batcher
    model.gate.set()
    batcher.close()
    assert first.done()


def test_small_requests_pass_a_large_one_and_the_large_one_goes_on(batcher):
    model = batcher.model.members[0]
    large = batcher.submit(asked(*numbered("L", 1000)))
    small = [batcher.submit(asked(f"s{number}")) for number in range(30)]
    model.gate.set()
    assert [told.result(10) for told in small] == [[float(len(f"s{number}"))] for number in range(30)]
    assert large.result(10) == [20.0] * 1000
    at = [place for place, text in enumerate(model.order) if text.startswith("s")]
    assert max(at) < 64 + 1  # all in the batch after the first
    assert model.order[1].startswith("L")  # the oldest always gets a turn


def test_a_large_request_in_parts_is_answered_in_its_own_order(batcher):
    answers = ["x" * (number % 37) for number in range(500)]
    told = batcher.submit(asked(*answers))
    other = batcher.submit(asked(*answers[::-1], client="b"))
    batcher.model.members[0].gate.set()
    assert told.result(10) == [float(len(answer)) for answer in answers]
    assert other.result(10) == [float(len(answer)) for answer in answers[::-1]]


def test_clients_take_turns_however_many_requests_each_has(batcher):
    model = batcher.model.members[0]
    many = [batcher.submit(asked(*numbered(f"m{number}-", 4), client="many")) for number in range(200)]
    one = batcher.submit(asked(*numbered("o", 100), client="one"))
    model.gate.set()
    one.result(10)
    for told in many:
        told.result(10)
    last = max(place for place, text in enumerate(model.order) if text.startswith("o"))
    assert last < 350  # of 901: half of every batch, or nearly, was its own


def test_a_batch_holds_about_as_much_text_as_takes_its_time():
    model = Slow(seconds=0.002)
    batcher = Batcher(ensemble(model), batch_answers=10**6, most_waiting=10**6)
    batcher.submit(asked(*numbered("L", 1500, width=500))).result(60)
    batcher.close()
    assert max(model.batches[2:]) <= 4 * ROUND_SECONDS / model.seconds
    assert len(model.batches) > 3


def test_a_request_that_the_model_refuses_fails_alone(batcher):
    good = [batcher.submit(asked(f"good{number}")) for number in range(3)]
    bad, ends = batcher.submit(asked("!", "x")), batcher.submit(asked("?"))
    batcher.model.members[0].gate.set()
    assert [told.result(10) for told in good] == [[5.0]] * 3
    with pytest.raises(DataError, match="pads with"):
        bad.result(10)
    with pytest.raises(ScorerError, match="the reward model's code raised SystemExit: 3"):
        ends.result(10)
    until(lambda: batcher.waiting == 0)


def test_a_cancelled_request_leaves_the_queue_at_once(batcher):
    model = batcher.model.members[0]
    told = batcher.submit(asked(*numbered("c", 5000)))
    assert batcher.waiting == 5001
    assert told.cancel()
    assert batcher.waiting == 1
    model.gate.set()
    assert batcher.submit(asked("last")).result(10) == [4.0]
    assert model.order == ["first", "last"]


def test_large_requests_leave_room_in_the_queue_for_small_ones(batcher):
    batcher.most_waiting = 100
    batcher.submit(asked(*numbered("a", 60)))
    with pytest.raises(Busy, match="61 answers are waiting; the limit is 75"):
        batcher.submit(asked(*numbered("b", 30)))
    for number in range(2):
        batcher.submit(asked(*numbered(f"s{number}", SMALL_REQUEST)))
    with pytest.raises(Busy, match="93 answers are waiting; the limit is 100"):
        batcher.submit(asked(*numbered("t", SMALL_REQUEST)))


def test_a_client_that_leaves_takes_its_request_along():
    model = Counting()
    model.gate.clear()
    with Server(ensemble(model)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, body("a"))
        until(lambda: model.batches)
        port = int(server.url.rpartition(":")[2])
        sent = post(b'{"prompts": ["p"], "answers": ["gone"]}', f"Authorization: Bearer {TOKEN}", path="/score")
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.sendall(sent)
            until(lambda: server.batcher.waiting == 2)
        until(lambda: server.batcher.waiting == 1)
        model.gate.set()
        assert first.result()[0] == 200
    assert model.batches == [1]


def test_requests_of_many_clients_at_once_are_all_answered():
    with Server(ensemble(Counting())) as server, ThreadPoolExecutor(100) as pool:
        told = list(pool.map(lambda number: server.post(body("x" * number)), range(200)))
    assert [code for code, _ in told] == [200] * 200
    assert [answer["scores"] for _, answer in told] == [[number + 0.5] for number in range(200)]


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised():
    limits = Limits(characters=100)
    messages = [{"role": "user", "content": "x" * 50}]
    assert characters(messages) == 54 + MESSAGE_CHARACTERS
    rows_of(body("x" * 99), limits)
    for prompt, answer in (("p", "x" * 100), (messages, "x" * 31), ([{"role": "u", "content": ""}] * 6, "")):
        with pytest.raises(DataError, match=r"answers\[0\] and its prompt have 10\d characters, more than the 100"):
            rows_of({"prompts": [prompt], "answers": [answer]}, limits)
    assert characters_read(None) == LEAST_CHARACTERS
    assert characters_read(2**20) == CHARACTERS_PER_TOKEN * 2**20


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user", "content": "c", "tool_calls": [{}]}, "'tool_calls' is a list, not text"),
        ({"role": "user", "content": "c", "tool_calls": "nope"}, "'tool_calls' is not JSON"),
        ({"role": "user", "content": "c", "tools": "[" * 50_000}, "'tools' is not JSON"),
        ({"role": "user", "content": "c", "tools": "[1]"}, "'tools' is not a JSON list of objects"),
        ({"role": "user", "content": "c", "x" * 100: None}, "'x{37}...' is null, not text"),
    ],
)
def test_values_of_a_message_are_text_and_its_tools_are_json(message, said):
    with pytest.raises(DataError, match=rf"prompts\[0\]\[0\]: {said}"):
        rows_of({"prompts": [[message]], "answers": ["a"]}, Limits())


def test_an_error_never_repeats_what_it_was_sent():
    for sent in ({"x" * 10**6: 1}, {str(number): 1 for number in range(10_000)}):
        with pytest.raises(DataError, match="known are prompts") as told:
            rows_of(sent, Limits())
        assert len(str(told.value)) < 300


def test_the_context_of_several_models_is_the_smallest():
    members = [RewardScorer(None, None, 0, 1, context, {}) for context in (None, 300, 200)]
    assert ensemble(*members).context == 200
    assert ensemble(members[0]).context is None


def test_the_status_of_a_broken_body_over_the_wire():
    with Server(ensemble(Counting())) as server:
        code, told = server.post(b'{"prompts": ["p"], "answers": ["a"], "answers": ["b"]}')
        assert (code, "'answers' is given twice" in told["error"]) == (400, True)
