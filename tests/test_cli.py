"""The command: quick help, faults without a traceback, exit codes."""

import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

STAGES = ("sft", "label", "reward", "dpo", "ppo", "evaluate")
WHOLE = ("check", "preview", "launch", "run")
VERBS = (
    *STAGES,
    *WHOLE,
    "annotate",
    "mix",
    "merge",
    "switch",
    "combine",
    "score",
    "bench",
    "serve-reward",
    "report",
    "winrate",
)
SFT = "stage: sft\noutput_dir: runs/sft\nmodel_name_or_path: nowhere/at-all\ndatasets:\n  - path: d.jsonl\n"


def alignment(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "alignment.cli", *words], capture_output=True, text=True, cwd=cwd)


def test_help_names_every_verb():
    done = alignment("--help")
    assert done.returncode == 0
    for verb in VERBS:
        assert f" {verb} " in done.stdout


def test_help_is_quick_and_imports_no_torch():
    # Processor time, for the machine may be busy with other tests; 0.25 s measured, which is the wall's on an idle one.
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        alignment("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    code = "import sys, alignment.cli; print(sorted({'torch', 'transformers', 'trl', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert min(used) < 0.5


def test_version():
    assert alignment("--version").stdout.strip() == f"alignment-stack {version('alignment-stack')}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_help_lists_its_keys(stage):
    done = alignment(stage, "--help")
    assert done.returncode == 0
    assert "  output_dir: text; required" in done.stdout


def test_check_reports_all_faults_of_all_files_and_writes_nothing(tmp_path):
    (tmp_path / "good.yaml").write_text(SFT)
    (tmp_path / "bad.yaml").write_text(SFT + "learning_rat: 1\nlora_r: x\n")
    (tmp_path / "empty.yaml").write_text("")
    before = sorted(tmp_path.iterdir())
    done = alignment("check", "good.yaml", "bad.yaml", "empty.yaml", "none.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "good.yaml: OK\n"
    assert done.stderr.splitlines() == [
        "bad.yaml:6: learning_rat: no such key; did you mean learning_rate?",
        "bad.yaml:7: lora_r: must be a whole number, found 'x'",
        "empty.yaml: is empty; a recipe is a mapping of keys to values",
        "none.yaml: no such file",
    ]
    assert sorted(tmp_path.iterdir()) == before
    assert alignment("check", "good.yaml", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sft",), "no recipe given; name one with `--config FILE`"),
        (("sft", "--config", "list.yaml"), "list.yaml: holds a list; a recipe is a mapping of keys to values"),
        (("sft", "--config", "sft.yaml", "--learning_rat", "1"), "--learning_rat: no such key; did you mean learning_"),
        (("ppo", "--config", "sft.yaml"), "sft.yaml:1: stage: is sft, but it is run as ppo"),
        (("run", "none.yaml"), "none.yaml: no such file"),
        (("run", "sft.yaml"), "sft.yaml: name: the required key is missing"),
        (("merge", "none", "out"), "none: no such folder; name a run or adapter folder."),
        (("merge", "none", "out", "--rank", "4"), "none"),
        (("switch", "none", "out", "--from", "a", "--to", "b"), "none: no such folder; name a model that alignment"),
        (("switch", "none"), "switch needs the two adapters: alignment switch MODEL --from A --to B [OUT]."),
        (("combine", "none:0.7", "other:0.3", "out"), "none: no such folder; name a run or adapter folder."),
        (("combine", "none:0", "other:0.3", "out"), "must be RUN:WEIGHT with a weight other than 0"),
    ],
)
def test_a_users_fault_prints_only_its_message(tmp_path, words, message):
    (tmp_path / "sft.yaml").write_text(SFT)
    (tmp_path / "list.yaml").write_text("- a\n")
    done = alignment(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.yaml", "sft.yaml"]


def test_report_of_nothing_fails_with_a_message(tmp_path):
    done = alignment("report", "none", cwd=tmp_path)
    assert done.returncode == 1
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_verbs_are_refused():
    done = alignment("teach")
    assert done.returncode == 2
    assert "teach" in done.stderr


ODD = """
import sys
from alignment.cli import main
from alignment.cli.base import verb

@verb()
def odd():
    raise {error}

sys.argv = ["alignment", {words}]
main()
"""


@pytest.mark.parametrize("error", ["EOFError('cut')", "KeyError('lost')", "SystemExit(0)", "GeneratorExit('closed')"])
def test_no_error_of_a_verb_is_a_traceback_or_aborted(tmp_path, error):
    code = ODD.format(error=error, words='"odd"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == (1 if "SystemExit" in error else 70)
    assert done.stderr.count("\n") == 1
    assert "Aborted" not in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "alignment-error.log").exists() == (done.returncode == 70)


def test_a_developer_sees_the_traceback(tmp_path):
    code = ODD.format(error="KeyError('lost')", words='"--traceback", "odd"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr


def test_ctrl_c_ends_with_130(tmp_path):
    code = ODD.format(error="__import__('os').kill(__import__('os').getpid(), 2)", words='"odd"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "interrupted; the same command resumes from the last checkpoint\n")
