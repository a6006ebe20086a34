"""What the documents tell people to write: recipes that check, verbs and formats that exist."""

import re
from pathlib import Path

import pytest
import typer.main

from alignment.cli import app
from alignment.config.documents import parse_value
from alignment.config.loading import check_recipe
from alignment.config.schema import PPORecipe, SamplingKeys
from alignment.data.recognition import named

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GETTING_STARTED = (ROOT / "docs" / "getting_started.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```yaml\n(.*?)```", README + GETTING_STARTED, re.DOTALL)
PAGES = ("*.md", "docs/*.md", "recipes/*/*.md", "benchmarks/**/*.md")
DOCUMENTS = [page for pattern in PAGES for page in ROOT.glob(pattern)]
REST_OF = {  # keys that a snippet of a judge or of data leaves out
    "judge": "stage: label\noutput_dir: runs/label\nmodel_name_or_path: m\ndatasets: [{path: p.jsonl}]\n",
    "datasets": "stage: sft\noutput_dir: runs/sft\nmodel_name_or_path: m\n",
}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_recipes_in_the_documents_have_no_fault(snippet, tmp_path):
    file = tmp_path / "recipe.yaml"
    rest = "" if "\nstage:" in snippet else REST_OF["datasets" if snippet.startswith("datasets") else "judge"]
    file.write_text(rest + snippet)
    check_recipe(str(file))


def test_the_data_snippet_has_no_fault(tmp_path):
    data = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    snippet = re.search(r"^    datasets:\n(?:    .*\n)+", data, re.MULTILINE)
    file = tmp_path / "recipe.yaml"
    file.write_text(REST_OF["datasets"] + snippet[0].replace("\n    ", "\n").removeprefix("    "))
    assert check_recipe(str(file)).datasets[0].format == "prompt_completion"
    for name in re.findall(r"^\| `(\w+)` \|", data, re.MULTILINE):
        assert named(name).name == name


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings: lower case, punctuation dropped, spaces as dashes."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_the_links_of_a_document_lead_somewhere(document):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_commands_of_the_first_pages_are_verbs():
    verbs = set(typer.main.get_command(app).commands)
    assert set(re.findall(r"^    alignment ([\w-]+)", GETTING_STARTED, re.MULTILINE)) <= verbs
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
