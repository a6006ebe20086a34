import hashlib
from pathlib import Path
from typing import Any

import pytest

from alignment.calls.call import Call, ChatReply
from alignment.calls.caller import Caller
from alignment.config.schema import JudgeEntry, judge_entry
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison
from reward.judges import build_judge

SOURCE = """
def longer(prompt, first, second):
    return len(first) / (len(first) + len(second))

def returns_two(prompt, first, second):
    return 2

def returns_nan(prompt, first, second):
    return float("nan")

def returns_none(prompt, first, second):
    pass

def raises(prompt, first, second):
    return 1 / 0

def leaves(prompt, first, second):
    raise SystemExit(0)

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = "judge_of_" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)  # found in the working directory, as with `python -m`
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return name


def entry(function: str) -> JudgeEntry:
    return judge_entry(kind="rules", function=function)


def test_function_gives_the_probability_and_its_source_the_hash(module: str) -> None:
    judge = build_judge(entry(f"{module}:longer"))
    verdict = judge.ask(Comparison("p", "aaa", "b"))
    assert (verdict.probability, verdict.status) == (0.75, "ok")  # 3 / (3 + 1)
    assert judge.ask(Comparison("p", "aa", "bb")).status == "tie"
    assert judge.name == f"{module}:longer"
    assert judge.prompt_hash == hashlib.sha256(SOURCE.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("no_colon", "needs the form module:function"),
        ("no_such_module_here:f", "no module 'no_such_module_here'"),
        ("{module}:absent", "absent does not exist"),
        ("{module}:number", "number is not a function"),
    ],
)
def test_missing_function_is_named(module: str, function: str, words: str) -> None:
    with pytest.raises(JudgeError, match=words):
        build_judge(entry(function.format(module=module)))


def test_import_that_raises_is_named(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}_broken.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(JudgeError, match="No module named 'a_package_nobody_has'; install it"):
        build_judge(entry(f"{module}_broken:f"))
    (tmp_path / f"{module}_worse.py").write_text("1 / 0\n")
    with pytest.raises(JudgeError, match="raised ZeroDivisionError"):
        build_judge(entry(f"{module}_worse:f"))
    (tmp_path / f"{module}_gone.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(JudgeError, match="raised SystemExit: 0; correct the module"):
        build_judge(entry(f"{module}_gone:f"))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("returns_two", "returned 2; it must return the probability"),
        ("returns_nan", "returned nan"),
        ("returns_none", "returned None"),
        ("raises", "raised ZeroDivisionError: division by zero"),
        ("leaves", "raised SystemExit: 0"),
    ],
)
def test_an_invalid_probability_stops_the_run(module: str, function: str, words: str) -> None:
    judge = build_judge(entry(f"{module}:{function}"))
    with pytest.raises(JudgeError, match=words):
        judge.ask(Comparison("p", "a", "b"))


def test_a_call_that_was_kept_is_not_made_again(module: str) -> None:
    rows: dict[str, tuple[dict[str, Any], ChatReply]] = {}

    class CallCache:
        def known(self, key: str) -> ChatReply | None:
            return rows[key][1] if key in rows else None

        def keep(self, call: Call) -> None:
            rows[call.key] = call.request, call.reply

    judge = build_judge(entry(f"{module}:longer"), Caller(cache=CallCache()))
    asked = Comparison("p", "aaa", "b")
    assert judge.ask(asked).probability == 0.75
    judge.function = None
    assert judge.ask(asked).probability == 0.75
    ((request, reply),) = rows.values()
    assert request == {
        "function": f"{module}:longer", "source": judge.prompt_hash, "prompt": "p", "answers": ["aaa", "b"],
    }  # fmt: skip
    assert reply.raw == "0.75"
