"""A judge's backend, a chat model and a scorer take two files each: the schema, and a module with the kind's name.

Each test copies the packages, adds a dummy as a newcomer would, counts the files that differ, and runs the dummy.
"""

import json
from pathlib import Path

import pytest

from tests.package_copy import PackageCopy

JUDGES, SCORERS = "alignment/config/schema/judges.py", "alignment/config/schema/scorers.py"

JUDGE_ENTRY = '''
class DummyEntry(AnyJudge):
    """Prefers answers that hold a word."""

    NEEDS: ClassVar[tuple[str, str]] = ("word", "a word that good answers hold")
    PREVIEW: ClassVar[str] = "the word {} is looked for"

    kind: Literal["dummy"]
    word: Annotated[str, Mark.WORDS]


'''
JUDGE = '''"""A judge that looks for a word."""

from alignment.evaluate.judging import Verdict


class Dummy:
    mode, prompt_hash = "pairwise", "none"

    def __init__(self, entry):
        self.name, self.word = entry.label, entry.word

    def ask(self, comparison):
        return Verdict(0.5 + ((self.word in comparison.first) - (self.word in comparison.second)) / 2, "ok")


def build(entry, caller):
    return Dummy(entry)
'''
CHAT_ENTRY = '''
class DummyEntry(ChatEntry):
    """A chat model that always replies the same."""

    NEEDS: ClassVar[tuple[str, str]] = ("reply", "what it replies")

    kind: Literal["dummy"]
    reply: Annotated[str, Mark.WORDS]


'''
CHAT = '''"""A chat model that always replies the same."""

from alignment.calls.call import ChatReply


class Dummy:
    where = "here"

    def __init__(self, entry):
        self.reply = entry.reply

    def request(self, call):
        return {"messages": call.messages}

    def send(self, request):
        return ChatReply("ok", self.reply, self.reply)


def open_chat(entry, *, connect):
    return Dummy(entry)
'''
SCORER_ENTRY = '''
class DummyEntry(AnyScorer):
    """Counts a letter."""

    NEEDS: ClassVar[tuple[str, str]] = ("letter", "a letter to count")

    kind: Literal["dummy"]
    letter: Name


'''
SCORER = '''"""A scorer that counts a letter."""


class Dummy:
    def __init__(self, entry):
        self.letter = entry.letter
        self.identity = {"letter": self.letter}

    def score(self, prompts, answers, *, stopped):
        return [float(answer.count(self.letter)) for answer in answers]


def build(entry, recipe, calls):
    return Dummy(entry)
'''
SCORE = """
import json, sys
from alignment.config.schema import PPORecipe
from alignment.config.loading import check_recipe
from reward.scorers import build_scoring, describe
recipe = check_recipe(sys.argv[1])
scoring = build_scoring(recipe, {})
(source,) = scoring.parts[0].sources
scores = source.score(["p", "p"], ["banana", "cherry"], stopped=[True, True])
print(json.dumps([scores, describe(recipe.scorers, scoring, {})]))
"""


class Copy(PackageCopy):
    """A copy of the packages to which kinds of judges and scorers are added."""

    def add(self, schema: str, entry: str, union: str, module: str, text: str) -> None:
        """Add the class before the union and to it, and the module of the kind's name."""
        file = self.folder / schema
        before = file.read_text()
        head, found, tail = before.partition(f"{union} = Annotated[\n    ")
        assert found
        file.write_text(f"{head.rstrip()}\n\n{entry}{found}DummyEntry | {tail}")
        (self.folder / module).write_text(text)


def label_recipe(folder: Path, judge: dict[str, object]) -> str:
    rows = [{"prompt": f"p{n}", "responses": ["a good answer", "a bad answer"], "ranks": [0, 1]} for n in range(3)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"stage": "label", "responses": "given", "output_dir": str(folder / "run"), "judge": judge}
    recipe |= {"datasets": [{"path": str(folder / "answers.jsonl")}]}
    path = folder / f"label{len(list(folder.glob('label*')))}.yaml"
    path.write_text(json.dumps(recipe))
    return str(path)


@pytest.mark.parametrize(
    ("entry", "module", "text", "keys", "foreign"),
    [
        (JUDGE_ENTRY, "reward/judges/backends/dummy.py", JUDGE, {"word": "good"}, "temperature"),
        (CHAT_ENTRY, "alignment/calls/backends/dummy.py", CHAT, {"reply": "A", "logprobs": False}, "base_url"),
    ],
    ids=["judge", "chat model"],
)
def test_a_judge_takes_two_files(
    tmp_path: Path, entry: str, module: str, text: str, keys: dict[str, object], foreign: str
) -> None:
    copy = Copy(tmp_path / "checkout")
    copy.add(JUDGES, entry, "JudgeEntry", module, text)
    assert copy.changed() == sorted([JUDGES, module])

    recipe = label_recipe(tmp_path, {"kind": "dummy", **keys})
    ran = copy.run("-m", "recipes.label", "--config", recipe)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "labels.jsonl").read_text().splitlines()]
    expected = 1.0 if "word" in keys else 0.5  # the chat model names the first answer in both orders
    assert [row["pairs"][0]["probability"] for row in rows] == [expected] * 3

    wrong = copy.run("-m", "recipes.label", "--config", label_recipe(tmp_path, {"kind": "dummy", foreign: "0.5"}))
    needed = next(iter(keys))
    assert f"judge: a judge of kind dummy needs {needed}, " in wrong.stderr
    assert f"judge.{foreign}: does not belong to a judge of kind dummy" in wrong.stderr


def test_a_scorer_takes_two_files(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "checkout")
    module = "reward/scorers/dummy.py"
    copy.add(SCORERS, SCORER_ENTRY, "ScorerEntry", module, SCORER)
    assert copy.changed() == sorted([SCORERS, module])

    recipe = {"stage": "ppo", "model_name_or_path": "m", "output_dir": str(tmp_path / "run"), "total_episodes": 640}
    recipe |= {"datasets": [{"path": "d"}], "scorers": [{"kind": "dummy", "letter": "a"}]}
    (tmp_path / "ppo.yaml").write_text(json.dumps(recipe))
    ran = copy.run("-c", SCORE, str(tmp_path / "ppo.yaml"))
    assert ran.returncode == 0, ran.stderr[-2000:]
    scores, described = json.loads(ran.stdout)
    assert scores == [3.0, 0.0]
    assert described == [{"name": "dummy", "kind": "dummy", "weight": 1.0, "letter": "a"}]
