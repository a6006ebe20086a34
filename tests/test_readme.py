"""What the documents tell people to write: recipes that check, verbs and formats that exist."""

import re
from pathlib import Path

import pytest
import typer.main

from alignment.cli import app
from alignment.config.documents import parse_value
from alignment.config.loading import check_recipe
from alignment.config.schema import PPORecipe, SamplingKeys
from alignment.data.formats import named

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
REST_OF = {  # keys that a snippet of a judge or of data leaves out
    "judge": "stage: label\noutput_dir: runs/label\nmodel_name_or_path: m\ndatasets: [{path: p.jsonl}]\n",
    "datasets": "stage: sft\noutput_dir: runs/sft\nmodel_name_or_path: m\n",
}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_readmes_recipes_have_no_fault(snippet, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(snippet if "\nstage:" in snippet else REST_OF["judge"] + snippet)
    check_recipe(str(file))


def test_the_data_snippet_has_no_fault(tmp_path):
    data = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    snippet = re.search(r"^    datasets:\n(?:    .*\n)+", data, re.MULTILINE)
    file = tmp_path / "recipe.yaml"
    file.write_text(REST_OF["datasets"] + snippet[0].replace("\n    ", "\n").removeprefix("    "))
    assert check_recipe(str(file)).datasets[0].format == "prompt_completion"
    for name in re.findall(r"^\| `(\w+)` \|", data, re.MULTILINE):
        assert named(name).name == name


def test_the_readmes_commands_are_verbs():
    verbs = set(typer.main.get_command(app).commands)
    used = set(re.findall(r"(?:^    |`)alignment (\w+)", README, re.MULTILINE))
    assert used >= {"sft", "label", "reward", "dpo", "ppo", "evaluate", "report", "check", "run", "merge", "score"}
    assert used <= verbs
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"quickstart", "test"} <= set(re.findall(r"^    make ([a-z-]+)", README, re.MULTILINE)) <= targets


TOLD_IN_WORDS = (
    "stage",
    "reward_model_path",
    "scorers",
    "watch_scorers",
    "watch_interval",
    "value_learning_rate",
    "num_sample_generations",
)


def test_the_ppo_document_gives_every_keys_default():
    keys_alone = (
        (ROOT / "docs" / "ppo.md").read_text("utf-8").partition("## Reading the log")[0]
    )  # logs bear keys' names
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", keys_alone, re.MULTILINE)
    told = {}
    for keys, defaults in rows:
        told |= zip(re.findall(r"`(\w+)`", keys), re.sub(r"\(.*?\)", "", defaults).split(","), strict=False)

    def read(told: str) -> object:
        return parse_value(told.strip().replace("none", "null"))

    for key in [*PPORecipe.__annotations__, *SamplingKeys.__annotations__]:
        field = PPORecipe.model_fields.get(key)
        if key in TOLD_IN_WORDS or field is None:
            continue
        default = "required" if field.is_required() else field.default
        assert default in (told[key].strip(), read(told[key])), key  # none is nothing, or a choice of that name
