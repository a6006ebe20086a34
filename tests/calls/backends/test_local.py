"""A model in this process: its probabilities are those of its own forward pass, alone or in a batch."""

import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.calls.asking import ask_all
from alignment.calls.caller import Caller
from alignment.config.schema.chat_models import at_once
from alignment.config.schema.judges import judge_entry
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison
from reward.judges import build_judge
from tests.models import save_tiny_model

QUESTIONS = [Comparison("2+2?", f"It is {place}.", "Four, " * place) for place in range(1, 7)]


def judge_of(model, prompt=None, **keys):
    return build_judge(judge_entry(kind="local", model_name_or_path=str(model), dtype="float32", prompt=prompt, **keys))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A prompt that fits a tiny model's context."""
    file = tmp_path_factory.mktemp("prompt") / "prompt.txt"
    file.write_text("{prompt} {first} {second} A or B?")
    return str(file)


def test_probabilities_are_the_model_s_own_alone_and_in_a_batch(tiny_model_dir, short):
    judge = judge_of(tiny_model_dir, short)
    said = {question: verdict for batch in ask_all(judge, QUESTIONS, max_concurrency=6) for question, verdict in batch}
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    spelled = {letter: [i for i in range(len(tokenizer)) if tokenizer.decode([i]).strip() == letter] for letter in "AB"}
    assert all(spelled.values())
    for question in QUESTIONS:
        messages = [{"role": "user", "content": judge.prompt.render(question)}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            p = model(**ids).logits[0, -1].double().softmax(-1)
        a, b = (p[spelled[letter]].sum().item() for letter in "AB")
        for verdict in (said[question], judge.ask(question)):
            assert verdict.probability == pytest.approx(a / (a + b), abs=1e-5)
            assert verdict.details["mass"] == pytest.approx(a + b, abs=1e-6)
            assert verdict.details["usage"] == {"prompt_tokens": ids["input_ids"].shape[1], "completion_tokens": 0}


def test_text_is_greedy_or_a_sample_of_its_seed(tiny_model_dir, short):
    written = [judge_of(tiny_model_dir, short, reasoning=True, max_tokens=8, repair=False) for _ in range(2)]
    one, other = (judge.ask(QUESTIONS[0]) for judge in written)
    assert (one.raw, one.status) == (other.raw, "truncated")
    sampled = judge_of(tiny_model_dir, short, temperature=1.0, max_tokens=8, repair=False)
    texts = [sampled.ask(Comparison("p", "a", "b", repeat)).raw for repeat in (0, 1, 0)]
    assert texts[0] == texts[2] != texts[1]


def test_written_tokens_carry_log_probabilities_that_fit_the_text(tiny_model_dir):
    judge = judge_of(tiny_model_dir)
    chat = judge.model.chat
    from alignment.calls.chat import ChatCall

    request = chat.request(ChatCall([{"role": "user", "content": "Say"}], 6, temperature=1.0, seed=1, logprobs=True))
    reply = chat.send(request)
    assert "".join(token["token"] for token in reply.tokens) == reply.text
    for token in reply.tokens:
        assert token["logprob"] <= 0
        assert token["top_logprobs"][0]["token"] == token["token"]


def test_a_question_longer_than_the_context_is_not_label(tiny_model_dir, short):
    verdict = judge_of(tiny_model_dir, short).ask(Comparison("p", "word " * 400, "b"))
    assert (verdict.probability, verdict.status) == (None, "truncated")
    assert "exceed the model's context" in verdict.raw


def test_a_dry_run_loads_no_weights_and_a_chat_template_is_needed(tiny_model_dir, tmp_path, short):
    class Nobody(Caller):
        makes_no_calls = True

    entry = judge_entry(kind="local", model_name_or_path=str(tiny_model_dir), prompt=short)
    assert build_judge(entry, Nobody()).model.chat._model is None
    plain = save_tiny_model(tmp_path / "plain", chat_template=None)
    with pytest.raises(JudgeError, match=r"no chat template; give judge\.chat_template"):
        judge_of(plain, short)


def test_logits_are_computed_at_the_last_position_alone(tiny_model_dir, short):
    judge = judge_of(tiny_model_dir, short)
    positions = []
    head = judge.model.chat._model.get_output_embeddings()
    head.register_forward_hook(lambda _module, inputs, _output: positions.append(inputs[0].shape[1]))
    list(ask_all(judge, QUESTIONS, max_concurrency=6))
    assert positions
    assert set(positions) == {1}


def test_the_entry_sets_the_batch_size_for_every_concurrency(tiny_model_dir, short):
    judge = judge_of(tiny_model_dir, short, per_device_eval_batch_size=12)
    entry, chat = judge.model.chat.entry, judge.model.chat
    widths, choose = [], chat._choose

    def slowly(prompts, request):
        widths.append(len(prompts))
        time.sleep(0.5)  # as a large model would
        return choose(prompts, request)

    chat._choose = slowly
    many = [Comparison("2+2?", f"It is {place}.", "Four") for place in range(40)]
    asked = entry.at_once(8)
    assert asked == 24
    assert sum(map(len, ask_all(judge, many, max_concurrency=asked))) == 40
    assert max(widths) == 12
    assert len(widths) <= 12  # 80 questions, both orders, in batches of 12, the first ones narrower


LOCAL, RULES = {"kind": "local", "model_name_or_path": "m"}, {"kind": "rules", "function": "a:b"}


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([{**LOCAL, "per_device_eval_batch_size": 16}], 32),
        ([{**LOCAL, "per_device_eval_batch_size": 2}], 8),
        ([RULES], 8),
        ([{"kind": "openai", "model": "m"}, LOCAL], 8),
        ([{"kind": "jury", "members": [LOCAL, RULES]}], 32),
        ([{"kind": "jury", "members": [LOCAL, {"kind": "anthropic", "model": "m"}]}], 8),
    ],
    ids=str,
)
def test_an_endpoints_concurrency_stays_the_recipes(entries, found):
    assert at_once([judge_entry(**entry) for entry in entries], 8) == found
