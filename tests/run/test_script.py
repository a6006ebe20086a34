"""How a script ends on errors that come out of libraries."""

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alignment.errors import Done
from alignment.run import last_resort
from alignment.run import script as scripts


def ended(monkeypatch, capsys, error: BaseException, *, folder: Path | None = None) -> tuple[int, str]:
    """Run a script that raises `error`; its exit code and what it says."""

    def leave(code):
        raise SystemExit(code)

    def main():
        last_resort.keep_tracebacks_in(folder)
        raise error

    monkeypatch.setattr(scripts.os, "_exit", leave)
    with pytest.raises(SystemExit) as exit_:
        scripts.script(main)
    return exit_.value.code, capsys.readouterr().err


def test_a_full_disk_is_recognised_in_errors_of_libraries(monkeypatch, capsys):
    error = RuntimeError("cannot serialize")
    error.__cause__ = OSError(28, "No space left on device")
    code, said = ended(monkeypatch, capsys, error)
    assert (code, said.partition(";")[0]) == (1, "no room left on the disk")


def test_missing_memory_is_reported_in_one_line(monkeypatch, capsys):
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 8 bytes")
    code, said = ended(monkeypatch, capsys, error)
    assert (code, said.partition(":")[0], said.count("\n")) == (1, "out of memory", 1)


@pytest.mark.parametrize("how", ["raise SystemExit", "raise SystemExit(0)", "import sys; sys.exit()"])
def test_sys_exit_0_does_not_finish_a_run(monkeypatch, capsys, how):
    monkeypatch.setattr(scripts.os, "_exit", lambda code: pytest.fail(f"{code}", pytrace=False) if code != 1 else None)
    scripts.script(lambda: exec(how))
    assert capsys.readouterr().err == "<string>:1 called sys.exit(0) before the work was done; remove that call.\n"


def test_other_codes_and_help_end_as_they_are():
    for error in (SystemExit(3), Done()):
        with pytest.raises(SystemExit) as end:
            scripts.script(lambda error=error: exec("raise error", {"error": error}))
        assert end.value.code == error.code


def test_help_of_a_parser_is_not_error(capsys):
    with pytest.raises(Done):
        scripts.script(lambda: scripts.parsed(argparse.ArgumentParser(), ["--help"]))
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("a fault"), EOFError("Compressed file ended"), GeneratorExit("odd")])
def test_an_unexpected_error_is_one_line_and_a_file(monkeypatch, capsys, tmp_path, error):
    monkeypatch.chdir(tmp_path)
    code, said = ended(monkeypatch, capsys, error)
    assert code == 70
    assert said.startswith(f"unexpected error: {type(error).__name__}: {error} (")
    assert said.endswith("; the traceback is in alignment-error.log. Please report it as a fault of this program.\n")
    assert said.count("\n") == 1
    log = (tmp_path / "alignment-error.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "in main\n    raise error" in log


def test_a_traceback_is_next_to_the_run_and_has_no_secret(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")
    monkeypatch.setenv("RANK", "3")
    code, said = ended(monkeypatch, capsys, ValueError("401 for sk-0123456789\nand more"), folder=tmp_path)
    assert (code, said.partition(" (")[0]) == (70, "unexpected error: ValueError: 401 for <SOME_API_KEY> and more")
    log = (tmp_path / "error-rank3.log").read_text()
    assert "401 for <SOME_API_KEY>\nand more" in log
    assert "sk-0123456789" not in said + log


def test_a_developer_sees_the_traceback(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNMENT_TRACEBACK", "1")
    code, said = ended(monkeypatch, capsys, RuntimeError("a fault"))
    assert code == 70
    assert "Traceback (most recent call last)" in said


def test_an_error_in_a_thread_is_one_line_too(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def main():
        thread = threading.Thread(target=lambda: 1 // 0, name="loader")
        thread.start()
        thread.join()

    scripts.script(main)
    said = capsys.readouterr().err
    assert said.startswith("unexpected error in thread loader: ZeroDivisionError: ")
    assert said.count("\n") == 1


def test_a_reader_that_has_ended_is_not_error(tmp_path):
    code = "from alignment.run.script import script\nscript(lambda: [print('x' * 999) for _ in range(9999)])"
    command = ["sh", "-c", '"$0" -c "$1" | head -n 1; echo done', sys.executable, code]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **paths})
    assert (ended.stdout[-5:], ended.stderr) == ("done\n", "")


def test_warnings_that_every_process_would_print_are_left_out_and_errors_are_not(tmp_path):
    code = (
        "import logging\nfrom alignment.run.script import script\n"
        "def main():\n"
        "    for name in ('DeepSpeed', 'bitsandbytes.backends.cpu.ops', 'another'):\n"
        "        logging.getLogger(name).warning('%s warns', name)\n"
        "        logging.getLogger(name).error('%s fails', name)\n"
        "script(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.splitlines() == [
        "DeepSpeed fails", "bitsandbytes.backends.cpu.ops fails", "another warns", "another fails"
    ]  # fmt: skip
