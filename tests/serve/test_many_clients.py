"""200 clients at once: each gets the answer that it gets alone, of the model that it named."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.policy.test_many_adapters import saved
from tests.serve.running import Running

CLIENTS = 200
MODELS = ["base", "one", "two", "ia3"]
WORDS = "the quick brown fox jumps over the lazy dog Please tell me a story about small cat".split()


def requests(count, tokens, models=MODELS):
    """Return requests of all kinds: each has a seed, or is greedy."""
    rng = random.Random(0)
    return [
        {
            "model": models[number % len(models)],
            "prompt": " ".join(rng.choices(WORDS, k=rng.randrange(1, 30))),
            "max_tokens": rng.randrange(1, tokens),
            "seed": number,
            "temperature": rng.choice([0, 0.5, 1.0, 1.0]),
            "top_p": rng.choice([1, 0.9]),
            "extra_body": {"top_k": rng.choice([0, 20])},
            "stop": rng.choice([None, "e"]),
            "frequency_penalty": rng.choice([0, 0.5]),
            "logprobs": rng.choice([None, 2]),
        }
        for number in range(count)
    ]


def answered(running, asked):
    reply = running.client.completions.create(**asked)
    return reply.model, reply.choices[0].text, reply.choices[0].finish_reason, reply.usage.completion_tokens


def test_answers_beside_others_are_those_alone(running):
    different = requests(40, 10)
    alone = [answered(running, asked) for asked in different]
    assert len({text for _, text, *_ in alone}) > 30
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(lambda asked: answered(running, asked), different * (CLIENTS // 40)))
    assert found == alone * (CLIENTS // 40)


def test_a_full_queue_is_refused_with_a_time_to_wait(base):
    with Running({"base": base}, rows=1, waiting=2) as running:
        asked = {"model": "base", "prompt": "the", "max_tokens": 60, "seed": 0}

        def status(_):
            return running.post("/completions", asked)

        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(status, range(20)))
    assert {code for code, _ in found} == {200, 429}
    assert {body["error"]["code"] for code, body in found if code == 429} == {"server_busy"}


@pytest.mark.slow
def test_a_trained_model_and_its_adapters(shared, tmp_path):
    base = shared / "models/stories260K"
    adapters = {f"a{number}": saved(base, tmp_path / str(number), "LORA", number, r=4) for number in range(3)}
    with Running({"base": base, **adapters}, rows=64) as running:
        different = requests(CLIENTS, 64, ["base", *adapters])
        alone = [answered(running, asked) for asked in different]
        with ThreadPoolExecutor(CLIENTS) as pool:
            assert list(pool.map(lambda asked: answered(running, asked), different)) == alone
