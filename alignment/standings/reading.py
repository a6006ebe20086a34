"""Reads files of judgements; the layout is recognised by a file's content, never by its name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.config.schema import DatasetEntry
from alignment.config.schema.require import PERSON
from alignment.data.fields import BadRow, keys_of
from alignment.data.load import load
from alignment.data.load import ranking as comparable
from alignment.data.readers import RawSource, read_file
from alignment.data.rows import POLICIES, USABLE, Pair, Ranking, SingleVerdict
from alignment.data.source_rows import OnBadRow
from alignment.data.splits import prompt_key
from alignment.errors import DataError
from alignment.evaluate.statistics import wins
from alignment.meter import say_left_out
from alignment.run.directory import PEOPLE
from alignment.standings.battles import Battle, Battles, Orders
from alignment.standings.layouts import LAYOUTS, Layout, is_prompt, layout_of

ANSWERS, ANNOTATIONS, LABELS = "answers.jsonl", "annotations.json", "labels.jsonl"
Labelled = tuple[Ranking, float | None]  # with the file's label, as a probability that the first answer is better
Recordings = Callable[[Path], list[Labelled] | None]  # of a file or folder of recorded verdicts; None: it is none
OUTPUTS = ("instruction", "output", "generator")


class NothingJudged(DataError):
    """The files are whole, and hold no judgement of two models' answers."""


@dataclass
class Outputs:
    """Answers whose models are known, from files of outputs and from evaluations."""

    models: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (prompt, text) → models
    texts: dict[tuple[str, str], str] = field(default_factory=dict)  # (prompt, model) → text
    files: dict[str, str] = field(default_factory=dict)  # file → the model of its answers

    def add(self, prompt: str, model: str, text: str) -> None:
        """Keep one answer."""
        known = self.models.setdefault((prompt, text.strip()), [])
        if model not in known:
            known.append(model)
        self.texts[prompt, model] = text


def read_battles(
    paths: Sequence[Path],
    *,
    on_bad_row: OnBadRow = "stop",
    entry: Mapping[str, Any] | None = None,
    recordings: Recordings | None = None,
) -> Battles:
    """Read judgements of any known layout; folders are those of evaluations, label runs and AlpacaEval's results.

    Args:
        entry: keys of a recipe's data set entry, for files of rankings.
        recordings: reads recorded verdicts.
    Raises: DataError naming file and line if a path cannot be read, or a row breaks its layout; NothingJudged.
    """
    found, outputs = Battles(), Outputs()
    ranked: list[tuple[Path, list[Labelled]]] = []
    for path in [file for given in paths for file in _files_of(given)]:
        if str(path) in found.layouts:
            raise DataError(f"{path} is named twice; its judgements would count twice. Name it once.")
        recorded = recordings(path) if recordings is not None else None
        if recorded is not None:
            found.layouts[str(path)] = "recorded verdicts of LLMBar's evaluators"
            if recorded:
                _keep_hash(path, str(recorded[0][0].provenance["prompt_hash"]), found)  # the file's
            ranked.append((path, recorded))
            continue
        source = read_file(path)
        _keep_hash(path, source.sha256, found)
        first = next((row.value for row in source.rows if row.fault is None), None)
        layout = layout_of(first)
        if layout is not None:
            found.rows += _rows(source, layout, on_bad_row, found)
            _keep_answers(source, outputs)
        elif isinstance(first, dict) and first.keys() >= set(OUTPUTS):
            _read_outputs(source, outputs, found)
        else:
            ranked.append((path, [(each, None) for each in _rankings(path, first, entry or {}, on_bad_row, found)]))
    for path, rankings in ranked:
        found.rows += _of_rankings(path, rankings, outputs, found)
    found.rows = [_with_lengths(battle, outputs) for battle in found.rows]
    if not found.rows:
        raise _nothing(paths, outputs)
    return found


def _keep_hash(path: Path, digest: str, found: Battles) -> None:
    if same := [file for file, known in found.files.items() if known == digest]:
        raise DataError(f"{path} has the same content as {same[0]}; its judgements would count twice. Name one.")
    found.files[str(path)] = digest


def _files_of(path: Path) -> list[Path]:
    """Return the files of a folder that are read, or the file itself."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a file of judgements, or a run's folder.")
    if not path.is_dir() or (path / "result.json").is_file():
        return [path]
    inside = [path / name for name in (ANSWERS, LABELS, ANNOTATIONS, PEOPLE) if (path / name).is_file()]
    inside = inside or sorted(path.glob(f"*/{ANNOTATIONS}"))  # by annotator, as in AlpacaEval's results
    if not inside:
        raise DataError(
            f"{path} has no judgements: none of {ANSWERS}, {LABELS}, {PEOPLE} and {ANNOTATIONS} is in it. Name a file, "
            "or the folder of an evaluation or of a label run."
        )
    return inside


def _rows(source: RawSource, layout: Layout, on_bad_row: OnBadRow, found: Battles) -> list[Battle]:
    """Return the judgements of a file, all rows of one layout."""
    battles: list[Battle] = []
    skipped: list[str] = []
    for place, raw in enumerate(source.rows):
        try:
            if raw.fault is not None:
                raise BadRow(raw.fault)
            if layout_of(raw.value) is not layout:
                raise BadRow(f"the row has not the keys {layout.keys} of {layout.name}, as the first one has")
            own = f"row {place} of {source.name}"
            battles += [replace(one, where=raw.where, cluster=one.cluster or own) for one in layout.read(raw.value)]
        except BadRow as error:
            if on_bad_row == "stop":
                raise DataError(f"{raw.where}: {error}. Correct the row, or set --on_bad_row skip.") from None
            skipped.append(f"{raw.where}: {error}")
    say_left_out(skipped, len(source.rows), "rows")
    found.skipped += skipped
    found.layouts[source.name] = layout.name
    judges = {battle.judge for battle in battles} - {""}
    only = next(iter(judges)) if len(judges) == 1 else Path(source.name).stem
    return [battle if battle.judge else replace(battle, judge=only) for battle in battles]


def _keep_answers(source: RawSource, outputs: Outputs) -> None:
    """Keep the answers of our evaluations, whose people's labels name no policy."""
    for raw in source.rows:
        row = raw.value if isinstance(raw.value, dict) else {}
        answers = row.get("answers")
        if isinstance(answers, dict) and is_prompt(row.get("prompt")):
            for model, text in answers.items():
                outputs.add(prompt_key(row["prompt"]), model, str(text))


def _read_outputs(source: RawSource, outputs: Outputs, found: Battles) -> None:
    names: dict[str, None] = {}
    for raw in source.rows:
        row = raw.value if isinstance(raw.value, dict) else {}
        if raw.fault is not None or not all(isinstance(row.get(key), str) for key in OUTPUTS):
            raise DataError(f"{raw.where}: {raw.fault or 'the row has not the texts ' + ', '.join(OUTPUTS)}.")
        outputs.add(prompt_key(row["instruction"]), row["generator"], row["output"])
        names[row["generator"]] = None
    outputs.files[source.name] = ", ".join(names)
    found.layouts[source.name] = f"outputs of {', '.join(names)}"


def _rankings(
    path: Path, first: object, keys: Mapping[str, Any], on_bad_row: OnBadRow, found: Battles
) -> list[Ranking]:
    """Read a file of the data layer's layouts of preferences."""
    try:
        loaded = load([DatasetEntry(path=str(path), **keys)], comparable, on_bad_row, 0, None)
    except DataError as error:
        if "\n" not in str(error):
            raise
        known = "; ".join(f"{layout.name} ({layout.keys})" for layout in LAYOUTS)
        has = f"its first row has {keys_of(first)}" if isinstance(first, dict) else "it has none"
        raise DataError(
            f"{path}: has no layout of judgements: {has}. Known: {known}; labels (prompt, responses, pairs), and the "
            "layouts of preferences in docs/data.md."
        ) from None
    found.skipped += loaded.skipped
    found.layouts[str(path)] = f"labels in the layout {next(iter(loaded.formats.values()))}"
    return loaded.rows


def _of_rankings(path: Path, rankings: Iterable[Labelled], outputs: Outputs, found: Battles) -> list[Battle]:
    """Return the pairs of rankings as judgements on the models of their answers."""
    battles: list[Battle] = []
    unnamed, of_evaluation = False, str(path.with_name(ANSWERS)) in found.files
    for ranking, label in rankings:
        cluster = prompt_key(ranking.prompt)
        names = _names(ranking, cluster, outputs, by_texts=of_evaluation)
        if of_evaluation and names is None:  # people ranked the answers of an earlier run
            found.stale += 1
            continue
        unnamed = unnamed or names is None
        names = names or [f"answer {place}" for place in range(1, len(ranking.responses) + 1)]
        read = (_of_pair(ranking, pair, names, cluster, path) for pair in ranking.pairs)
        battles += read if label is None else [replace(battle, correct=label) for battle in read]
    if unnamed:
        found.unnamed.append(str(path))
    return battles


def _of_pair(ranking: Ranking, pair: Pair, names: Sequence[str], cluster: str, path: Path) -> Battle:
    texts = ranking.responses[pair.first], ranking.responses[pair.second]
    shown = {one.shown for one in pair.verdicts}
    orders: Orders = "unknown" if not shown else "both" if len(shown) == 2 else "one"
    return Battle(
        cluster, names[pair.first], names[pair.second], pair.probability if pair.status in USABLE else None,
        _judge(ranking, path), pair.status, (len(texts[0]), len(texts[1])), orders, _consistent(pair.verdicts),
        str(ranking.provenance.get("subset") or ""), where=ranking.source,
    )  # fmt: skip


def _consistent(verdicts: Sequence[SingleVerdict]) -> bool | None:
    """Return whether both orders of the first asking named the same winner; None unless both are usable."""
    known = {one.shown: one.probability for one in reversed(verdicts) if one.probability is not None}
    if len(known) < 2:
        return None
    forward, backward = wins([known["first"], known["swapped"]])
    return bool(forward == 1 - backward)


def _names(ranking: Ranking, cluster: str, outputs: Outputs, by_texts: bool) -> list[str] | None:
    """Return the model of each answer: by provenance, else by the texts of known outputs; None if one is not known."""
    given = ranking.provenance.get(POLICIES)
    if given is not None and not by_texts:
        return list(given)
    names: list[str] = []
    for text in ranking.responses:
        known = outputs.models.get((cluster, text.strip()), [])
        name = next((each for each in known if each not in names), None)
        if name is None:
            return None
        names.append(name)
    return names


def _judge(ranking: Ranking, path: Path) -> str:
    provenance = ranking.provenance
    if provenance.get("source") == "person":
        return f"{PERSON}{provenance.get('annotator') or 'somebody'}"
    return str(provenance.get("judge") or path.stem)


def _with_lengths(battle: Battle, outputs: Outputs) -> Battle:
    texts = [outputs.texts.get((battle.cluster, model)) for model in (battle.first, battle.second)]
    if battle.lengths is not None or texts[0] is None or texts[1] is None:
        return battle
    return replace(battle, lengths=(len(texts[0]), len(texts[1])))


def _nothing(paths: Sequence[Path], outputs: Outputs) -> NothingJudged:
    named = ", ".join(map(str, paths))
    if outputs.files:
        held = "; ".join(f"{file}: answers of {model}" for file, model in outputs.files.items())
        return NothingJudged(
            f"{held}. Answers alone have no win rate: nobody has compared them. Name the annotations of these answers "
            "too, or have a judge compare them with `alignment label` (responses: given) and name its labels here."
        )
    return NothingJudged(f"{named}: there is no judgement of two models' answers.")
