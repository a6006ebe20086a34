"""Nothing in a folder that a command reads decides what code runs, which files are read or which addresses are called.

Every command is driven over a folder of every sort. What must not happen is watched three ways: code in a folder leaves
a file, an audit hook of the interpreter sees every file that is opened and every address that is connected to.
"""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.tokenizer import load_tokenizer
from reward.models.ensemble import Ensemble
from tests.hostile import hostile_folders
from tests.hostile.hostile_folders import Bait
from tests.models import save_tiny_model

pytestmark = pytest.mark.hostile


class Watch:
    """Sees what the interpreter opens, connects to and imports while it is on."""

    def __init__(self) -> None:
        self.bait: Bait | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)  # there is no way to take one away

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.bait is None:
            return
        words = " ".join(str(argument) for argument in arguments[:2])
        port = self.bait.address.rpartition(":")[2]
        if event == "open" and str(self.bait.secret) in words:
            self.seen.append(f"opened {words}")
        elif event == "socket.connect" and port in words:
            self.seen.append(f"connected to {words}")
        elif event == "import" and self.bait.module in words:
            self.seen.append(f"imported {words}")

    @contextlib.contextmanager
    def over(self, bait: Bait) -> Iterator[None]:
        """Fail where anything of the bait is touched inside."""
        self.bait, self.seen = bait, []
        try:
            yield
        finally:
            self.bait = None
        assert not self.seen
        assert not bait.canary.exists()


WATCH = Watch()


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    root = tmp_path_factory.mktemp("bait")
    (root / "secrets").mkdir()
    secret = root / "secrets" / "the-secret-file"
    secret.write_text("{% for m in messages %}the-secret-text {{ m.role }} {{ m.content }}{% endfor %}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Bait(root / "canary", secret, f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, an adapter of a policy and one of a reward model, and files of data, all harmless."""
    root = tmp_path_factory.mktemp("plain")
    found = {"model": save_tiny_model(root / "model", max_position_embeddings=2048)}

    class Keys(ModelKeys, AdapterKeys):
        """What a recipe gives."""

    keys = Keys(model_name_or_path=str(found["model"]), lora_r=2)
    for name, load in (("policy", load_causal_lm), ("reward", load_sequence_classifier)):
        load(keys, trainable=True, peft=keys).save_pretrained(root / name)
        load_tokenizer(keys).save_pretrained(root / name)
        found[name] = root / name
    rows = [{"prompt": f"the fox {n}", "chosen": "thank you", "rejected": "no"} for n in range(8)]
    for name, keep in (("pairs", None), ("prompts", ("prompt",)), ("answers", None)):
        found[name] = root / f"{name}.jsonl"
        kept = [{key: row[key] for key in keep or row} for row in rows]
        kept = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows] if name == "answers" else kept
        found[name].write_text("".join(json.dumps(row) + "\n" for row in kept))
    return found


@pytest.fixture(autouse=True)
def process(tmp_path: Path, bait: Bait, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder that holds the module that folders name, and leave this process as it is."""
    (tmp_path / f"{bait.module}.py").write_text(f"from pathlib import Path\nPath({str(bait.canary)!r}).touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alignment.run.script.os._exit", sys.exit)
    monkeypatch.setattr("alignment.run.script.end_on_signals", lambda: None)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def alignment(*words: Any) -> str:
    """Run the command and return what it printed; it may end well or with a message, never with a traceback."""
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), (words, ended.exception)
    assert ended.exit_code in (0, 1, 2, 3), (words, ended.output)
    assert "the-secret-text" not in ended.output
    return ended.output


def recipes(model: Any, plain: dict[str, Path], *, reward: Any = None) -> list[dict[str, Any]]:
    """Return a short recipe of every stage, with a folder in each role that a model can have."""
    train = {"max_steps": 1, "per_device_train_batch_size": 2, "lora_r": 2, "save_strategy": "no"}
    pairs, prompts = [{"path": str(plain["pairs"])}], [{"path": str(plain["prompts"])}]
    policy, scored = {"model_name_or_path": str(model)}, str(reward or model)
    ppo = {"total_episodes": 2, "rollout_batch_size": 2, "max_new_tokens": 2, "lora_r": 2, "num_ppo_epochs": 1,
           "per_device_train_batch_size": 2}  # fmt: skip
    base = {"model_name_or_path": str(plain["model"])}
    rules = {"kind": "rules", "function": "tests.evaluate.rules:shorter"}
    local = {"kind": "local", "model_name_or_path": str(model)}
    label = {"num_generations": 2, "max_new_tokens": 2, "datasets": prompts, "max_failure_share": 1.0}
    evaluate = {"datasets": prompts, "max_new_tokens": 2}
    return [
        {"stage": "sft", **policy, **train, "datasets": [{"path": str(plain["answers"])}]},
        {"stage": "reward", **policy, **train, "datasets": pairs},
        {"stage": "dpo", **policy, **train, "datasets": pairs},
        {"stage": "ppo", **policy, **ppo, "datasets": prompts, "reward_model_path": str(plain["reward"])},
        {"stage": "ppo", **base, **ppo, "datasets": prompts, "reward_model_path": scored},
        {"stage": "ppo", **base, **ppo, "datasets": prompts, "value_model": "model", "value_model_path": scored,
         "reward_model_path": str(plain["reward"])},
        {"stage": "label", **policy, **label, "judge": rules},
        {"stage": "label", **base, **label, "judge": local},
        {"stage": "label", **base, **label, "judge": {"kind": "reward_model", "model_name_or_path": scored}},
        {"stage": "evaluate", **base, **evaluate, "judges": [rules],
         "candidates": [{"name": "one", "model_name_or_path": str(model)}], "reward_model_path": scored},
    ]  # fmt: skip


def run_stages(given: list[dict[str, Any]], folder: Path) -> list[str]:
    """Run recipes; what each printed."""
    printed = []
    for place, recipe in enumerate(given):
        file = folder / f"recipe_{place}.yaml"
        file.write_text(json.dumps({**recipe, "output_dir": recipe.get("output_dir", str(folder / f"run_{place}"))}))
        printed.append(alignment(recipe["stage"], "--config", file))
    return printed


def read_as_model(folder: Path, plain: dict[str, Path], tmp_path: Path) -> None:
    """Drive every command that reads a model over a folder."""
    alignment("score", folder, plain["answers"])
    alignment("bench", folder, plain["pairs"])
    alignment("merge", folder, tmp_path / "merged")
    alignment("report", folder, "--out", tmp_path / "report.html")
    with contextlib.suppress(Exception):  # what serve-reward loads before it listens
        Ensemble.load(str(folder))
    given = recipes(folder, plain)
    file = tmp_path / "plan.yaml"
    file.write_text(json.dumps({**given[0], "output_dir": str(tmp_path / "planned")}))
    for verb in ("check", "plan", "doctor", "preview"):
        alignment(verb, file)
    run_stages(given, tmp_path)


MODELS = [
    "code_own_code_policy", "code_own_code_reward", "code_llama_policy", "code_llama_reward", "records",
    "config_attn_implementation_5", "config_attn_implementation_6", "config_experts_implementation_7",
    "config_transformers_weights_8", "config_fusion_config_9", "config_distributed_config_10",
    "config_quantization_config_11", "generation", "tokenizer_vocab_file", "tokenizer_tokenizer_file",
    "tokenizer_init_inputs", "tokenizer_chat_template", "tokenizer_tokenizer_class", "template_link",
    "template_includes", "index", "only_pickles", "members",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, bait: Bait) -> dict[str, Path]:
    found = hostile_folders.models(tmp_path_factory.mktemp("models"), bait)
    assert sorted(found) == sorted(MODELS)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_models_folder_decides_nothing(name, models, plain, bait, tmp_path):
    with WATCH.over(bait):
        read_as_model(models[name], plain, tmp_path)


ADAPTERS = ["megatron", "mapping", "corda", "lora_ga", "xlora", "multitask", "base_address", "base_code", "base_secret"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, bait, plain, models):
    root = tmp_path_factory.mktemp("adapters")
    return hostile_folders.adapters(root, bait, plain["policy"], plain["reward"], models["code_own_code_policy"])


@pytest.mark.parametrize("kind", ["policy", "reward"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapters_folder_decides_nothing(name, kind, adapters, plain, bait, tmp_path):
    with WATCH.over(bait):
        read_as_model(adapters[f"adapter_{name}_{kind}"], plain, tmp_path)


@pytest.mark.parametrize("name", ["data_script", "saved_image_file", "saved_image_address", "saved_state", "labels"])
def test_a_folder_of_data_or_labels_decides_nothing(name, plain, bait, tmp_path, tmp_path_factory):
    folder = hostile_folders.data(tmp_path_factory.mktemp("data"), bait)[name]
    given = [{**recipe, "datasets": [{"path": str(folder)}]} for recipe in recipes(plain["model"], plain)]
    with WATCH.over(bait):
        alignment("audit", folder, "--out", tmp_path / "audit.html")
        alignment("mix", folder, "--output", tmp_path / "mixed.jsonl", "--bootstrap", "0")
        alignment("annotate", folder, "--export", "--output", tmp_path / "people.jsonl")
        alignment("report", folder, "--out", tmp_path / "report.html")
        alignment("bench", plain["reward"], folder)
        run_stages(given, tmp_path)
        if name == "labels":
            run_stages([{**recipe, "output_dir": str(folder), "reparse": True} for recipe in given[6:9]], tmp_path)


@pytest.mark.parametrize("place", range(10))
def test_an_interrupted_run_decides_nothing(place, plain, bait, tmp_path):
    recipe = recipes(plain["model"], plain, reward=plain["reward"])[place]
    recipe |= {"output_dir": str(tmp_path / "run")} | ({"save_strategy": "steps"} if "save_strategy" in recipe else {})
    hostile_folders.interrupted(tmp_path / "run", recipe, bait)
    with WATCH.over(bait):
        run_stages([recipe], tmp_path)
        alignment("report", tmp_path / "run", "--out", tmp_path / "report.html")
        run_stages([{**recipe, "overwrite": True}], tmp_path)


def test_a_report_shows_what_a_run_recorded_as_text(plain, bait, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    hostile_folders.lies(folder, bait)
    alignment("report", folder, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert '="javascript:' not in page


def test_the_recipes_above_do_run_where_the_folders_are_harmless(plain, bait, tmp_path):
    """Where a recipe had a fault of its own, the tests above would stop at it."""
    with WATCH.over(bait):
        printed = run_stages(recipes(plain["model"], plain, reward=plain["reward"]), tmp_path)
    for place, text in enumerate(printed):
        file = tmp_path / f"run_{place}" / "manifest.json"
        assert file.is_file(), text
        assert json.loads(file.read_text())["status"] == "finished", text


def test_the_watch_sees_what_it_is_there_for(bait, tmp_path):
    """Each of the three ways is tried once: a watch that sees nothing would let every test above pass."""
    port = int(bait.address.rpartition(":")[2])
    with pytest.raises(AssertionError), WATCH.over(bait):
        bait.secret.read_text()
    with pytest.raises(AssertionError), WATCH.over(bait), socket.create_connection(("127.0.0.1", port)):
        pass
    seen = threading.Thread(target=bait.canary.touch)
    seen.start()
    seen.join()
    with pytest.raises(AssertionError), WATCH.over(bait):
        pass
    bait.canary.unlink()
