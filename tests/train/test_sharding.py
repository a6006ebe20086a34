"""What `alignment.train.policy_gradient.sharding` reads of torch's own objects."""

from types import SimpleNamespace

import pytest

from alignment.train.policy_gradient.sharding import _groups

A, B = object(), object()


@pytest.mark.parametrize(
    ("state", "groups"),
    [
        ({"_fsdp_param_groups": [A, B]}, [A, B]),
        ({"_fsdp_param_groups": []}, []),
        ({"_fsdp_param_group": A}, [A]),  # older releases of torch
        ({"_fsdp_param_group": None}, []),
    ],
)
def test_a_units_groups_are_found_in_every_release_of_torch(state, groups):
    unit = SimpleNamespace(_get_fsdp_state=lambda: SimpleNamespace(**state))
    assert _groups(unit) == groups
