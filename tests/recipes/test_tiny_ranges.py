"""The tables of several runs of the tiny pipeline."""

import json

import pytest

from recipes.tiny.ranges import main


def result(gold: float, kl: float) -> dict[str, object]:
    rate = {"value": gold, "low": gold - 0.05, "high": gold + 0.05}
    wins = {"gold": rate, "careless reader": rate}
    return {
        "win_rate": {"dpo": wins, "ppo": wins},
        "kl": {"dpo": kl, "ppo": 3.0},
        "answer_tokens": {"sft": 28.0, "dpo": 20.0, "ppo": 21.0},
        "distinct_answers": {"sft": 1.0, "dpo": 0.9, "ppo": 0.8},
        "reward_accuracy": 0.85,
        "seconds": {"sft": 60.2, "ppo": 100.1},
    }


def test_the_lowest_and_the_highest_of_each_number(tmp_path, capsys):
    for name, numbers in {"a": (0.7, 1.0), "b": (0.8, 2.0)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(result(*numbers)))
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    told = capsys.readouterr().out.splitlines()
    assert told[2] == "| wins against SFT by gold | – | 70.0 to 80.0 % | 70.0 to 80.0 % |"
    assert told[4] == "| KL to SFT, nats an answer | – | 1.0 to 2.0 | 3.0 |"
    assert told[8] == "The reward model orders 85.0 % of held-out pairs as gold does. Seconds: 160."
    ends = "85.0 % | 70.0 % [65.0, 75.0] | 70.0 % [65.0, 75.0] | 1.0 / 3.0 | 100 % / 90 % / 80 % | 28 / 20 / 21 | 160 |"
    assert told[10] == f"| `{tmp_path / 'a'}` | {ends}"


def test_a_run_without_results_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert f"no results.json in {tmp_path}; run the pipeline to its end first" in capsys.readouterr().err
