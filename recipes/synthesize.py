"""Synthesis: have a language model write instruction data from few seeds.

alignment synthesize --config recipes/tiny/synthesize.yaml [--key value …]
    --dry-run   prints calls, tokens and cost, and makes no call
    --reparse   writes the rows of a finished run again from its recorded calls
The rows are in train.jsonl, everything that was left out, with its reason, is in dropped.jsonl, and the page
synthesize.html shows both.
"""

import sys

from alignment.calls.session import caller_of, recording, usage
from alignment.calls.store_rows import unanswered
from alignment.config import load_recipe
from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.preview.seeds import seeds_shown
from alignment.report.synthesized import write_page
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.synthesize.rows import load_seeds
from alignment.synthesize.stage import dry_run, reparse, synthesized, write_rows, writer_of
from reward.feedback.sampling import require_one_process

preview = seeds_shown  # reads the rows that `alignment preview` shows


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(SynthesizeRecipe, sys.argv[1:] if argv is None else argv)
    require_one_process("synthesize")
    if recipe.dry_run:
        print(dry_run(recipe))  # noqa: T201
        return
    if recipe.reparse:
        rows, record, results = reparse(recipe)
        write_page(recipe, rows, record.dropped, results)
        print(f"{recipe.output_dir}: {len(rows)} rows")  # noqa: T201
        return
    seeds = load_seeds(recipe)  # unreadable data is refused before anything is written
    caller = caller_of(recipe.writer, recipe, recipe.max_concurrency)
    writer = writer_of(recipe, caller)  # likewise: without a writer there is no run
    run = RunDirectory.open(recipe, expendable=unanswered)
    run.record(data=seeds.files, skipped=seeds.skipped, writer={"name": writer.name, "prompt_hash": writer.prompt_hash})
    with recording(run.path, [recipe.writer], recipe, [caller], may_rebind=True, outcomes=True) as store:
        store.bind(seeds=[[seed.source, seed.text] for seed in seeds.seeds], writer=writer.name)
        rows, record, results = synthesized(recipe, seeds, writer)
        used = usage(store, [recipe.writer])
        models = store.models(writer.name)
    write_rows(run, rows, record)
    write_page(recipe, rows, record.dropped, results)
    run.record(writer={"name": writer.name, "prompt_hash": writer.prompt_hash, "models": models})
    run.table("rows", rows)
    run.finish(**results, usage=used)


if __name__ == "__main__":
    script(main)
