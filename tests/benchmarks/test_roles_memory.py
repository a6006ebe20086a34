"""What four roles on one base hold is known from the shape, to the byte."""

import pytest

from benchmarks.roles_memory import measure, predict
from benchmarks.shapes import PRECISIONS


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")  # the folder is quantised already
@pytest.mark.parametrize("precision", PRECISIONS)
def test_prediction_is_exact(tmp_path, precision):
    assert measure("tiny", precision, 4, tmp_path) == predict("tiny", precision, 4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_four_roles_of_7b_cost_little_more_than_the_base(precision):
    held = predict("7b", precision, 16)
    assert held["one_base_four_roles"] <= 1.15 * held["base"]
    assert held["four_models"] > 3.4 * held["base"]
