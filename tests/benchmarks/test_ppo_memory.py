"""The benchmark for large shapes runs where there is no GPU, on a small one."""

import argparse

import pytest

from benchmarks.ppo_memory import main, measure


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")  # the folder is quantised already
def test_the_script_runs_on_a_small_shape(tmp_path):
    args = argparse.Namespace(shape="tiny", memory=24.0, device="cpu", answers=4, prompt_tokens=16, answer_tokens=4)
    args.microbatch = 2
    found = measure(args, tmp_path)
    assert found["shape"] == "tiny"
    assert found["peak_memory_gib"] > 0
    assert found["tokens_per_second"] > 0


def test_a_missing_gpu_is_reported(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ppo_memory"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device here; nothing was run"):
        main()
