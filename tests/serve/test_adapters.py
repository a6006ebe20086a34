"""Adapters that requests load and unload, on vLLM's paths."""

import shutil
import threading

import openai
import pytest

from alignment.serve.faults import ApiError
from tests.models import save_tiny_model
from tests.policy.test_many_adapters import saved
from tests.serve.test_bad_input import refused

WORDS = "Please tell me a story"
LOAD, UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"


@pytest.fixture
def load(running):
    """Loads adapters, and unloads them in the end."""
    names = []

    def work(name, path):
        names.append(name)
        return running.post(LOAD, {"lora_name": name, "lora_path": str(path)})

    yield work
    for name in names:
        running.post(UNLOAD, {"lora_name": name})


@pytest.fixture(scope="module")
def more(base, folders):
    """Another adapter in the allowed folder."""
    return saved(base, folders["one"].parent / "more", "LORA", 9, r=3)


def test_an_adapter_comes_and_goes(running, load, more):
    before = running.text(model="one", prompt=WORDS, max_tokens=8, temperature=0)
    assert load("new", more) == (200, "Success: LoRA adapter 'new' added successfully.")
    assert "new" in [model.id for model in running.client.models.list().data]
    text = running.text(model="new", prompt=WORDS, max_tokens=8, temperature=0)
    assert text != before
    assert running.post(UNLOAD, {"lora_name": "new"}) == (200, "Success: LoRA adapter 'new' removed successfully.")
    with pytest.raises(openai.NotFoundError):
        running.text(model="new", prompt=WORDS)
    assert load("new", more)[0] == 200
    assert running.text(model="new", prompt=WORDS, max_tokens=8, temperature=0) == text
    assert running.text(model="one", prompt=WORDS, max_tokens=8, temperature=0) == before


def test_an_adapter_stays_until_its_answers_are_written(running, load, more):
    load("new", more)
    asked = {"model": "new", "prompt": WORDS, "max_tokens": 200, "seed": 1, "logit_bias": {"1": -100}}
    expected = running.text(**asked)
    found = []
    writing = threading.Thread(target=lambda: found.append(running.text(**asked)))
    engine = running.models.engines[0]
    while engine.in_flight:  # the answer above leaves after its last piece
        pass
    writing.start()
    while not any(len(answer.ids) > 3 for answer in list(engine.rows)):
        pass
    assert running.post(UNLOAD, {"lora_name": "new"})[0] == 200
    assert load("new", more)[0] == 200
    writing.join()
    assert found == [expected]


def test_an_adapter_stays_until_the_prompts_of_a_request_are_read(running, load, more):
    load("new", more)
    models = running.models
    with models.using("new") as served:  # as a request does before its answers are in the queue
        engine = served.base.engine
        assert running.post(UNLOAD, {"lora_name": "new"})[0] == 200
        for _ in range(2):  # the engine has looked for adapters that are unused
            engine.between_steps(lambda: None).result()
        assert len(engine.prompt_logps([5, 6, 7], served.adapter, 1).result()) == 2
    for _ in range(2):
        engine.between_steps(lambda: None).result()
    assert served.adapter not in served.base.held.names
    with pytest.raises(ApiError, match="does not exist"), models.using("new"):
        pass


@pytest.mark.parametrize("make", ["outside", "link", "above", "missing", "file"])
def test_only_folders_that_the_command_line_allows_are_read(running, load, base, folders, tmp_path, make):
    allowed = folders["one"].parent
    path = {
        "outside": tmp_path / "outside",
        "link": allowed / "link",
        "above": f"{allowed}/../base",
        "missing": allowed / "nothing",
        "file": folders["one"] / "adapter_config.json",
    }[make]
    if make == "outside":
        shutil.copytree(folders["one"], path)
    if make == "link":
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path)
    status, message, param, _ = refused(running, LOAD, {"lora_name": "new", "lora_path": str(path)})
    assert (status, param) == (404 if make in ("missing", "file") else 403, "lora_path")
    assert "--adapters" in message or "is not a folder" in message


@pytest.mark.parametrize("make", ["another base", "damaged", "not an adapter", "prompt"])
def test_an_adapter_that_cannot_be_used_is_refused(running, base, folders, tmp_path_factory, make):
    path = folders["one"].parent / make.replace(" ", "_")
    if not path.exists():
        if make == "another base":
            saved(save_tiny_model(tmp_path_factory.mktemp("other") / "base", seed=5), path, "LORA", 1, r=2)
        elif make == "prompt":
            saved(base, path, "PROMPT_TUNING", 1, num_virtual_tokens=4)
        else:
            shutil.copytree(folders["one"], path)
            file = "adapter_model.safetensors" if make == "damaged" else "adapter_config.json"
            (path / file).write_bytes((path / file).read_bytes()[:40])
    status, message, *_ = refused(running, LOAD, {"lora_name": "new", "lora_path": str(path)})
    assert status == 400
    assert message.startswith("loading 'new' failed: ")
    if make == "another base":
        assert "is an adapter of another base" in message
    assert [model.id for model in running.client.models.list().data] == ["base", *folders]


def test_names_are_used_once(running, folders):
    for name in ("one", "base"):
        status, message, *_ = refused(running, LOAD, {"lora_name": name, "lora_path": str(folders["two"])})
        assert (status, f"a model '{name}' is loaded already" in message) == (400, True)
    assert refused(running, UNLOAD, {"lora_name": "base"})[0] == 400
    assert refused(running, UNLOAD, {"lora_name": "nobody"})[0] == 404


@pytest.mark.parametrize("body", [{}, {"lora_name": 3}, {"lora_name": "x"}, {"lora_name": "x\n", "lora_path": "/"}, []])
def test_a_body_that_names_no_adapter(running, body):
    assert refused(running, LOAD, body)[0] == 400
