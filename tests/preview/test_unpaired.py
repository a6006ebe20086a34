"""The preview of KTO shows each labelled answer with its probability."""

from alignment.cli.stages import preview_reader
from alignment.preview.command import preview
from alignment.preview.wording import heading

ROWS = [
    {"prompt": [{"role": "user", "content": "Why?"}], "completion": "Because.", "label": True},
    {"prompt": [{"role": "user", "content": "How?"}], "completion": "So.", "probability": 0.25},
]


def test_rows_have_their_probability_and_the_answers_tokens(recipe):
    labels, chances = [{**ROWS[0], "label": 1}, {**ROWS[0], "label": 0}], [*ROWS[1:], {**ROWS[1], "probability": 0.9}]
    alike = [{**ROWS[1], "probability": p} for p in (*[1.0, 1 - 1e-16 * 2] * 3, 0.0)]
    for rows, expected in (
        (labels, [1.0, 0.0]),
        (chances, [0.25, 0.9]),
        (alike, [row["probability"] for row in alike]),
    ):
        shown = preview(recipe("kto", rows, chat_template="chatml"), [], None, preview_reader).rows
        assert [row.probability for row in shown] == expected
        for row in shown:
            assert f"probability {row.probability:g} that the answer is good" in heading(1, row)
            tokens = row.sequences["segments"]
            assert tokens.trained == sorted(tokens.trained)  # the prompt, then the answer
            assert any(tokens.trained)


def test_a_pair_is_shown_as_two_answers(recipe):
    pair = {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "probability": 0.75}
    shown = preview(recipe("kto", [pair, {**pair, "prompt": "How?"}]), [], None, preview_reader).rows
    assert [(row.parts[-1].text, row.probability) for row in shown[:2]] == [("Because.", 0.75), ("No.", 0.25)]
