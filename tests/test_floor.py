"""The constraints of `make test-floor`."""

from tests.floor import LIBRARIES, constraints, floors


def test_each_library_below_training_is_held_at_its_floor_once():
    found = constraints(torch="2.9.1")
    held = [line.partition("==") for line in found]
    for name, version in {**floors(), "torch": "2.9.1"}.items():
        assert [right for left, _, right in held if left == name] == [version]
    assert set(floors()) == set(LIBRARIES)
    assert not [line for line in found if line.startswith(("huggingface", "tokenizers"))]
    assert any(line.startswith("pydantic==") for line in found)
