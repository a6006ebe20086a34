"""`~` and variables in paths are expanded in every recipe, pipeline, override and verb, or refused."""

from pathlib import Path

import pytest
import yaml

from alignment.cli.arguments import expanded_arguments
from alignment.config.expanded import PATHS, expanded
from alignment.config.loading import check_recipe
from alignment.config.pipelines import load_pipeline
from alignment.config.schema import STAGES
from alignment.errors import RecipeError

SFT = {"stage": "sft", "model_name_or_path": "m", "datasets": [{"path": "d.jsonl"}], "output_dir": "runs/x"}


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS", "/big/runs")
    monkeypatch.delenv("NOT_SET", raising=False)
    return tmp_path / "home"


def write(folder, **keys):
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump({**SFT, **keys}))
    return str(file)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("~/x", "HOME/x"),
        ("~", "HOME"),
        ("$RUNS/x", "/big/runs/x"),
        ("${RUNS}x", "/big/runsx"),
        ("a$", "a$"),
        ("a$5", "a$5"),
        ("./~", "./~"),
        ("a~b", "a~b"),
        ("owner/name", "owner/name"),
        ("{{ messages }} $RUNS", "{{ messages }} $RUNS"),
    ],
)
def test_a_path_is_expanded_as_a_shell_does(given, right, home):
    assert expanded(given) == (right.replace("HOME", str(home)), None)


@pytest.mark.parametrize("given", ["~nobody-of-this-name/x", "$NOT_SET/x", "x/${NOT_SET}"])
def test_variables_that_a_shell_would_not_expand_are_refused(given, tmp_path):
    with pytest.raises(RecipeError, match=r"r.yaml:\d+: output_dir: .*(NOT_SET is not set|not a user's home)"):
        check_recipe(write(tmp_path, output_dir=given))
    with pytest.raises(RecipeError, match=r"--output_dir: .*(NOT_SET is not set|not a user's home)"):
        check_recipe(write(tmp_path), ["--output_dir", given])


def test_paths_at_every_depth(tmp_path, home):
    recipe = check_recipe(
        write(
            tmp_path,
            output_dir="~/out",
            model_name_or_path="$RUNS/base",
            datasets=[{"path": "~/d.jsonl", "columns": {"prompt": "$NOT_SET"}}],
            chat_template="~/t.jinja",
        ),
        ["--eval_datasets", "[{path: $RUNS/e.jsonl}]"],
    )
    assert recipe.output_dir == f"{home}/out"
    assert recipe.model_name_or_path == "/big/runs/base"
    assert recipe.datasets[0].path == f"{home}/d.jsonl"
    assert recipe.datasets[0].columns == {"prompt": "$NOT_SET"}  # the name of a column
    assert recipe.eval_datasets[0].path == "/big/runs/e.jsonl"
    assert recipe.chat_template == f"{home}/t.jinja"
    assert check_recipe(write(tmp_path), ["--datasets.0.path", "~/e.jsonl"]).datasets[0].path == f"{home}/e.jsonl"


def test_a_key_in_a_variable_does_not_get_into_a_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_PLACE", "sk-proj-" + "aB3dE6gH9j" * 4)
    for keys, words in (({"output_dir": "$MY_PLACE"}, []), ({}, ["--output_dir=$MY_PLACE"])):
        with pytest.raises(RecipeError, match="looks like") as caught:
            check_recipe(write(tmp_path, **keys), words)
        assert "aB3dE6gH9j" not in str(caught.value)


def test_a_pipeline(tmp_path, home):
    write(tmp_path, output_dir="~/all/sft")
    file = tmp_path / "p.yaml"
    command = {"name": "c", "command": ["m", "--to=~/all/c", "$RUNS/x"], "outputs": ["~/all/c"]}
    stages = [{"name": "s", "recipe": "r.yaml"}, command]
    file.write_text(yaml.safe_dump({"name": "p", "output_dir": "~/all", "stages": stages}))
    pipeline = load_pipeline(str(file))
    assert pipeline.stages[0].outputs == (f"{home}/all/sft",)
    assert pipeline.stages[1].arguments == ("m", f"--to={home}/all/c", "/big/runs/x")
    assert pipeline.stages[1].outputs == (f"{home}/all/c",)
    assert load_pipeline(str(file), output_dir="/elsewhere").stages[0].outputs == ("/elsewhere/sft",)


def test_the_words_of_a_verb(home):
    given = {"out": Path("~/page.html"), "runs": [Path("$RUNS/a")], "model": "~/m", "host": "127.0.0.1", "rows": 3}
    assert expanded_arguments({**given, "annotator": ["$NOT_SET and me"]}) == {
        "out": home / "page.html",
        "runs": [Path("/big/runs/a")],
        "model": f"{home}/m",
        "host": "127.0.0.1",
        "rows": 3,
        "annotator": ["$NOT_SET and me"],
    }
    with pytest.raises(RecipeError, match=r"out .*NOT_SET is not set"):
        expanded_arguments({"out": Path("$NOT_SET/x")})


def test_every_key_that_names_a_path_is_known():
    """A new key of a recipe whose name tells that it is a path is expanded too."""
    found = {name for cls in STAGES.values() for name in cls.model_fields if name.endswith(("_path", "_dir", "_file"))}
    assert found <= PATHS
