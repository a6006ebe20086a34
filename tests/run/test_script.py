"""How a script ends on errors that come out of libraries."""

import pytest

from alignment.run import script as scripts


def ended(monkeypatch, capsys, error: BaseException) -> tuple[int, str]:
    """Run a script that raises `error`; its exit code and what it says."""

    def leave(code):
        raise SystemExit(code)

    def main():
        raise error

    monkeypatch.setattr(scripts.os, "_exit", leave)
    with pytest.raises(SystemExit) as exit_:
        scripts.script(main)
    return exit_.value.code, capsys.readouterr().err


def test_a_full_disk_is_told_through_the_errors_of_libraries(monkeypatch, capsys):
    error = RuntimeError("cannot serialize")
    error.__cause__ = OSError(28, "No space left on device")
    code, said = ended(monkeypatch, capsys, error)
    assert (code, said.partition(";")[0]) == (1, "no room left on the disk")


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    def main():
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        scripts.script(main)
