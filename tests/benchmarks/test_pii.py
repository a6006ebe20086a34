"""The goal for types of personal data that have a pattern."""

import json

import pytest

from benchmarks import pii


def test_tallies_of_a_text_by_hand(tmp_path, capsys):
    text = "a@b.com, c@d.com, 10.0.0.1"
    spans = [("EMAIL_ADDRESS", 0, 7), ("EMAIL_ADDRESS", 9, 15), ("PERSON", 0, 1)]
    named = [{"entity_type": kind, "start_position": start, "end_position": end} for kind, start, end in spans]
    tallies = pii.measure([{"full_text": text, "spans": named, "template_id": 3}])
    # one address right; "c@d.co" missed, as "c@d.com" is found; the IP address is in no gold span
    assert dict(tallies["EMAIL_ADDRESS"]["held out"].counts) == {"right": 1, "missed": 1, "wrong": 1}
    assert tallies["EMAIL_ADDRESS"]["all"].scores == (0.5, 0.5, 0.5)
    assert dict(tallies["IP_ADDRESS"]["all"].counts) == {"wrong": 1}
    page = tmp_path / "page.md"
    page.write_text(f"above\n{pii.MARK}\nold\n{pii.MARK}\nbelow\n")
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"full_text": text, "spans": named, "template_id": 3}]))
    pii.main(["--file", str(file), "--write", str(page)])
    assert "| `EMAIL_ADDRESS` | yes | 2 | 0.500 | 0.500 | 0.500 | – | 0.500 |" in page.read_text()
    assert page.read_text().startswith("above")
    assert "old" not in page.read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["PERSON"] == [0, 0, 0]


@pytest.mark.skipif(not pii.FILE.is_file(), reason="needs the shared data")
def test_types_with_a_pattern_reach_the_goal():
    tallies = pii.measure(json.loads(pii.FILE.read_text(encoding="utf-8")))
    for kind in pii.PATTERN:
        assert all(tally.scores[2] >= pii.GOAL for tally in tallies[kind].values()), kind
