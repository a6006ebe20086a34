"""An evaluation without tasks needs no lm-eval, which is an extra."""

import sys

from alignment.evaluate.tasks.running import TaskRuns


def test_no_task_imports_no_lm_eval(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as if it were not installed
    for name in [name for name in sys.modules if name.startswith("lm_eval.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "alignment.evaluate.tasks.policy_lm", raising=False)
    runs = TaskRuns(None, (), tmp_path)
    runs.run("policy", "folder", None, None, None, None)
    assert runs.answers == {"policy": {}}
