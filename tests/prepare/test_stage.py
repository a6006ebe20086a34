"""The stage from its recipe to its files: records, resuming, refusals, formats."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.config.help import describe
from alignment.config.schema import DatasetEntry
from alignment.config.schema.prepare import PrepareRecipe
from alignment.config.schema.steps import AnyStep
from alignment.data import load_demonstrations
from alignment.data.stored import ROW_BYTES
from alignment.doctor.recipe import examine
from alignment.errors import AlignmentError, RecipeError
from alignment.planner.machine import Machine
from alignment.prepare import engine
from alignment.report import build
from tests.prepare.running import prepare, recipe_of, write_recipe, write_rows

ROWS = [{"instruction": f"Say {n} twice.", "output": f"{n}  \n{n} " + "so " * n, "id": n} for n in range(20)]
CLEAN, LENGTH, SAMPLE = {"kind": "clean"}, {"kind": "length", "maximum": 12}, {"kind": "sample", "rows": 5}
FILES = ("train.jsonl", "dropped.jsonl", "prepare.json")


def test_rows_stay_in_their_layout_and_every_drop_and_change_is_recorded(tmp_path):
    run = prepare(tmp_path, ROWS, CLEAN, LENGTH)
    rows, dropped = run.rows(), run.dropped
    assert rows[3] == {
        "instruction": "Say 3 twice.", "output": "3\n3 so so so", "id": 3, "row_origin": f"{tmp_path}/data.jsonl:4"
    }  # fmt: skip
    assert [row["id"] for row in rows] == list(range(11))  # n + 2 words
    changes = [one for one in dropped if one["action"] == "changed"]
    assert changes[3] == {
        "step": "clean", "number": 1, "action": "changed", "reason": "whitespace", "origin": f"{tmp_path}/data.jsonl:4",
        "before": ["3  \n3 so so so "], "after": ["3\n3 so so so"],
    }  # fmt: skip
    drops = [one for one in dropped if one["action"] == "dropped"]
    assert [one["origin"].rpartition(":")[2] for one in drops] == [str(n) for n in range(12, 21)]
    assert drops[0]["reason"] == "answer above 12 words"
    assert drops[0]["detail"] == "13 words"
    assert drops[0]["row"]["id"] == 11
    assert run.manifest["results"]["steps"] == [
        {"step": "clean", "rows_in": 20, "dropped": 0, "changed": 20, "rows_out": 20},
        {"step": "length", "rows_in": 20, "dropped": 9, "changed": 0, "rows_out": 11},
    ]
    assert not (run.folder / ".steps").exists()


def test_texts_are_left_out_of_the_records(tmp_path):
    run = prepare(tmp_path, ROWS, CLEAN, LENGTH, record_texts=False)
    assert {key for one in run.dropped for key in one} == {"step", "number", "action", "reason", "detail", "origin"}


def test_later_stages_and_datasets_load_the_folder(tmp_path):
    run = prepare(tmp_path, ROWS, CLEAN, SAMPLE)
    loaded = load_demonstrations([DatasetEntry(path=str(run.folder))], on_bad_row="stop", seed=0)
    assert len(loaded.rows) == 5
    assert datasets.load_dataset(str(run.folder), cache_dir=str(tmp_path / "c"))["train"].num_rows == 5


def test_datasets_loads_columns_that_are_null_in_the_first_rows_or_in_a_split(tmp_path):
    late = {"score": 0.5, "tags": ["x"], "meta": {"a": None, "b": []}, "day": "2024-05-01", "mixed": 1}
    rows = [{**row, **dict.fromkeys(late)} for row in ROWS] + [
        {**row, "id": 20, "input": "more", **late, "mixed": mixed} for row, mixed in zip(ROWS, [1, [2]], strict=False)
    ]
    other = write_rows(tmp_path / "other.jsonl", [{**ROWS[0], "id": 21, "score": 1, "meta": {"a": 1, "b": ["y"]}}])
    run = prepare(tmp_path, [write_rows(tmp_path / "first.jsonl", rows), other], {"kind": "length", "minimum": 0})
    # `chunksize`: the first rows alone decide the types that are not declared
    loaded = datasets.load_dataset(str(run.folder), chunksize=500, cache_dir=str(tmp_path / "c"))["train"]
    assert [dict(row) for row in loaded] == run.rows()
    assert loaded.features["score"].dtype == "float64"
    run = prepare(tmp_path, rows[:20] + rows[20:] * 20, {"kind": "split"}, overwrite=True)
    loaded = datasets.load_dataset(str(run.folder), cache_dir=str(tmp_path / "d"))
    assert {split: [dict(row) for row in some] for split, some in loaded.items()} == {
        "train": run.rows(),
        "test": run.rows("test"),
    }


def test_objects_with_very_many_keys_leave_the_card_readable(tmp_path):
    meta = {f"key {one}": {f"key {other}": 1 for other in range(90)} for one in range(90)}
    run = prepare(tmp_path, [{**ROWS[0], "meta": meta}], {"kind": "length", "minimum": 0})
    assert (run.folder / "README.md").stat().st_size < 5_000
    assert len(load_demonstrations([DatasetEntry(path=str(run.folder))], on_bad_row="stop", seed=0).rows) == 1
    loaded = datasets.load_dataset(str(run.folder), cache_dir=str(tmp_path / "c"))["train"]
    assert loaded[0]["meta"] == meta


def test_parquet_holds_the_same_rows(tmp_path):
    rows = [{**row, "meta": {"a": 1} if row["id"] % 2 else {"b": "x"}} for row in ROWS]
    as_lines = prepare(tmp_path, rows, CLEAN).rows()
    (tmp_path / "other").mkdir()
    run = prepare(tmp_path / "other", str(tmp_path / "data.jsonl"), CLEAN, output_format="parquet")
    stored = datasets.load_dataset(str(run.folder), cache_dir=str(tmp_path / "c"))["train"]
    assert [row["output"] for row in stored] == [row["output"] for row in as_lines]
    assert stored[0]["meta"] == {"a": None, "b": "x"}
    assert len(load_demonstrations([DatasetEntry(path=str(run.folder))], on_bad_row="stop", seed=0).rows) == 20


def test_columns_that_only_some_rows_have_are_null_elsewhere(tmp_path):
    run = prepare(tmp_path, [ROWS[0], {**ROWS[1], "source": "x"}], CLEAN)
    assert [row["source"] for row in run.rows()] == [None, "x"]


def test_several_processes_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("alignment.prepare.applying.BLOCK", 3)
    one = prepare(tmp_path, ROWS, CLEAN, LENGTH, SAMPLE)
    before = [(one.folder / name).read_bytes() for name in FILES]
    two = prepare(tmp_path, ROWS, CLEAN, LENGTH, SAMPLE, num_proc=2, overwrite=True)
    assert [(two.folder / name).read_bytes() for name in FILES] == before


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_killed_run_goes_on_behind_its_last_complete_step(tmp_path, monkeypatch, capsys, killed_at):
    steps = (CLEAN, SAMPLE, LENGTH)
    (tmp_path / "whole").mkdir()
    whole = prepare(tmp_path / "whole", write_rows(tmp_path / "data.jsonl", ROWS), *steps)
    run, done = engine._run, []

    def killing(*args):
        if len(done) == killed_at:
            raise KeyboardInterrupt
        done.append(1)
        return run(*args)

    monkeypatch.setattr(engine, "_run", killing)
    argv = write_recipe(tmp_path, str(tmp_path / "data.jsonl"), *steps)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, str(tmp_path / "data.jsonl"), *steps)
    assert not (tmp_path / "run/train.jsonl").exists()
    monkeypatch.setattr(engine, "_run", run)
    monkeypatch.setattr("recipes.prepare.read", lambda _: pytest.fail("the data are read again"))
    from recipes.prepare import main

    main(argv)
    assert "clean: done before" in capsys.readouterr().err
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_corrected_keys_of_a_step_keep_the_steps_before_it_and_changed_data_do_not(tmp_path, capsys):
    wrong = {"kind": "length", "minimum": 500}
    with pytest.raises(AlignmentError) as caught:
        prepare(tmp_path, ROWS, SAMPLE, wrong)
    assert str(caught.value) == (
        "step 2, length, would drop all 5 rows: answer below 500 words (5). Correct its keys, or take it out; the "
        "steps before it are kept."
    )
    assert caught.value.exit_code == 2
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json", "recipe.yaml", ".steps"}
    run = prepare(tmp_path, ROWS, SAMPLE, LENGTH)
    assert "sample: done before" in capsys.readouterr().err
    assert run.rows()
    with pytest.raises(AlignmentError):
        prepare(tmp_path, ROWS, SAMPLE, wrong, overwrite=True)
    capsys.readouterr()
    prepare(tmp_path, ROWS[:9], SAMPLE, LENGTH)
    assert "done before" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: it holds no rows"),
        (b"\x00\xff\x00\xfe" * 40, "every second byte is 0|invalid UTF-8|not text"),
        (b'{"instruction": "a"}\n', "no layout has these keys"),
        (b'{"instruction": "' + b"a" * ROW_BYTES + b'", "output": "b"}\n', "more than"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, content, words):
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(AlignmentError, match=words) as caught:
        prepare(tmp_path, str(tmp_path / "data.jsonl"), CLEAN)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_bad_row_is_skipped_and_recorded(tmp_path):
    run = prepare(tmp_path, [ROWS[0], {"instruction": "a", "output": 3}], CLEAN, on_bad_row="skip")
    assert run.dropped[0]["step"] == "read"
    assert run.dropped[0]["origin"] == f"{tmp_path}/data.jsonl:2"
    assert len(run.rows()) == 1


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"kind": "lenght"}, "kind"),
        ({"kind": "length"}, "neither minimum nor maximum"),
        ({"kind": "length", "minimum": 5, "maximum": 2}, "5 is above maximum 2"),
        ({"kind": "length", "minimum": -1}, "-1"),
        ({"kind": "length", "minimum": 1, "unit": "tokens"}, "tokens needs tokenizer"),
        ({"kind": "clean", "boilerplate": ["("]}, "is not a pattern"),
        ({"kind": "clean", "htlm": True}, "did you mean html"),
        ({"kind": "sample"}, "needs rows or share"),
        ({"kind": "sample", "share": 1.5}, "1.5"),
        ({"kind": "split", "shares": {"train": 1.0}}, "must have at least 2 entries"),
        ({"kind": "split", "shares": {"../x": 1.0, "b": 1.0}}, "must match the pattern "),
    ],
)
def test_wrong_keys_are_faults_of_the_recipe(tmp_path, step, words):
    with pytest.raises(RecipeError, match=words) as caught:
        recipe_of(tmp_path, ROWS, step)
    assert len(caught.value.faults) == 1


def test_two_layouts_do_not_fit_one_file(tmp_path):
    other = write_rows(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "a"}])
    with pytest.raises(AlignmentError, match=r"layouts alpaca \(.*data.jsonl:1\) and prompt_completion"):
        prepare(tmp_path, [write_rows(tmp_path / "data.jsonl", ROWS), other], CLEAN)


def test_a_step_that_finds_no_text_is_told(tmp_path, capsys):
    prepare(tmp_path, [{"prompt": "a b"}], {"kind": "refusals"})
    assert "step 1, refusals: reads answer, and no row has such a text; the rows have prompt" in capsys.readouterr().err


def test_a_row_that_was_prepared_before_keeps_its_origin(tmp_path):
    first = prepare(tmp_path, ROWS, CLEAN)
    (tmp_path / "again").mkdir()
    second = prepare(tmp_path / "again", str(first.folder), LENGTH)
    assert second.rows()[0]["row_origin"] == f"{tmp_path}/data.jsonl:1"
    assert second.dropped[0]["origin"] == f"{first.folder}/train.jsonl:12"


def test_the_command_runs_in_a_pipeline_and_its_preview_shows_roles(tmp_path):
    argv = write_recipe(tmp_path, ROWS, CLEAN, LENGTH)
    command = [sys.executable, "-m", "alignment.cli", "preview", argv[1], "--json", str(tmp_path / "p.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "p.json").read_text())["rows"][2]
    assert row["origins"][:2] == [{"part": "prompt", "column": "instruction"}, {"part": "answer", "column": "output"}]
    assert "clean: changed, whitespace" in row["segments"][2]["text"]


def test_the_doctor_builds_the_steps_and_reads_the_data(tmp_path):
    recipe = recipe_of(tmp_path, ROWS, CLEAN, {"kind": "language", "languages": ["xx"], "candidates": ["en", "de"]})
    found = {one.about: one for one in examine(recipe, Machine())}
    assert found["data"].found == "20 rows, 0 left out"
    assert found["steps"].level == "fault"
    assert "xx is no language" in found["steps"].found
    found = {one.about: one for one in examine(recipe_of(tmp_path, ROWS, CLEAN, SAMPLE), Machine())}
    assert (found["steps"].level, found["steps"].found) == ("ok", "clean, sample")


def test_a_report_shows_the_steps(tmp_path):
    run = prepare(tmp_path, ROWS, CLEAN, LENGTH)
    page = build([run.folder]).read_text()
    assert '<th scope="row">length</th><td>20</td><td>9</td><td>0</td><td>11</td>' in page


def test_a_plan_counts_rows_bytes_and_calls(tmp_path):
    prices = {"prompt": 1.0, "completion": 2.0}
    judge = {"kind": "openai", "model": "toy", "base_url": "http://localhost:1/v1", "prices": prices}
    words = write_recipe(tmp_path, ROWS, SAMPLE, {"kind": "score", "scorer": {"kind": "judge", "judge": judge}})
    told = CliRunner().invoke(app, ["plan", words[1], "--json", str(tmp_path / "plan.json")]).output
    assert "prepare: 20 rows are read" in told
    assert "at most 5 rows are written" in told
    assert "judge: 20 calls" in told
    ((found),) = json.loads((tmp_path / "plan.json").read_text())["prepared"].values()
    assert found["bytes"] == (tmp_path / "data.jsonl").stat().st_size
    assert found["calls"]["cost"] > 0


def test_no_text_of_a_row_is_printed_and_others_cannot_read_the_rows_between_steps(tmp_path, monkeypatch, capsys):
    modes = []

    def killed(*_):
        modes.append((tmp_path / "run/.steps").stat().st_mode & 0o777)
        raise KeyboardInterrupt

    monkeypatch.setattr("recipes.prepare.write_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, [{"prompt": "Call Jane", "completion": "at 555-0100"}], {"kind": "length", "minimum": 0})
    assert modes == [0o700]
    printed = capsys.readouterr()
    assert "data.jsonl: layout prompt_completion" in printed.err
    assert "Jane" not in printed.err + printed.out
    monkeypatch.undo()
    run = prepare(tmp_path, str(tmp_path / "data.jsonl"), {"kind": "length", "minimum": 0})
    assert not (run.folder / ".steps").exists()


def test_a_plan_knows_the_size_of_a_sample(tmp_path):
    recipe = recipe_of(tmp_path, ROWS, CLEAN, SAMPLE, {"kind": "length", "minimum": 1})
    assert recipe.most_rows(20) == recipe.most_rows(None) == 5
    mixed = recipe_of(
        tmp_path, ROWS, {"kind": "mix", "weights": {"d": 1.0}, "rows": 70}, {"kind": "sample", "share": 0.5}
    )
    assert mixed.most_rows(20) == 35


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["language"], "columns_added: language is a column of the rows"),
        (["output"], "output, which no step of the recipe notes; noted are dataset, language"),
        (["langage"], "prepare.yaml:.*langage, which no step of the recipe notes; did you mean language?"),
    ],
)
def test_columns_that_cannot_be_added_are_refused(tmp_path, names, words):
    with pytest.raises(AlignmentError, match=words) as caught:
        prepare(tmp_path, [{**ROWS[0], "language": "en"}], {"kind": "language"}, columns_added=names)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "step", "words"),
    [
        (
            [{"text": "a b"}],
            {"kind": "length", "on": "prompt", "maximum": 9},
            "step 1, length: reads prompt, and no row",
        ),
        ([{"text": "a b"}], {"kind": "language", "on": "prompt"}, "such a text; the rows have answer"),
        (ROWS, {"kind": "balance", "by": "language"}, "step 1, balance: no row has language"),
        (ROWS, {"kind": "exact_duplicates", "label_column": "idd"}, "no row has idd; did you mean id?"),
        (
            [{**ROWS[0], "row_origin": 5}],
            CLEAN,
            "data.jsonl:1: row_origin is 5, and the stage writes the file and line",
        ),
        ([{**ROWS[0], "row_origin": "web"}], CLEAN, "row_origin is 'web'"),
    ],
)
def test_steps_that_read_what_no_row_has_are_refused_before_anything_is_written(tmp_path, rows, step, words):
    with pytest.raises(AlignmentError, match=words) as caught:
        prepare(tmp_path, rows, step)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_help_and_errors_list_the_keys_of_each_kind(tmp_path):
    text = describe(PrepareRecipe, "steps")
    assert {f"\nsteps, kind: {name}:" for kind in AnyStep.kinds() for name in kind.kind_names()} <= {
        line and f"\n{line}" for line in text.splitlines()
    }
    assert "ngram_size" in text
    assert "tokenizer" in describe(PrepareRecipe, "length")
    assert "ngram_size" not in describe(PrepareRecipe, "length")
    with pytest.raises(RecipeError) as caught:
        recipe_of(tmp_path, ROWS, {"kind": "length", "minimun": 1}, {"minimum": 1})
    told = str(caught.value)
    assert "did you mean minimum? A step of kind length takes name, on, unit, minimum, maximum, tokenizer" in told
    assert "steps[1].kind: the required key is missing; it is one of clean, length" in told


def test_a_recipe_without_scores_starts_without_torch(tmp_path):
    words = write_recipe(tmp_path, ROWS, CLEAN)
    code = f"import sys; from recipes.prepare import main; main({words!r}); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"
