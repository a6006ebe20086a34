import pytest

from alignment.run.differences import differences


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": None}, {}, []),
        ({"judge": {"logprobs": True, "model": "m"}}, {"judge": {"logprobs": False, "model": "m"}},
         ["judge.logprobs was true, is false"]),
        ({"judge": {"members": [{"weight": 1}, {"weight": 2}]}}, {"judge": {"members": [{"weight": 1}, {"weight": 3}]}},
         ["judge.members[1].weight was 2, is 3"]),
        ({"datasets": [{"path": "a"}]}, {"datasets": [{"path": "a"}, {"path": "b"}]},
         ['datasets was [{"path": "a"}], is [{"path": "a"}, {"path": "b"}]']),
        ({"revisions": None}, {"revisions": {"rounds": 1}}, ['revisions was not given, is {"rounds": 1}']),
        ({"x": 1, "free": 1}, {"x": 2, "free": 2}, ["x was 1, is 2"]),
        ({"p": "x" * 500}, {"p": "y"}, [f'p was "{"x" * 58}…, is "y"']),
        ({"n": 10**5000}, {"n": 1}, ["n was a number of thousands of digits, is 1"]),
    ],
)  # fmt: skip
def test_differences_are_reported_by_their_innermost_key(before, now, lines):
    assert list(differences(before, now, free={"free"})) == lines
