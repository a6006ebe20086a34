"""Every cell of docs/tuning.md's table of tuning methods: tried for real, and as the table has it."""

import pytest

from alignment.config.methods import TUNING_METHODS
from tests.tuning.runs import STORIES
from tests.tuning.table import COLUMNS, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # the libraries', in whole runs
    pytest.mark.skipif(not STORIES.is_dir(), reason="../shared is not beside the checkout"),
]


@pytest.fixture(scope="module", params=[*TUNING_METHODS])
def method(request, tmp_path_factory):
    from tests.tuning.cells import Method

    return Method(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_cell_is_as_the_table_has_it(method, column):
    from tests.tuning.cells import try_cell

    assert try_cell(method, column) == read()[method.name][column], "mend it, or write it anew: make tuning-table"
