"""A model's files, each changed in every way: the model loads, or one line names what is wrong."""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.data.template import Template
from alignment.errors import AlignmentError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.tokenizer import load_tokenizer
from reward.models.ensemble import Ensemble
from tests.models import save_tiny_model

pytestmark = pytest.mark.hostile

SLOWEST_SECONDS = 60  # of a busy machine; without bounds some of these take hours
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**6, 10**9, 2**63, 10**30, 1.5, -0.0, 1e300, float("nan"), float("inf"), "", "x",
    "4", "/etc/passwd", "http://127.0.0.1:9/x", "owner/name", "(.+)+!", "{% for", "\u2028", "\ud800", "x" * 100_000, [],
    [1], ["x"], [None], [[]], {}, {"a": 1}, {"": None}, {"0": "x"}, [10**9] * 100, ["x"] * 20_000,
]  # fmt: skip
FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
ALL = (*FILES, "tokenizer.json", "chat_template.jinja", "model.safetensors", "adapter_model.safetensors")


class Keys(ModelKeys, AdapterKeys):
    """What a recipe gives."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sound")
    found = {"model": save_tiny_model(root / "model")}
    keys = Keys(model_name_or_path=str(found["model"]), lora_r=2)
    for name, load in (("policy", load_causal_lm), ("reward", load_sequence_classifier)):
        load(keys, trainable=True, peft=keys).save_pretrained(root / name)
        load_tokenizer(keys).save_pretrained(root / name)
        found[name] = root / name
    return found


def use(folder: Path, kind: str) -> str | None:
    """Load a folder as commands do; the message where it is refused."""
    begin = time.monotonic()
    try:
        if kind == "reward":
            Ensemble.load(str(folder)).score(["the fox"], ["thank you"])
        else:
            keys = Keys(model_name_or_path=str(folder))
            template = Template(load_tokenizer(keys))
            template.answer_ids([{"role": "user", "content": "the fox"}], "thank you")
            load_causal_lm(keys, trainable=True, peft=keys)
            load_sequence_classifier(keys, trainable=True, peft=keys, pad_token_id=0)
    except AlignmentError as error:
        found = str(error)
    else:
        found = None
    assert time.monotonic() - begin < SLOWEST_SECONDS
    assert found is None or ("\n" not in found.strip() and len(found) < 2000)
    return found


def copy_of(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(folder, to)


def keys_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, at most three deep."""
    found = [path] if path else []
    if isinstance(value, dict) and len(path) < 3:
        for key in list(value)[:60]:
            found += keys_of(value[key], (*path, key))
    return found


def put(whole: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        whole = whole[key]
    whole[path[-1]] = value


@pytest.mark.filterwarnings("ignore")  # peft warns of strange values that it can use
@pytest.mark.parametrize("kind", ["model", "policy", "reward"])
@pytest.mark.parametrize("name", FILES)
def test_every_key_with_a_strange_value(folders, tmp_path, kind, name):
    file = folders[kind] / name
    if not file.is_file():
        pytest.skip(f"a {kind} has no {name}")
    draw = random.Random(f"{kind} {name}")
    sound = json.loads(file.read_text())
    for path in keys_of(sound):
        for value in draw.sample(STRANGE, 5):
            folder = copy_of(folders[kind], tmp_path / "changed")
            changed = json.loads(file.read_text())
            put(changed, path, value)
            (folder / name).write_text(json.dumps(changed))
            use(folder, kind)


@pytest.mark.filterwarnings("ignore")  # peft warns of strange values that it can use
@pytest.mark.parametrize("kind", ["model", "policy", "reward"])
@pytest.mark.parametrize("name", ALL)
def test_every_file_damaged(folders, tmp_path, kind, name):
    """Cut off, empty, with bytes changed, nested deeply, absent: never a traceback."""
    file = folders[kind] / name
    if not file.is_file():
        pytest.skip(f"a {kind} has no {name}")
    draw, sound = random.Random(f"{kind} {name}"), file.read_bytes()
    broken = [b"", b"\x00", b"{}", b"[]", b"null", sound[: len(sound) // 2], sound[:-1], sound + b"}", b"[" * 100_000]
    broken += [b'{"a":' * 50_000, b"\xef\xbb\xbf" + sound, sound.decode("latin-1").encode("utf-16")]
    for _ in range(8):
        bytes_ = bytearray(sound)
        for _ in range(draw.choice((1, 1, 20))):
            bytes_[draw.randrange(min(len(bytes_), 4000))] = draw.randrange(256)
        broken.append(bytes(bytes_))
    for content in broken:
        folder = copy_of(folders[kind], tmp_path / "changed")
        (folder / name).write_bytes(content)
        use(folder, kind)
    folder = copy_of(folders[kind], tmp_path / "changed")
    (folder / name).unlink()
    use(folder, kind)
    (folder / name).mkdir()
    use(folder, kind)


def test_sound_folders_load(folders):
    assert [use(folder, kind) for kind, folder in folders.items()] == [None, None, None]
