"""The user's own model of named entities: a spaCy pipeline, or a token classifier of transformers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from presidio_analyzer import LocalRecognizer, RecognizerResult

from alignment.data.prepare.pii.recogniser import explained
from alignment.data.prepare.pii.texts import windows
from alignment.errors import ModelError, first_line

Found = Iterable[tuple[int, int, str, float]]  # beginning, end, label, score
Predict = Callable[[str], Found]
PIECE, OVERLAP = 1_200, 200  # characters that a token classifier reads at once, and that two pieces share
# Labels of CoNLL-2003, OntoNotes 5 and presidio; None: no personal data.
TYPES: dict[str, str | None] = {
    **dict.fromkeys(["PER", "PERSON"], "PERSON"),
    **dict.fromkeys(["LOC", "LOCATION", "GPE", "FAC"], "LOCATION"),
    **dict.fromkeys(["ORG", "ORGANIZATION"], "ORGANIZATION"),
    **dict.fromkeys(["NORP", "NRP"], "NRP"),
    **dict.fromkeys(["DATE", "TIME", "DATE_TIME"], "DATE_TIME"),
    **dict.fromkeys(["MISC", "CARDINAL", "ORDINAL", "MONEY", "PERCENT", "QUANTITY", "PRODUCT", "EVENT"], None),
    **dict.fromkeys(["WORK_OF_ART", "LAW", "LANGUAGE", "O"], None),
}


class NamedEntities(LocalRecognizer):
    """Finds what a model of named entities labels."""

    def __init__(self, predict: Predict, types: Mapping[str, str | None], threshold: float) -> None:
        """`types`: label of the model → type of personal data, or None."""
        self._predict, self._types, self._threshold = predict, types, threshold
        super().__init__(supported_entities=sorted({kind for kind in types.values() if kind}))

    def load(self) -> None:
        """Do nothing: the model is loaded."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Return the entities of known labels whose score reaches the threshold."""
        return [
            RecognizerResult(kind, start, end, score, explained(self, score))
            for start, end, label, score in self._predict(text)
            if (kind := self._types[label]) is not None and score >= self._threshold
        ]


def named_entities(
    kind: Literal["spacy", "transformers"], path: str, labels: Mapping[str, str | None], threshold: float
) -> NamedEntities:
    """Load a model.

    Args:
        path: a spaCy pipeline's folder or package, or the folder of a token classifier (safetensors).
        labels: label of the model → type, or None for labels to ignore; added to `TYPES`.

    Raises: ModelError if it cannot be loaded, does not label entities, or has labels of no type.
    """
    predict, names = (_spacy if kind == "spacy" else _transformers)(path)
    types = {**TYPES, **labels}
    unused = sorted(labels.keys() - set(names))
    if unused:
        raise ModelError(f"{path}: no label is {unused[0]}; the model has {', '.join(names)}.")
    unknown = [name for name in names if name not in types]
    if unknown:
        raise ModelError(
            f"{path}: the label {unknown[0]} has no type of personal data; give ner.labels: {{{unknown[0]}: TYPE}}, or "
            "null to ignore it."
        )
    return NamedEntities(predict, {name: types[name] for name in names}, threshold)


def _spacy(path: str) -> tuple[Predict, list[str]]:
    import spacy

    try:
        model = spacy.load(path)
    except Exception as error:  # a missing package, a damaged file, or a component that is not installed
        raise ModelError(f"{path}: no spaCy pipeline can be loaded: {first_line(error)}") from error
    names = {str(name) for part in ("ner", "entity_ruler", "span_ruler") for name in model.pipe_labels.get(part, ())}
    if not names:
        raise ModelError(
            f"{path}: the spaCy pipeline labels no entities; it has {', '.join(model.pipe_names) or 'nothing'}."
        )

    def predict(text: str) -> Iterator[tuple[int, int, str, float]]:
        for each in model(text).ents:
            yield each.start_char, each.end_char, each.label_, 0.85  # spaCy gives no score; presidio's for its entities

    return predict, sorted(names)


def _transformers(path: str) -> tuple[Predict, list[str]]:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    if not (Path(path) / "config.json").is_file():
        raise ModelError(f"{path}: is not the folder of a token classifier; it has no config.json.")
    try:
        model = AutoModelForTokenClassification.from_pretrained(path, use_safetensors=True, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise ModelError(f"{path}: no token classifier can be loaded: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{path}: the tokenizer gives no places of tokens in the text; save it as a fast tokenizer.")
    run = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    names = sorted({_bare(str(label)) for label in model.config.id2label.values()})

    def predict(text: str) -> Iterator[tuple[int, int, str, float]]:
        for offset, piece in windows(text, PIECE, OVERLAP):
            for each in run(piece):
                yield each["start"] + offset, each["end"] + offset, _bare(each["entity_group"]), float(each["score"])

    return predict, names


def _bare(label: str) -> str:
    """Return a label without the mark of its place in an entity (`B-`, `I-`)."""
    return label[2:] if label[:2] in ("B-", "I-", "E-", "S-", "L-", "U-") else label
