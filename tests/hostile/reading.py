"""Reading a file through every loader: accepted rows are sound, refusals are one line with the place."""

import contextlib
import json
import time

from alignment.config.schema import DatasetEntry
from alignment.data import load_answers, load_demonstrations, load_prompts, load_rankings, ranking_to_json
from alignment.errors import DataError
from alignment.json_lines import line_of
from alignment.strict_json import check, parse

LOADERS = (load_rankings, load_answers, load_demonstrations, load_prompts)
SECONDS = 30  # for what takes milliseconds: a bound, no measure
EXAMPLES = 150


@contextlib.contextmanager
def in_time():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS


def refused(error, file):
    """A refusal is one line that names the file; only the list of known layouts follows below."""
    text = str(error)
    first, *more = text.splitlines()
    assert str(file) in first or "gives no usable row" in first
    assert not more or "Known layouts" in first or "gives no usable row" in first
    assert first.isprintable()
    assert len(text) < 5000


def load_all(file):
    """Everything that the loaders make of a file, where they take it; asserts that they refuse the rest well."""
    found = {}
    for loader in LOADERS:
        for on_bad_row in ("stop", "skip"):
            with in_time():
                try:
                    loaded = loader([DatasetEntry(path=str(file))], on_bad_row=on_bad_row, seed=0)
                except DataError as error:
                    refused(error, file)
                else:
                    found[loader, on_bad_row] = loaded
                    assert all("\n" not in reason for reason in loaded.skipped)
    for loaded in found.values():
        for row in loaded.rows:
            sound(row)
    return found


def sound(row):
    """What was accepted can be written, read again, tokenised and trained on."""
    if isinstance(row, str | list):
        check(row)
    elif hasattr(row, "pairs"):
        again = parse(line_of(ranking_to_json(row)))
        assert again == json.loads(json.dumps(ranking_to_json(row)))
        for pair in row.pairs:
            assert pair.first != pair.second
            assert 0 <= pair.first < len(row.responses)
            assert 0 <= pair.second < len(row.responses)
            assert (pair.probability is None) == (pair.status not in ("ok", "tie"))
            assert pair.probability is None or 0 <= pair.probability <= 1
            assert pair.margin is None or 0 <= pair.margin <= 3.4e38
        [row.stopped(index) for index in range(len(row.responses))]
    else:
        check([row.prompt, row.completion, row.tools])


def write(folder, name, text):
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    (folder / name).write_bytes(data)
    return folder / name
