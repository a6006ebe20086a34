"""Recorded verdicts are read as they were given: about what was shown first, in both orders."""

import json
from pathlib import Path

import pytest

from alignment.errors import DataError
from reward.labels.recordings import gold, is_recording, judged, read_recording


def row(unswapped: str | None, swapped: str | None, label: int = 1, **more: object) -> dict[str, object]:
    results = [
        ["a step before the verdict", "stop"],
        {
            "swap = False": {"completion": ["Output (a)", "stop"], "winner": unswapped},
            "swap = True": {"completion": ["Output (b)", "stop"], "winner": swapped},
        },
    ]
    return {"input": "Add.", "output_1": "3", "output_2": "4", "label": label, "results": results} | more


def write(folder: Path, *rows: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(rows))
    return folder


def test_both_orders_become_one_label(tmp_path):
    folder = write(
        tmp_path / "GPT-4" / "Vanilla", row("1", "1"), row("1", "2", 2) | {"input": "Subtract."}, row("2", None)
    )
    assert is_recording(folder)
    assert is_recording(folder / "result.json")
    recording = read_recording(folder)
    assert recording.name == "GPT-4/Vanilla"
    agreed, torn, failed = (ranking.pairs[0] for ranking in judged(recording))
    # Output 1 won both times; in the swapped order it was shown second, so the answer shown first lost.
    assert [asked.probability for asked in agreed.verdicts] == [1.0, 0.0]
    assert (agreed.probability, agreed.status) == (1.0, "ok")
    # 1 when shown first, 2 when that was shown first: the first position won both times, which is no preference.
    assert [asked.probability for asked in torn.verdicts] == [1.0, 1.0]
    assert (torn.probability, torn.status) == (0.5, "tie")
    assert (failed.probability, failed.status) == (None, "parse_error")
    assert [ranking.pairs[0].probability for ranking in gold(recording)] == [1.0, 0.0, 1.0]
    assert recording.rows[0].raw == ("Output (a)", "Output (b)")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row("3", "1"), "'winner' is '3', not 1, 2 or null"),
        (row("1", "1", 7), "'label' is 7, not 1 or 2"),
        (row("1", "1") | {"results": []}, "has no object with 'swap = False'"),
        (row("1", "1") | {"output_2": None}, "must be text, as in"),
    ],
)
def test_a_row_that_breaks_the_format_is_named(tmp_path, bad, words):
    folder = write(tmp_path / "judge", bad)
    with pytest.raises(DataError, match=words) as error:
        read_recording(folder)
    assert "result.json:1" in str(error.value)


def test_opposite_gold_labels_are_refused_with_both_places(tmp_path):
    folder = write(tmp_path / "judge", row("1", "1"), row("1", "1", None), row("1", "1", 2))
    with pytest.raises(DataError, match=r"result.json:1: its 'label' is the opposite of that of .*result.json:1"):
        read_recording(folder)


@pytest.mark.parametrize("label", [True, "1", [1], 10**99])
def test_a_label_of_another_type_is_refused(tmp_path, label):
    with pytest.raises(DataError, match=r"'label' is .*, not 1 or 2"):
        read_recording(write(tmp_path / "judge", row("1", "1") | {"label": label}))


def test_a_key_that_nothing_reads_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"result.json:1: the keys 'context' are unknown; recorded verdicts have input, output_1"
    ):
        read_recording(write(tmp_path / "judge", row("1", "1") | {"context": "It rains."}))


def test_other_files_are_none(tmp_path):
    (tmp_path / "labels.jsonl").write_text('{"prompt": "p"}\n')
    assert not is_recording(tmp_path)
    assert not is_recording(tmp_path / "labels.jsonl")
    with pytest.raises(DataError, match=r"there is no result\.json"):
        read_recording(tmp_path)
