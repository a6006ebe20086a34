"""Building of one self-contained HTML page from run directories."""

import base64
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alignment.report import charts
from alignment.report.answers import Example, from_evaluation, from_samples
from alignment.report.leaderboards import boards_of
from alignment.report.reading import Runs, read_runs
from alignment.report.stages import stage_views, training_judges
from alignment.report.tables import Evaluation, evaluation_of, reward_accuracy
from alignment.report.wording import duration, moment
from alignment.run.files import write_atomic

HERE = Path(__file__).parent  # folder of the template, its style and its script

EXAMPLES_UNFOLDED = 4


def build(run_paths: list[Path], out: Path | None = None) -> Path:
    """Write the page.

    Args:
        run_paths: run directories, or a pipeline's folder of them.
        out: default `report.html` in the first.

    Returns: the path of the page. Raises: AlignmentError if a path is not a run.
    """
    paths = [Path(path) for path in run_paths]
    page = render(read_runs(paths))
    out = Path(out) if out is not None else paths[0] / "report.html"
    write_atomic(out, page.encode("utf-8", "replace"))  # half of a surrogate pair is shown as ?
    return out


def render(found: Runs) -> str:
    """Return the page's HTML. Everything that comes from a run is escaped by the template."""
    judges = training_judges(found.runs)
    evaluations = [evaluation_of(run, judges) for run in found.runs if run.results]
    for run, evaluation in zip([run for run in found.runs if run.results], evaluations, strict=True):
        evaluation.boards = boards_of(run, evaluation.tones)
    tones = {name: tone for evaluation in evaluations for name, tone in evaluation.tones.items()}
    return fill(
        HERE / "page.html.jinja",
        name=found.name,
        when=moment(found.finished),
        time=duration(found.seconds) if found.seconds is not None else "",
        problems=found.problems,
        evaluations=evaluations,
        labels_accuracy=[
            track for run in found.runs if run.makes == "reward_model" for track in reward_accuracy(run, found.runs)
        ],
        stages=stage_views(found.runs, tones),
        examples=_examples(found, evaluations),
        shown=EXAMPLES_UNFOLDED,
    )


def fill(template: Path, **values: Any) -> str:
    """Return the HTML of a self-contained page with this report's style, script and macros."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, HERE]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["embedded"] = embedded
    script = (HERE / "readout.js").read_text(encoding="utf-8")
    return environment.get_template(template.name).render(
        **values,
        version=importlib.metadata.version("alignment-stack"),
        drawing=charts,
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # Besides escaping: only the page's own script may run, and nothing may be fetched.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def embedded(value: Any) -> str:
    """JSON for an attribute; the template's escaping does the rest."""
    return json.dumps(value, separators=(",", ":"))


def _examples(found: Runs, evaluations: list[Evaluation]) -> list[Example]:
    evaluated = [run for run in found.runs if run.results]
    examples = [
        example
        for run, evaluation in zip(evaluated, evaluations, strict=True)
        for example in from_evaluation(run, evaluation.tones)
    ]
    return examples or [example for run in found.runs for example in from_samples(run)]
