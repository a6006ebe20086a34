"""Our own `openai` judge on a real server: its probabilities are those of the model in its own process."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.calls.asking import ask_all
from alignment.config.schema.judges import judge_entry
from alignment.evaluate.judging import Comparison
from reward.judges import build_judge
from tests.models import save_tiny_model
from tests.serve.running import TOKEN, Running

QUESTIONS = [Comparison("2+2?", f"It is {place}.", "Four, " * place) for place in range(1, 7)]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A model that mostly answers with A or B."""
    path = save_tiny_model(tmp_path_factory.mktemp("judge") / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    messages = [{"role": "user", "content": "2+2? A or B?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        state = model.model(**ids).last_hidden_state[0, -1]
        for token, logit in ((tokenizer.convert_tokens_to_ids("A"), 8.0), (tokenizer.convert_tokens_to_ids("B"), 7.0)):
            model.lm_head.weight[token] = state * logit / state.square().sum()
    model.save_pretrained(path)
    return path


def test_a_judge_on_the_server_is_the_judge_in_the_process(judge, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", TOKEN)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{prompt} {first} {second} A or B?")
    keys = {"prompt": str(prompt), "logprobs": True, "max_tokens": 1}
    local = build_judge(judge_entry(kind="local", model_name_or_path=str(judge), dtype="float32", **keys))
    with Running({"judge": judge}) as running:
        entry = judge_entry(kind="openai", model="judge", base_url=running.url, api_key_env="MY_KEY", **keys)
        served = build_judge(entry)
        batches = list(ask_all(served, QUESTIONS, max_concurrency=6))
    found = dict(pair for batch in batches for pair in batch)
    for question in QUESTIONS:
        expected = local.ask(question)
        assert (found[question].status, expected.status) == ("ok", "ok")
        assert 0 < expected.probability < 1
        assert found[question].probability == pytest.approx(expected.probability, abs=1e-4)
        assert found[question].details["mass"] == pytest.approx(expected.details["mass"], abs=0.02)
        assert found[question].details["model"] == "judge"
    assert len({round(verdict.probability, 6) for verdict in found.values()}) == len(QUESTIONS)
