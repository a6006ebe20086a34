"""Keys in recipes: refused before anything is written, and never shown."""

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from alignment.config import check_file, load_recipe
from alignment.config.schema import STAGES
from alignment.errors import AlignmentError, DataError, RecipeError
from alignment.secrecy import HIDDEN, hidden, hidden_words, is_variable, key_in, key_in_query, without_keys
from tests.config.test_loading import MINIMAL, RULES_JUDGE

KEYS = [  # nobody's: made up in the form of each provider's
    "sk-abcdefghijklmnopqrstuvwx",
    "sk-proj-AbC123_def-456",
    "sk-test-4711-secret",
    "sk-ant-api03-abcdefgh",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "ghp_0123456789abcdef0123456789abcdef0123",
    "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnop",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "xoxb-123456789012-abcdef",
    "glpat-abcdefghij1234567890",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def_ghi",
    "Bearer abcdef1234567890",
    "gsk_abcdefghijklmnopqrstuvwx",
    "nvapi-abcdEFGH1234567890abcdefgh1234567890",
    "pplx-abcdef0123456789abcdef0123456789abcdef",
    "xai-abcdefGHIJ0123456789abcdefghij0123456789",
    "pa-abcdefGHIJKLMNOP1234567890abcdefghij",
    "lsv2_pt_0123456789abcdef0123456789abcdef_0123456789",
    "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
]
WITHOUT_FORM = ["a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6", "vX7bT2qLm9Rk4WzP0sYh3NcD", "0123456789abcdef0123456789abcdef"]
ORDINARY = [
    "Qwen/Qwen3-0.6B-Instruct",
    "data/sk-alpaca-cleaned-v2",
    "risk-aware-model-llama-70b",
    "3f2a9c1b5d7e8f901234567890abcdef12345678",  # a revision
    "claude-sonnet-4-5-20250929",
    "nvidia/Llama-3.1-Nemotron-70B-Reward-HF",
    "https://api.openai.com/v1",
    "https://x.openai.azure.com/openai/deployments/gpt-4o/chat?api-version=2024-05-01-preview",
    "{% for message in messages %}{{ bos_token }}{% endfor %}",
    "The bearer responsibilities are explained",
    "data/pa-instructions-2024-large-version2.jsonl",
    "xai-explainability-dataset-2024",
    "voyage-large-2-instruct-finetuned",
    "runs/Qwen25Coder32BInstructGPTQInt8v3",
]
HTTP = {"kind": "http", "name": "h", "url": "https://host/score"}
CHAT = {"kind": "openai", "model": "m"}


def nested(judge: dict) -> dict[str, dict]:
    """Where a judge may stand: by stage, the keys that hold it."""
    return {
        "label": {"judge": {"kind": "jury", "members": [RULES_JUDGE, judge]}},
        "evaluate": {"judges": [RULES_JUDGE, judge]},
        "ppo": {"reward_model_path": None, "scorers": [{"kind": "judge", "judge": judge}]},
    }


def write(tmp_path: Path, stage: str, given: dict) -> list[str]:
    values = {"stage": stage, **MINIMAL[stage], "output_dir": str(tmp_path / "out"), **given}
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return ["--config", str(file)]


def refused(stage: str, argv: list[str]) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(stage, argv)
    return str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_anywhere_in_a_recipe_is_refused_and_not_shown(tmp_path, key):
    places = [
        ("sft", {"run_name": f"with {key}"}, "run_name"),
        ("sft", {"model_name_or_path": key}, "model_name_or_path"),
        ("dpo", {"datasets": [{"path": "d.jsonl", "split": key}]}, "datasets[0].split"),
        ("reward", {"lr_scheduler_kwargs": {"a": {"b": [key]}}}, "lr_scheduler_kwargs.a.b[0]"),
        ("ppo", {"reward_model_path": None, "scorers": [HTTP | {"url": f"https://host/{key}"}]}, "scorers[0].url"),
        ("label", {"judge": CHAT | {"extra_body": {"user": key}}}, "judge.extra_body.user"),
    ]
    for stage, given, where in places:
        told = refused(stage, write(tmp_path, stage, given))
        assert "r.yaml:" in told
        assert where in told
        assert key not in told
    assert refused("sft", [*write(tmp_path, "sft", {}), "--run_name", key]).startswith("--run_name: looks like")
    assert key not in refused("sft", [*write(tmp_path, "sft", {}), f"--{key}", "1"])
    assert key not in refused("sft", write(tmp_path, "sft", {key: 1}))


@pytest.mark.parametrize("stage", ["label", "evaluate", "ppo"])
@pytest.mark.parametrize(
    ("given", "where", "secret"),
    [
        ({"api_key_env": "my-key-itself"}, "api_key_env: must name an environment variable", "my-key-itself"),
        ({"api_key_env": "a1b2c3d4e5f60718293a4b5c6d7e8f90"}, "api_key_env: must name", "a1b2c3"),
        ({"base_url": "https://me:hunter22@host/v1"}, "base_url: holds a user name or password", "hunter22"),
        ({"base_url": "https://hunter22@host/v1"}, "base_url: holds a user name or password", "hunter22"),
        ({"base_url": "me:hunter22@host/v1"}, "base_url: holds a user name or password", "hunter22"),
        ({"base_url": "https://host/v1?api_key=hunter22"}, "base_url: holds a key as api_key", "hunter22"),
        ({"base_url": "https://host/v1#access_token=hunter22"}, "base_url: holds a key as access_token", "hunter22"),
        ({"base_url": "https://h/v1?x=8f3b2a1c9d8e7f6a5b4c3d2e1f0a9b8c"}, "base_url: holds a key as x", "8f3b2a1c"),
        ({"extra_body": {"headers": {"Authorization": "hunter22"}}}, "headers.Authorization: holds a key", "hunter22"),
        ({"extra_body": {"X-Api-Key": "hunter22"}}, "extra_body.X-Api-Key: holds a key", "hunter22"),
        ({"extra_body": {"password": 12345678}}, "extra_body.password: holds a key", "12345678"),
        ({"extra_body": {"token": "9b8c8f3b2a1c9d8e7f6a5b4c3d2e1f0a"}}, "token: looks like a key", "9b8c8f3b"),
    ],
)
def test_a_judges_api_key_is_refused_at_every_location(tmp_path, stage, given, where, secret):
    told = refused(stage, write(tmp_path, stage, nested(CHAT | given)[stage]))
    assert where in told
    assert secret not in told


@pytest.mark.parametrize(
    "words",
    [
        ["--judge.api_key_env=hunter-22"],
        ["--judge.api_key_env", "hunter-22"],
        ["--judge.base_url", "https://me:hunter-22@host"],
        ["--judge", "{kind: openai, model: m, api_key: hunter-22}"],
        ["--hub_token", "hunter-22"],
        ["--api-key", "hunter-22"],
        ["--password=hunter-22"],
    ],
)
def test_a_key_on_the_command_line_is_refused_and_not_shown(tmp_path, words):
    told = refused("label", [*write(tmp_path, "label", {}), *words])
    assert told.startswith("--")
    assert "hunter-22" not in told


def test_keys_of_the_environment_are_refused_in_a_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("TEAM_API_KEY", "entirely-without-a-shape")
    given = {"judge": CHAT | {"base_url": "https://host/entirely-without-a-shape/v1"}}
    told = refused("label", write(tmp_path, "label", given))
    assert "judge.base_url: holds what the environment variable TEAM_API_KEY holds" in told
    assert "without-a-shape" not in told


def test_pipelines_are_searched_too(tmp_path):
    secret = "hunter-22"
    for stage in (
        {"name": "a", "command": ["m", "--api_key", secret], "outputs": ["o"]},
        {"name": "a", "command": ["m", f"--api_key={secret}"], "outputs": ["o"]},
        {"name": "a", "recipe": "r.yaml", "overrides": {"judge.api_key_env": secret}},
    ):
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump({"name": "p", "output_dir": "o", "stages": [stage]}))
        with pytest.raises(RecipeError, match=r"pipeline.yaml:\d+: stages\[0\]") as caught:
            check_file(str(file))
        assert secret not in str(caught.value)


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_writes_before_it_refuses(tmp_path, stage):
    argv = write(tmp_path, stage, {"run_name": KEYS[0]})
    with pytest.raises(RecipeError):
        importlib.import_module(f"recipes.{stage}").main(argv)
    assert [file.name for file in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize("place", ["slurm", "kubernetes", "skypilot"])
def test_no_job_file_holds_a_key(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "ppo", {})
    words = [sys.executable, "-m", "alignment.cli", "launch", "r.yaml", "--on", place]
    for given in (["--run_name", KEYS[0]], ["--hub_token=hunter-22"], ["--image", "host/me:" + KEYS[0]]):
        run = subprocess.run([*words, *given], capture_output=True, text=True, check=False)
        assert run.returncode == 2
        assert not any(secret in run.stdout + run.stderr for secret in (KEYS[0], "hunter-22"))
    assert [file.name for file in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize("key", WITHOUT_FORM)
def test_a_key_without_a_provider_s_form_is_refused_where_no_file_is_named(tmp_path, key):
    for judge, name in (
        ({"model": key}, "model"),
        ({"extra_body": {"metadata": [{"by": key}]}}, "extra_body.metadata[0].by"),
    ):
        told = refused("label", write(tmp_path, "label", {"judge": CHAT | judge}))
        assert f"judge.{name}: looks like a key" in told
        assert key not in told
    hash_ = "0123456789abcdef0123456789abcdef"
    load_recipe(
        "sft", write(tmp_path, "sft", {"model_name_or_path": f"runs/{key}", "run_name": hash_})
    )  # as folders may be called


def test_a_variable_s_name_that_is_the_key_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "Zq8s7d6f5g4h3j2k1l")
    told = refused("label", write(tmp_path, "label", {"judge": CHAT | {"api_key_env": "Zq8s7d6f5g4h3j2k1l"}}))
    assert "judge.api_key_env" in told
    assert "Zq8s7d6f5g4h3j2k1l" not in told


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_values_are_not_api_keys(tmp_path, text):
    assert key_in(text) is None
    assert key_in_query(text) is None
    load_recipe("sft", write(tmp_path, "sft", {"model_revision": text, "run_name": text}))


def test_names_of_variables_are_not_api_keys():
    assert all(map(is_variable, ("OPENAI_API_KEY", "MY_KEY_2", "JUDGE_KEY_FOR_TEAM_2024", "_k")))
    assert not any(map(is_variable, ("", "my-key", "2KEY", "hf_abcdefghijklmnopqrstuvwxyz", KEYS[8])))


def test_errors_show_no_key_that_they_quote():
    assert str(DataError(f"d.jsonl:1: found '{KEYS[0]}'")) == f"d.jsonl:1: found '{HIDDEN}'"
    assert RecipeError([f"x: {KEYS[4]}"]).faults == [f"x: {HIDDEN}"]
    assert str(AlignmentError("https://me:hunter22@host/x failed")) == f"https://{HIDDEN}@host/x failed"
    assert str(AlignmentError("https://host/x?key=hunter22&a=1 failed")) == f"https://host/x?{HIDDEN} failed"


def test_a_command_line_and_a_configuration_are_kept_without_keys():
    words = ["sft.py", "--api_key", "hunter-22", "--hub_token=hunter-22", "--judge.api_key_env", "OPENAI_API_KEY"]
    assert hidden_words([*words, "--lr", "1", KEYS[0]]) == [
        "sft.py", "--api_key", HIDDEN, f"--hub_token={HIDDEN}", "--judge.api_key_env", "OPENAI_API_KEY",
        "--lr", "1", HIDDEN,
    ]  # fmt: skip
    kept = without_keys({"hub_token": "x", "pad_token": "<pad>", "a": [{"secret": "y"}, KEYS[0]], "n": 1})
    assert kept == {"hub_token": HIDDEN, "pad_token": "<pad>", "a": [{"secret": HIDDEN}, HIDDEN], "n": 1}


def test_no_job_file_takes_a_key_from_its_template(tmp_path, monkeypatch):
    from alignment.launch.files import shipped

    monkeypatch.chdir(tmp_path)
    write(tmp_path, "ppo", {})
    template = tmp_path / "mine.sh"
    template.write_text(shipped("slurm/job.sh").read_text() + f"export OPENAI_API_KEY={KEYS[0]}\n")
    words = [sys.executable, "-m", "alignment.cli", "launch", "r.yaml", "--on", "slurm", "--template", "mine.sh"]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "mine.sh: line " in run.stderr
    assert KEYS[0] not in run.stdout + run.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.sh", "r.yaml"]


@pytest.mark.parametrize("unit", ["x", "Xy9", "a.", "_-", "secret=", "bearer x ", "eyJ-", "user:", "a@"])
def test_a_long_text_is_looked_through_in_time_that_grows_with_its_length(unit):
    """A pattern that tries every place anew takes minutes on a message of this length."""
    begin = time.monotonic()
    hidden(unit * (200_000 // len(unit)))
    assert time.monotonic() - begin < 60
