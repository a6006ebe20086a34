"""What a chat does with each line: messages, commands, preferences, files."""

import io
import itertools
import json

import pytest
import torch

import recipes.dpo
import recipes.reward
from alignment.chat.answering import Answering
from alignment.chat.preferences import Preferences
from alignment.chat.screen import Screen
from alignment.chat.session import Session
from alignment.chat.settings import ChatKeys, keys_of, value_of
from alignment.config.schema import DatasetEntry
from alignment.data.load import load_demonstrations, load_rankings
from alignment.errors import AlignmentError, RecipeError
from alignment.policy.policies import Policy
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_model, make_tokenizer, save_tiny_model
from tests.policy.test_merge import trained_adapter


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    save_tiny_model(place / "base", initializer_range=0.3)
    trained_adapter(place / "base", place / "run")
    save_tiny_model(place / "text", chat_template=None, seed=3)
    other = make_tokenizer(vocab_size=280)  # other ids
    make_model(other, seed=4).save_pretrained(place / "other")
    other.save_pretrained(place / "other")
    return place


@pytest.fixture(scope="module")
def loaded(place):
    def load(*names):
        return Answering([Policy.find(str(place / name)) for name in names])

    pairs = {names: load(*names) for names in (("run",), ("run", "base", "other"), ("text",))}
    return lambda *names: pairs[names]


@pytest.fixture
def session(loaded, tmp_path):
    def begin(*names, chats=True, **keys):
        screen = Screen(io.StringIO(), io.StringIO())
        keys = ChatKeys(max_new_tokens=keys.pop("max_new_tokens", 12), **keys)
        return Session(loaded(*names), keys, Preferences(tmp_path / "p.jsonl"), screen, chats=chats)

    return begin


def told(session, *lines):
    """The lines that the session writes on standard error for these."""
    session.screen.errors.seek(0), session.screen.errors.truncate(0)
    for line in lines:
        assert session.take(line)
    return session.screen.errors.getvalue()


@pytest.fixture
def ended(monkeypatch):
    """Have the next answers be these texts, each with a stop token, in place of what would be sampled."""
    texts = []

    def write(answering, answers, keys, turn, interrupted=None):
        for answer, text in zip(answers, texts.pop(0), strict=True):
            ids = answer.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            answer.most = len(ids) + 1
            for token in [*ids, answer.policy.template.stop_token_ids[0]]:
                answer.add(token)
            yield

    monkeypatch.setattr(Answering, "write", write)
    return lambda *answers: texts.append(answers)


def test_an_answer_is_what_the_policy_samples_from_the_template(session, place):
    chat = session("run", temperature=0.8, seed=5)
    told(chat, "hello", "how are you")
    policy = Policy.find(str(place / "run"))
    held = chat.answering.held[0]
    messages = []
    for turn, words in enumerate(["hello", "how are you"]):
        messages.append({"role": "user", "content": words})
        prompt = policy.template.prompt_ids(messages)
        sampling = Sampling(12, 0.8, stop_token_ids=policy.template.stop_token_ids, seed=5, first_row=turn)
        [wanted] = TransformersEngine(held.model, 0).generate([prompt], sampling)
        text = policy.template.answer_text(prompt, wanted.words)
        assert chat.talk.turns[turn] == (words, text, wanted.stopped)
        messages.append({"role": "assistant", "content": text})


def test_what_is_shown_is_the_answer_and_no_control_character_of_it(session, ended):
    chat = session("run")
    ended("a \x1b[2J red\x07 ball\n\tThank you")
    told(chat, "hello")
    assert chat.screen.output.getvalue() == "a \\x1b[2J red\\x07 ball\n\tThank you\n"
    assert chat.talk.turns[0][1] == "a \x1b[2J red\x07 ball\n\tThank you"


def test_the_answers_of_a_run_do_not_depend_on_those_beside_it(session):
    alone, beside = session("run", temperature=0.7), session("run", "base", "other", temperature=0.7)
    for chat in (alone, beside):
        told(chat, "hello", "tell me a story")
    assert alone.talk.turns == beside.talk.turns  # which goes on from the first answer
    assert len({answer.text for answer in beside.last.answers}) == 3
    assert len(beside.answering.held) == 2  # run and base share a base


def test_a_run_beside_itself_answers_twice(place):
    policies = [Policy.find(str(place / "run")) for _ in range(2)]
    answering = Answering(policies)
    answers = answering.begin([{"role": "user", "content": "hi"}], ChatKeys(max_new_tokens=8))
    for _ in answering.write(answers, ChatKeys(max_new_tokens=8), 0):
        pass
    assert answers[0].ids != answers[1].ids


def test_the_system_message_begins_a_conversation_that_a_reset_keeps(session):
    chat = session("run")
    told(chat, "hello", "/system Be kind.", "hi")
    assert chat.last.prompt == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    told(chat, "/reset", "hey")
    assert chat.last.prompt == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hey"}]
    told(chat, "/system", "hey")
    assert chat.last.prompt == [{"role": "user", "content": "hey"}]


def test_sampling_keys_change_and_impossible_ones_are_refused(session):
    chat = session("run")
    assert told(chat, "/set temperature 0", "/set top_k=5") == ""
    assert (chat.keys.temperature, chat.keys.top_k) == (0, 5)
    assert "temperature 0.0, top_p 1.0, top_k 5, seed 0" in told(chat, "/set")
    assert "top_p: must be at most 1" in told(chat, "/set top_p 2")
    assert "did you mean temperature?" in told(chat, "/set temprature 1")
    assert "seed: must be a whole number" in told(chat, "/set seed x")
    assert "/set temperature 0.7" in told(chat, "/set seed")
    assert chat.faults == 4
    assert chat.keys.top_p == 1.0


def test_the_same_seed_gives_the_same_answers_again(session):
    chat = session("run")
    told(chat, "hello", "/reset", "hello", "/set seed 0", "/reset", "hello")
    with pytest.raises(RecipeError, match="--seed: must be at least 0"):
        keys_of({"seed": -1}, mark="--")
    again = session("run")
    told(again, "hello")
    assert again.talk.turns == chat.talk.turns
    assert [value_of(text) for text in ("1", "0.5", "1e-1", "x")] == [1, 0.5, 0.1, "x"]


def test_a_full_context_is_a_line_and_the_session_goes_on(session):
    chat = session("run", max_new_tokens=200)
    assert "(cut off: the context is full" in told(chat, "a red ball " * 30)
    assert chat.last.answers[0].ids
    before = list(chat.talk.turns)
    line = told(chat, "and then?")
    assert "not sent: the conversation has" in line
    assert "holds 256" in line
    assert chat.talk.turns == before
    assert told(chat, "/reset", "/set max_new_tokens 5", "hello") == "(cut off at max_new_tokens 5)\n"


def test_an_interrupt_stops_the_answer_and_the_session_goes_on(session, monkeypatch):
    chat = session("run", max_new_tokens=100, temperature=0)
    real, steps = Answering.write, itertools.count()
    monkeypatch.setattr(Answering, "write", lambda *given: real(*given[:-1], lambda: next(steps) == 3))
    assert told(chat, "hello") == "(stopped by Ctrl-C)\n"
    assert len(chat.last.answers[0].ids) == 3
    assert not chat.talk.turns[0][2]
    told(chat, "hello again")
    assert len(chat.talk.turns) == 2


def test_lines_that_are_no_message_are_named(session):
    chat = session("run")
    assert "/sytem: no such command" in told(chat, "/sytem x")
    assert "not UTF-8" in told(chat, b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert "/reset takes nothing" in told(chat, "/reset all")
    assert "there is no answer yet" in told(chat, "/prefer 1")
    assert chat.faults == 4
    assert "/save FILE" in told(chat, "/help", "", "   ")
    told(chat, "//reset")
    assert chat.talk.turns[0][0] == "/reset"
    assert chat.take("/quit") is False


def test_a_conversation_is_saved_as_the_readers_read_it(session, ended, tmp_path):
    chat = session("run")
    ended(" a ball")
    ended(" a cat")
    told(chat, "/system Be kind.", "what is red?", "what is small?")
    assert "saved in" in told(chat, f"/save {tmp_path}/talk.jsonl", f"/save {tmp_path}/talk.jsonl")
    [row] = load_demonstrations([DatasetEntry(path=f"{tmp_path}/talk.jsonl")], on_bad_row="stop", seed=0).rows
    assert [message["content"] for message in row.prompt] == ["Be kind.", "what is red?", " a ball", "what is small?"]
    assert row.completion == " a cat"
    assert row.trained() == [2, 4]


def test_an_answer_that_was_cut_off_is_saved_without_training_it(session, ended, tmp_path):
    chat = session("run")
    ended(" a ball")
    told(chat, "what is red?")
    chat.talk.turns.append(("and?", " a very", False))
    told(chat, f"/save {tmp_path}/talk.jsonl")
    [row] = load_demonstrations([DatasetEntry(path=f"{tmp_path}/talk.jsonl")], on_bad_row="stop", seed=0).rows
    assert (row.completion, row.trained()) == (" a ball", [1])


def test_a_file_that_is_there_or_cannot_be_read_later_is_refused(session, ended, tmp_path):
    chat = session("run")
    assert "no answer has ended" in told(chat, f"/save {tmp_path}/a.jsonl")
    ended(" a ball")
    told(chat, "hi")
    (tmp_path / "mine.jsonl").write_text("{}")
    assert "exists already" in told(chat, f"/save {tmp_path}/mine.jsonl")
    assert "ends in .jsonl" in told(chat, f"/save {tmp_path}/talk.txt")
    assert "ends in .jsonl" in told(chat, "/save")
    (tmp_path / "file").write_text("")
    assert "choose another path" in told(chat, f"/save {tmp_path}/file/talk.jsonl")
    assert "choose another path" in told(chat, f"/save {tmp_path}/{'x' * 300}.jsonl")
    assert "control character" in told(chat, f"/save {tmp_path}/\0.jsonl")
    assert "is not a user's home" in told(chat, "/save ~nobody-here/talk.jsonl")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "mine.jsonl"]


def test_text_without_a_template_is_continued_line_by_line(session, ended, tmp_path):
    chat = session("text", chats=False)
    ended(" a ball")
    ended(" a cat")
    told(chat, "red is", "small is", f"/save {tmp_path}/t.jsonl")
    assert chat.last.prompt == "small is"
    rows = load_demonstrations([DatasetEntry(path=f"{tmp_path}/t.jsonl")], on_bad_row="stop", seed=0).rows
    assert [(row.prompt, row.completion) for row in rows] == [("red is", " a ball"), ("small is", " a cat")]
    assert "without a chat template" in told(chat, "/system x")


def rankings(tmp_path):
    return load_rankings([DatasetEntry(path=str(tmp_path / "p.jsonl"))], on_bad_row="stop", seed=0).rows


def test_a_preference_is_a_row_and_the_talk_goes_on_from_its_answer(session, ended, tmp_path):
    chat = session("run", "base", "other")
    ended(" a ball", " a cat", " a dog")
    told(chat, "hello", "/prefer 2")
    assert chat.talk.turns == [("hello", " a cat", True)]
    ended(" one", " two", " two")
    told(chat, "go on", "/prefer tie")
    first, second = rankings(tmp_path)
    assert first.prompt == [{"role": "user", "content": "hello"}]
    assert first.responses == [" a ball", " a cat", " a dog"]
    assert [(p.first, p.second, p.probability, p.status) for p in first.pairs] == [(1, 0, 1.0, "ok"), (1, 2, 1.0, "ok")]
    assert [(p.first, p.second, p.probability, p.status) for p in second.pairs] == [
        (0, 1, 0.5, "tie"),
        (0, 2, 0.5, "tie"),
    ]
    assert second.prompt[1]["content"] == " a cat"
    records = first.provenance["sampled_tokens"]
    assert [[bool(ids) for ids in record["response_ids"]] for record in records] == [
        [True, True, False],
        [False, False, True],
    ]  # the third has another tokenizer
    assert second.provenance["sampled_tokens"][0]["response_ids"][0] == chat.last.answers[0].ids


def test_a_preference_is_corrected_in_its_row(session, ended, tmp_path):
    chat = session("run", "base", "other")
    ended(" a ball", " a cat", " a dog")
    told(chat, "hello", "/prefer 1", "/prefer 3")
    [row] = rankings(tmp_path)
    assert {pair.first for pair in row.pairs} == {2}
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "x", "responses": ["a", "b"], "pairs": []}) + "\n")
    assert "has changed since" in told(chat, "/prefer 2")


def test_what_cannot_be_compared_is_no_row(session, ended, tmp_path):
    one, chat = session("run"), session("run", "base", "other")
    ended(" a")
    told(one, "hi")
    assert "start `alignment chat RUN RUN2`" in told(one, "/prefer 1")
    ended(" same", " same", " same")
    told(chat, "hi")
    assert "write one of 1, 2, 3, or tie" in told(chat, "/prefer 4")
    assert "are the same text" in told(chat, "/prefer 1")
    ended(" a", " ", " c")
    told(chat, "hi")
    assert "answer 2 has no words" in told(chat, "/prefer 1")
    chat.last.answers[0].most = 99
    chat.last.answers[0].ids = [40]
    assert "stopped by Ctrl-C" in told(chat, "/prefer 1")
    assert not (tmp_path / "p.jsonl").exists()


def test_a_file_of_other_rows_is_refused(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "x", "chosen": "y", "rejected": "z"}\n')
    with pytest.raises(RecipeError, match="holds rows without prompt, responses and pairs"):
        Preferences(tmp_path / "p.jsonl")
    with pytest.raises(RecipeError, match=r"ends in \.jsonl"):
        Preferences(tmp_path / "p.json")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(RecipeError, match="not a regular file"):
        Preferences(tmp_path / "folder.jsonl")


def test_a_row_that_was_cut_off_is_refused_and_a_whole_one_goes_on(tmp_path):
    path = tmp_path / "p.jsonl"
    row = '{"prompt": "a", "responses": ["b", "c"], "pairs": []}'
    path.write_text(row[:-5])
    with pytest.raises(AlignmentError, match=r"p\.jsonl:1: not JSON"):
        Preferences(path)
    path.write_text(row)  # without the end of its line
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    Preferences(link).append({"prompt": "d"}, replaces=False)
    assert link.is_symlink()
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == ["a", "d"]


def test_a_model_without_memory_left_is_a_line(session, monkeypatch):
    def full(*given):
        raise torch.cuda.OutOfMemoryError("no room")
        yield

    monkeypatch.setattr(Answering, "write", full)
    chat = session("run")
    assert "no memory left" in told(chat, "hello")


def test_reward_and_dpo_train_on_the_rows_as_they_are(session, ended, place, tmp_path):
    chat = session("run", "base", "other")
    for words in ("hello", "go on", "and then"):
        ended(f" a ball {words}", " a cat", " a dog")
        told(chat, words, "/prefer 2")
    for stage, module in (("reward", recipes.reward), ("dpo", recipes.dpo)):
        recipe = {
            "stage": stage, "model_name_or_path": str(place / "base"), "output_dir": str(tmp_path / stage), "lora_r": 2,
            "datasets": [{"path": str(tmp_path / "p.jsonl")}], "max_steps": 1, "save_strategy": "no", "use_cpu": True,
        }  # fmt: skip
        (tmp_path / f"{stage}.yaml").write_text(json.dumps(recipe))
        module.main(["--config", str(tmp_path / f"{stage}.yaml")])
        found = json.loads((tmp_path / stage / "manifest.json").read_text())
        assert (found["status"], found["train"]["pairs" if stage == "reward" else "rows"]) == ("finished", 6)
        assert found["prompt_kind"] == "messages"
