"""The comparison with TRL 1.12.0 finds its modules where it is told, and fetches nothing."""

import os

import pytest

from benchmarks import comparison, ppo_vs_trl


def test_a_missing_trl_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    baseline = tmp_path / "baseline.py"
    baseline.write_text("")
    monkeypatch.setattr("sys.argv", ["ppo_vs_trl", "--baseline", str(baseline), "--trl", str(tmp_path / "trl")])
    monkeypatch.setattr(comparison, "_run", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(SystemExit, match=r"trl is missing; run `pip install --no-deps --target .*trl trl==1\.12\.0`"):
        ppo_vs_trl.main()


@pytest.mark.parametrize(("given", "expected"), [("", ["first"]), (f"a{os.pathsep}b", ["first", "a", "b"])])
def test_the_users_python_path_follows_the_added_one(tmp_path, monkeypatch, given, expected):
    monkeypatch.setenv("PYTHONPATH", given)
    assert comparison._found_first("first")["PYTHONPATH"].split(os.pathsep) == expected
