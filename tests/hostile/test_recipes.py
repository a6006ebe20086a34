"""Recipes, pipelines and command lines with hostile values in every place: refused in lines, or they run.

No traceback, no key in what is told or written, and an end in seconds.
"""

import copy
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.config import check_file, load_recipe
from alignment.config.schema import STAGES
from alignment.errors import AlignmentError, Done, RecipeError
from alignment.launch.request import Wanted, checked
from alignment.train.trial import require_accepted
from tests.config.test_loading import MINIMAL, RULES_JUDGE
from tests.config.test_secrets import KEYS
from tests.hostile.training import make_world, write_recipe

pytestmark = pytest.mark.hostile

SECONDS = 30.0  # for one refusal; it takes well under one where the machine is idle
LONGEST = 2_000  # characters of a fault's line
CHAT = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "NAME", "prices":
        {"prompt": 1.0, "completion": 2.0}, "extra_body": {"a": {"b": [1]}}, "timeout_seconds": 1.0}  # fmt: skip
TRAINING = {
    "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_steps": 2, "logging_steps": 5, "save_steps": 10,
    "optim": "adamw_torch", "adam_beta2": 0.98, "test_split_size": 0.5, "lora_target_modules": ["q_proj"],
    "per_device_train_batch_size": 2, "report_to": "none", "dataloader_num_workers": 0, "weight_decay": 0.1,
}  # fmt: skip
RICH: dict[str, dict[str, Any]] = {
    "sft": MINIMAL["sft"] | TRAINING | {"max_length": 64, "packing": False, "num_train_epochs": 1},
    "label": MINIMAL["label"]
    | {"judge": {"kind": "jury", "members": [CHAT, RULES_JUDGE]}, "gate": {"gold": "g", "min_kappa": 0.5}},
    "reward": MINIMAL["reward"] | TRAINING | {"num_members": 2, "ties": "half", "max_steps": 5},
    "dpo": MINIMAL["dpo"] | TRAINING | {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.1},
    "ppo": {
        **MINIMAL["ppo"], "kl_coef": 0.1, "rollout_batch_size": 64, "normalize_scores": "running",
        "watch_scorers": [
            {"kind": "http", "url": "http://127.0.0.1:9/", "name": "w"},
            {"kind": "judge", "judge": CHAT},
        ],
    },
    "evaluate": MINIMAL["evaluate"] | {"judges": [RULES_JUDGE, CHAT], "num_generations": 2, "bootstrap_samples": 10},
}  # fmt: skip
PIPELINE = {
    "name": "p", "output_dir": "runs/p", "rounds": 2,
    "stages": [
        {"name": "a", "command": ["m", "--seed", "0"], "outputs": ["o"]},
        {"name": "b", "recipe": "sft.yaml", "each_round": True, "overrides": {"max_samples": 5}},
    ],
}  # fmt: skip
SECRETS = (*KEYS, "https://me:hunter-22@host/v1", "https://host/v1?api_key=hunter-22")
TEXTS = (
    "", " ", "\n", "a\nb", "\x1b[31m", "\u2028", "\u0085", "é", "𝕏" * 50, "x" * 5_000, "/", ".", "..", "~", "$HOME",
    "/dev/zero",
    "-1", "nan", "1e400", "null", "true", "[", "{", "(", "*", "%s", "{0}", "{{ x }}", "auto", "all", "none",
    "http://", "://x",
    "http://[::1", "a:b", "os:system", "a" * 300, "a/" * 3_000, "--help", "0", "٣",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 10**6, 10**12, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 0.0, -0.0, 0.5, 1.0, 1.5, -1e-9, 1e-300, 1e9,
    1e300, math.inf, -math.inf, math.nan,
)  # fmt: skip
SNIPPETS = (
    "!!binary aGk=", "!!int abc", "!!bool maybe", "!!set {a}", "!!python/object:x.y {}", "&a [*a]", "*a", "<<: 3",
    "{<<: *b}", "\t", "? [a]", "%YAML 9.9", "---", "...", "\ufeff", "[" * 200, "{a: " * 200,
    "9" * 5_000, "0x" + "f" * 5_000, "- - -",
    "'",
    '"\\ud800"', '"\\0"', '"\\Uffffffff"', "!!timestamp 2001-01-01", "!<tag:x> y", "|\n x", ">-", "a: b: c", "@x", "`x",
    "\u0085",
)  # fmt: skip


def nested(value: Any, depth: int) -> Any:
    return value if depth == 0 else [nested(value, depth - 1)] if depth % 2 else {"a": nested(value, depth - 1)}


VALUES = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.sampled_from(SECRETS),
    st.sampled_from([None, True, False, [], {}, [[]], {"a": None}, ["a", 1, None], [{}], {"kind": "x"}]),
    st.integers(0, 60).map(lambda depth: nested(1, depth)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.floats(),
    st.integers(-(10**30), 10**30),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The document with another value in one place."""
    document = copy.deepcopy(document)
    inner: Any = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return document


@st.composite
def mutations(draw: Any, document: dict[str, Any]) -> str:
    """A document's text with one to three hostile values, keys or pieces of YAML in it."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(sorted(places(document), key=str)))
        how = draw(st.sampled_from(["value", "value", "value", "key", "drop"]))
        if how == "value":
            document = changed(document, place, draw(VALUES))
        elif how == "key":
            name = draw(st.sampled_from((*TEXTS, *KEYS, "learning_rate", "deepspeed", "api_key", "password", "fsdp")))
            document = changed(document, (*(() if isinstance(place[-1], int) else place[:-1]), name), draw(VALUES))
        else:
            document = changed(document, place, None)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        lines = text.split("\n")
        line = draw(st.integers(0, len(lines) - 1))
        lines[line] = lines[line].split(":")[0] + ": " + draw(st.sampled_from(SNIPPETS))
        text = "\n".join(lines)
    return text


def require_plain(error: AlignmentError) -> None:
    """What is told is lines for people, and shows no key."""
    told = str(error)
    for line in told.split("\n"):
        assert 0 < len(line) < LONGEST
        assert line.isprintable(), ascii(line)
    assert "hunter" not in told
    assert not any(key in told for key in KEYS)
    told.encode()


def check(path: str) -> None:
    begun = time.monotonic()
    try:
        require_accepted(check_file(path), here=False)
    except RecipeError as error:
        require_plain(error)
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("stage", list(RICH))
@settings(max_examples=150)
@given(data=st.data())
def test_a_hostile_recipe_is_refused_or_loads(tmp_path_factory, stage, data):
    folder = tmp_path_factory.getbasetemp()
    file = folder / f"hostile-{stage}.yaml"
    text = data.draw(mutations({"stage": stage} | RICH[stage]))
    file.write_text(text, encoding="utf-8")
    before = sorted(os.listdir(folder))
    check(str(file))
    assert sorted(os.listdir(folder)) == before
    if any(key in text for key in KEYS) or "hunter" in text:  # none is accepted
        with pytest.raises(RecipeError):
            check_file(str(file))


@settings(max_examples=100)
@given(text=mutations(PIPELINE))
def test_a_hostile_pipeline_is_refused_or_loads(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    (folder / "sft.yaml").write_text(yaml.safe_dump({"stage": "sft"} | MINIMAL["sft"] | {"output_dir": "runs/p/b"}))
    file = folder / "hostile-pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    check(str(file))


WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            ["--judge.model", "--datasets.0.path", "--datasets.-1.path", "--datasets.9.path", "--a" + ".a" * 90, "--"]
        ),
        st.sampled_from(
            ["--output_dir", "--seed", "--learning_rate", "--=", "--.", "--a..b", "--judge", "-x", "--config"]
        ),
        st.sampled_from([str(number) for number in NUMBERS]),
        st.sampled_from(TEXTS),
        st.sampled_from(SNIPPETS),
        st.sampled_from(SECRETS),
        st.sampled_from([f"--{name}={key}" for name in ("judge.api_key_env", "hub_token", "a") for key in SECRETS]),
        st.text(max_size=10),
        st.sampled_from(["\udc80", "--\udc80", "--a=\udcff", "9" * 5_000]),
    ),
    max_size=6,
)


@settings(max_examples=300)
@given(words=WORDS, stage=st.sampled_from(sorted(RICH)))
def test_a_hostile_command_line_is_refused_or_loads(tmp_path_factory, words, stage):
    file = tmp_path_factory.getbasetemp() / f"words-{stage}.yaml"
    file.write_text(yaml.safe_dump({"stage": stage} | RICH[stage]))
    begun = time.monotonic()
    for load in (
        lambda: load_recipe(stage, ["--config", str(file), *words]),
        lambda: checked(Wanted(str(file), place="slurm", overrides=tuple(words))),
    ):
        try:
            load()
        except Done:
            assert "--help" in words or "-h" in words
        except RecipeError as error:
            require_plain(error)
    assert time.monotonic() - begun < SECONDS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


RUN = {  # places of a recipe that runs, and values that are in its range
    "sft": [
        "learning_rate",
        "max_steps",
        "logging_steps",
        "save_steps",
        "seed",
        "lora_r",
        "max_length",
        "optim",
        "packing",
    ],
    "reward": ["learning_rate", "max_steps", "center_rewards_coefficient", "label_smoothing", "warmup_steps", "lora_r"],
    "dpo": ["learning_rate", "max_steps", "beta", "loss_type", "label_smoothing", "ld_alpha", "max_grad_norm"],
    "ppo": ["learning_rate", "kl_coef", "gamma", "cliprange", "temperature", "top_k", "top_p", "lora_r", "reward_clip"],
}


@pytest.mark.parametrize("stage", list(RUN))
@settings(max_examples=12)
@given(data=st.data())
def test_accepted_recipes_run_or_end_in_a_line(world, tmp_path_factory, stage, data):
    out = tmp_path_factory.mktemp("run") / "out"
    keys = {data.draw(st.sampled_from(RUN[stage])): data.draw(VALUES) for _ in range(2)}
    given_keys = {} if stage == "ppo" else {"max_steps": 2}
    argv = write_recipe(world, stage, out, **{**given_keys, **keys})
    if keys.get("max_steps") not in (None, 1, 2):
        return  # a long run is no fault
    before = dict(os.environ)
    begun = time.monotonic()
    try:
        importlib.import_module(f"recipes.{stage}").main(argv)
    except AlignmentError as error:
        require_plain(error)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert time.monotonic() - begun < 4 * SECONDS
    for file in out.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not any(key.encode() in content for key in KEYS)
        assert b"hunter-22" not in content


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "bomb": BOMB,
    "deep": "a: " + "[" * 50_000,
    "digits": "stage: sft\nseed: " + "9" * 5_000,
    "list": "a: [" + "1, " * 1_000_000 + "]",
    "key": f"stage: ppo\nrun_name: {KEYS[0]}\n",
    "binary": "\x7fELF\x00\x01\x02",
    "generations": yaml.safe_dump({"stage": "label"} | MINIMAL["label"] | {"num_generations": 10**12}),
    "regex": yaml.safe_dump({"stage": "sft"} | MINIMAL["sft"] | {"lora_target_modules": "(.*)*x"}),
    "deepspeed": yaml.safe_dump({"stage": "sft"} | MINIMAL["sft"] | {"deepspeed": "nope.json"}),
    "optimizer": yaml.safe_dump({"stage": "sft"} | MINIMAL["sft"] | {"optim_args": "a"}),
}


VERBS = ("plan", "doctor", "launch", "run", "sft")
CALLS = [
    (verb, name) for place, name in enumerate(FILES) for verb in ("check", VERBS[place % 5], VERBS[(place + 2) % 5])
]


@pytest.mark.parametrize(("verb", "name"), CALLS)
def test_every_verb_refuses_in_lines(tmp_path, verb, name):
    file = tmp_path / "r.yaml"
    file.write_text(FILES[name])
    words = {"sft": ["sft", "--config"], "launch": ["launch", "--on", "slurm"]}.get(verb, [verb])
    run = subprocess.run(
        [sys.executable, "-m", "alignment.cli", *words, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    said = run.stdout + run.stderr
    assert run.returncode in (1, 2), said
    assert "Traceback" not in said
    assert "unexpected error" not in said
    assert KEYS[0] not in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.yaml"]
    assert json.dumps(said)


@pytest.mark.parametrize("stage", [name for name, cls in STAGES.items() if cls.STAGE.metrics])
def test_the_metrics_that_may_find_the_best_model_are_those_of_an_evaluation(world, tmp_path, stage):
    keys = {"max_steps": 2, "test_split_size": 0.4, "eval_strategy": "steps", "eval_steps": 2}
    importlib.import_module(f"recipes.{stage}").main(write_recipe(world, stage, tmp_path / "out", **keys))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().split("\n") if line]
    measured = {key.removeprefix("eval_") for row in rows for key in row if key.startswith("eval_")}
    assert measured == set(STAGES[stage].STAGE.metrics)
