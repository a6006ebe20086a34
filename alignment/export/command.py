"""The command `alignment export`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignment.config.pipelines import load_pipeline
from alignment.config.tasks import CLASSIFIER
from alignment.errors import AlignmentError, ModelError, RecipeError, named_inputs
from alignment.export.ancestry import ancestry
from alignment.export.card import Exported, card
from alignment.export.evaluations import evaluations_of
from alignment.export.files import Source, Written, find_source, write
from alignment.export.hub import push, require_repository
from alignment.export.licences import CARD, IDENTIFIER
from alignment.manifest import read_manifest
from alignment.pipeline.runner import STATE
from alignment.policy.new_folder import REPORT, beside, require_free, seal
from alignment.policy.weights import weights_hash
from alignment.run.files import naming_the_disk, read_json_object
from alignment.strict_json import shown


@dataclass(frozen=True)
class Wanted:
    """What is exported and how."""

    run: Path
    out: Path
    as_adapter: bool = False
    licence: str | None = None
    evaluation: Path | None = None
    tolerance: float | None = None
    push: str | None = None
    public: bool = False
    trust_remote_code: bool = False


def export(wanted: Wanted, say: Callable[[str], None]) -> None:
    """Write a model's folder with its card, and push it where that is wanted.

    Raises: AlignmentError; nothing is left at `out`, unless only the push failed.
    """
    _require(wanted)
    with named_inputs(AlignmentError):
        require_free(wanted.out)
        run = _run_of(wanted.run, say)
        source = find_source(run, as_adapter=wanted.as_adapter, trust_remote_code=wanted.trust_remote_code)
        evaluations = evaluations_of(run, wanted.evaluation)
    with named_inputs():
        with naming_the_disk(wanted.out), beside(wanted.out) as folder:
            written = write(source, folder, as_adapter=wanted.as_adapter, tolerance=wanted.tolerance, out=wanted.out)
            exported = _described(source, written, wanted)
            text = card(exported, ancestry(run), evaluations, wanted.licence)
            (folder / CARD).write_text(text, encoding="utf-8")
            seal(folder, written.report, REPORT)
    say(f"{wanted.out}: {' '.join(written.notes)}")
    if wanted.push is not None:
        say(f"pushed to {push(wanted.out, wanted.push, public=wanted.public)}")


def _require(wanted: Wanted) -> None:
    """Refuse options that cannot be, before anything loads.

    Raises: RecipeError.
    """
    if wanted.push is not None:
        require_repository(wanted.push)
    elif wanted.public:
        raise RecipeError(["--public makes a pushed repository public; name one with --push OWNER/NAME"])
    if wanted.licence is not None and not IDENTIFIER.fullmatch(wanted.licence):
        raise RecipeError([f"--license {shown(wanted.licence)}: write the Hub's identifier, such as apache-2.0"])
    if wanted.as_adapter and wanted.tolerance is not None:
        raise RecipeError(["--tolerance is for merging; leave it out with --adapter"])


def _run_of(path: Path, say: Callable[[str], None]) -> Path:
    """Return the run behind a path: itself, or the last policy that a pipeline trained.

    Raises: ModelError if a pipeline has trained none.
    """
    folder = Path(load_pipeline(str(path)).output_dir) if path.suffix in (".yaml", ".yml") and path.is_file() else path
    if not (folder / STATE).is_file():
        members = read_manifest(folder).get("members")
        if members:
            raise ModelError(f"{folder} is an ensemble; export one of its members, such as {folder / members[0]}.")
        return folder
    stages = read_json_object(folder / STATE).get("stages", {})
    trained = [folder / name for name in stages if _is_policy(folder / name)]
    if not trained:
        raise ModelError(f"{folder} is a pipeline that has trained no policy yet; name a run.")
    say(f"{folder} is a pipeline; its last policy, {trained[-1].name}, is exported")
    return trained[-1]


def _is_policy(folder: Path) -> bool:
    manifest = read_manifest(folder)
    is_model = any((folder / name).is_file() for name in ("adapter_config.json", "config.json"))
    return is_model and manifest.get("status") == "finished" and manifest.get("stage") != "reward"


def _described(source: Source, written: Written, wanted: Wanted) -> Exported:
    template = None if source.task == CLASSIFIER else source.template
    stops = template.stop_token_ids if template is not None else []
    return Exported(
        name=wanted.push or wanted.out.name,
        run=source.run,
        task=source.task,
        is_adapter=wanted.as_adapter,
        base=source.source.base,
        base_hash=weights_hash(source.source.base),
        stops=source.tokenizer.convert_ids_to_tokens(stops),
        stop_ids=stops,
        chats=template is not None and template.chat_template is not None,
        notes=written.notes,
        rank=written.rank,
    )
