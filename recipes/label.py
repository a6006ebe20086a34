"""Labelling: sample K answers to every prompt, compare them by a judge, write rankings.

alignment label --config recipes/tiny/label.yaml [--key value …]
    --dry-run   prints calls, tokens and cost, and makes no call
    --reparse   writes the labels of a finished run again from its recorded calls
With `revisions`, answers revised by a constitution are in revisions.jsonl.
"""

import sys

from alignment.calls.session import caller_of, recording, usage
from alignment.calls.store_rows import unanswered
from alignment.config import load_recipe
from alignment.config.schema import LabelRecipe
from alignment.data import ranking_to_json
from alignment.run.directory import RunDirectory
from alignment.run.files import write_jsonl
from alignment.run.script import script
from reward.audit.gate import accept, ask_gold
from reward.feedback.answers import given_answers, sampled_answers
from reward.feedback.labeler import summary
from reward.feedback.revising import revised, reviser_for
from reward.feedback.sampling import require_one_process
from reward.feedback.stage import dry_run, labels_of, read_inputs, reparse, write_revisions
from reward.judges import build_judge
from reward.labels.files import LABELS
from reward.preview.prompts import labelled

preview = labelled  # reads the rows that `alignment preview` shows


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(LabelRecipe, sys.argv[1:] if argv is None else argv)
    require_one_process()
    if recipe.dry_run:
        print(dry_run(recipe))  # noqa: T201
        return
    if recipe.reparse:
        print(f"{recipe.output_dir}: {reparse(recipe)['statuses']}")  # noqa: T201
        return
    caller = caller_of(recipe.judge, recipe, recipe.max_concurrency)
    judge = build_judge(recipe.judge, caller)  # before anything is written: without a judge there is no run
    reviser = reviser_for(recipe, caller)
    data = read_inputs(recipe)  # unreadable data is refused before anything is written
    run = RunDirectory.open(recipe, expendable=unanswered)
    who = {"judge": judge.name, "prompt_hash": judge.prompt_hash}
    run.record(judge=who)
    with recording(run.path, [recipe.judge], recipe, [caller], may_rebind=True) as store:
        on_gold = ask_gold(recipe, run, lambda people: labels_of(recipe, people, judge, caller, {}, all_pairs=True))
        if recipe.responses == "given":
            samples, provenance = given_answers(data, run, store), {}
        else:
            samples, provenance = sampled_answers(recipe, data, run, store)
        run.record(provenance=provenance)
        rankings = labels_of(recipe, samples, judge, caller, provenance)
        revisions = revised(recipe, samples, reviser, caller, provenance) if reviser else None
        run.record(judge={**who, "models": store.models(judge.name)})
        used = usage(store, [recipe.judge])
    rankings = accept(recipe, run, rankings, on_gold)
    rows = [ranking_to_json(ranking) for ranking in rankings]
    write_jsonl(run.path / LABELS, rows)
    run.table("labels", rows)
    run.finish(**summary(rankings), **write_revisions(run.path, revisions), usage=used)


if __name__ == "__main__":
    script(main)
