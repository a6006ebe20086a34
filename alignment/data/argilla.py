"""Records exported from Argilla 2: `dataset.records.to_json()`, and the flat rows of `to_list(flatten=True)`.

Layout: https://docs.argilla.io/latest/how_to_guides/import_export/ and `Record.to_dict` of the package argilla 2.
"""

import re
from collections.abc import Iterable
from typing import Any

from alignment.data.fields import BadRow, checked, keys_of, kind_of, text_of
from alignment.data.opinions import Opinions, Row, field_of, is_prompt, is_text, plain, prompt_among, siblings
from alignment.data.rankings import number_of, pairs_from_ranks, pairs_from_scores
from alignment.data.rows import Pair, Ranking
from alignment.strict_json import shown

TIES = frozenset(("tie", "equal", "equallygood", "same", "both", "bothgood", "bothbad", "neither", "nopreference"))
UNSURE = frozenset(("cannotsay", "unsure", "notsure", "idontknow", "dontknow", "unclear"))
OURS = frozenset(("id", "_server_id", "status"))  # keys of a flat row that are not fields


def is_argilla(row: Row) -> bool:
    """Whether a row is a record of Argilla."""
    nested = isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), dict)
    return nested or any(key.endswith(".responses.users") for key in row)


def argilla(row: Row) -> list[Ranking]:
    """Read the question that compares a record's fields: a ranking of them, a label that names one, or ratings of each.

    Returns one ranking per person. Suggestions and drafts are left out. A discarded record becomes a comparison without
    a verdict.
    """
    fields, responses = _parts(row)
    comparing = {question: given for question, given in responses.items() if _compares(question, given, fields)}
    rated = {question: given for question, given in comparing.items() if _rated_field(question, fields) is not None}
    others = [question for question in comparing if question not in rated]
    if not comparing:
        if any(responses.values()):
            raise BadRow(
                f"no question compares the fields {', '.join(fields)}: wanted a ranking of fields' names, a label that "
                f"is a field's name, or ratings named after fields; found {', '.join(responses)}"
            )
        return []
    if len(others) > 1 or (others and rated):
        raise BadRow(f"several questions compare the answers ({', '.join(comparing)}); export the one to learn from")
    if others:
        opinions = _by_choice(fields, comparing[others[0]], nested="fields" in row)
    else:
        opinions = _by_ratings(fields, rated)
    return opinions.rankings({"question": others[0] if others else "ratings", "record": checked(row.get("id"), "id")})


def _parts(row: Row) -> tuple[Row, dict[str, list[Row]]]:
    """Return the texts and, by question, the responses as objects with user_id, value and perhaps status."""
    if isinstance(row.get("fields"), dict):
        if not isinstance(row.get("responses"), dict):
            raise BadRow(f"'responses' is {kind_of(row.get('responses'))}, not an object of answers by question")
        by_question = {question: given or [] for question, given in row["responses"].items()}
        for question, given in by_question.items():
            if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
                raise BadRow(f"'responses' has no list of objects with value and user_id for {question}")
        return row["fields"], by_question
    found = {}
    for question in [key.removesuffix(".responses.users") for key in row if key.endswith(".responses.users")]:
        names = [f"{question}.responses{end}" for end in ("", ".users", ".status")]
        values, users, statuses = (_list_of(row, name) for name in names)
        statuses = statuses or [None] * len(values)
        if not len(values) == len(users) == len(statuses):
            raise BadRow(f"{names[0]} holds {len(values)} values, {len(users)} users and {len(statuses)} statuses")
        found[question] = [
            {"value": value, "user_id": user, "status": status}
            for value, user, status in zip(values, users, statuses, strict=True)
        ]
    if not found:
        raise BadRow(f"the row has neither 'fields' and 'responses' nor QUESTION.responses.users; found {keys_of(row)}")
    return {key: value for key, value in row.items() if "." not in key and key not in OURS and is_text(value)}, found


def _list_of(row: Row, name: str) -> list[Any]:
    value = row.get(name)
    if value is not None and not isinstance(value, list):
        raise BadRow(f"'{name}' is {kind_of(value)}, not a list")
    return value or []


def _compares(question: str, given: list[Row], fields: Row) -> bool:
    values = [one.get("value") for one in given if one.get("value") is not None]
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _rated_field(question, fields) is not None
    if values and all(isinstance(value, str) for value in values):
        return {plain(value) for value in values} <= {plain(name) for name in fields} | TIES | UNSURE
    return bool(values) and all(
        isinstance(value, list) and len(value) > 1 and all(field_of(_name(one), fields) for one in value)
        for value in values
    )


def _rated_field(question: str, fields: Row) -> str | None:
    """The field that a question such as `response1-rating` or `score_response1` rates."""
    bare = re.sub(r"rating|score", "", question, flags=re.IGNORECASE)
    return field_of(bare, fields) if bare != question else None


def _by_choice(fields: Row, given: list[Row], *, nested: bool) -> Opinions:
    values = [one["value"] for one in given if one.get("value") is not None]
    if isinstance(values[0], list):
        names = {field_of(_name(one), fields) for value in values for one in value}
        answers = [name for name in fields if name in names]
    else:
        chosen = {name for value in values if (name := field_of(value, fields)) is not None}
        answers = sorted({name for one in chosen for name in siblings(one, fields)}, key=list(fields).index)
        if len(answers) < 2 and nested:  # other texts of a flat row may be metadata
            answers = [name for name in fields if is_text(fields[name]) and not is_prompt(name)]
        if len(answers) < 2 or not chosen <= set(answers):
            raise BadRow(f"which of the fields {', '.join(fields)} are the answers? name them response1, response2 …")
    opinions = Opinions(prompt_among(fields, answers), [text_of(fields, name) for name in answers])
    for person, value in _submitted(given):
        opinions.said.append((person, None if value is None else _pairs(value, answers, fields)))
    return opinions


def _pairs(value: Any, answers: list[str], fields: Row) -> list[Pair] | None:
    if isinstance(value, list):
        ranks = {}
        for place, one in enumerate(value, start=1):
            rank = one.get("rank") if isinstance(one, dict) else None
            ranks[field_of(_name(one), fields)] = float(place) if rank is None else number_of(rank, "'rank'")
        known = [index for index, name in enumerate(answers) if name in ranks]
        if len(known) != len(value):
            raise BadRow(f"a ranking names an answer twice: {shown(value)}")
        return _placed(pairs_from_ranks([ranks[answers[index]] for index in known]), known)
    if plain(value) in UNSURE:
        return None
    if plain(value) in TIES:
        return pairs_from_ranks([1.0] * len(answers))
    name = field_of(value, fields)
    if name not in answers:
        raise BadRow(f"the label {shown(value)} names none, or more than one, of the answers {', '.join(answers)}")
    best = answers.index(name)
    others = [index for index in range(len(answers)) if index != best]
    return [Pair(min(best, other), max(best, other), float(best < other)) for other in others]


def _by_ratings(fields: Row, questions: dict[str, list[Row]]) -> Opinions:
    rated = {_rated_field(question, fields): given for question, given in questions.items()}
    answers = [name for name in fields if name in rated]
    if len(answers) < len(questions) or len(answers) < 2:
        raise BadRow(f"the ratings {', '.join(questions)} are not of two or more answers, each rated by one question")
    by_person: dict[str, dict[str, Any]] = {}
    for name in answers:
        for person, value in _submitted(rated[name]):
            by_person.setdefault(person, {})[name] = value
    opinions = Opinions(prompt_among(fields, answers), [text_of(fields, name) for name in answers])
    for person, ratings in by_person.items():
        known = [index for index, name in enumerate(answers) if ratings.get(name) is not None]
        scores = [number_of(ratings[answers[index]], "a rating") for index in known]
        opinions.said.append((person, _placed(pairs_from_scores(scores), known) if len(known) > 1 else None))
    return opinions


def _submitted(given: list[Row]) -> Iterable[tuple[str, Any]]:
    """Yield people with their value, None if they discarded the record."""
    for one in given:
        status = one.get("status") or "submitted"
        if status not in ("submitted", "discarded", "draft"):
            raise BadRow(f"a response has the status {shown(status)}; known are submitted, discarded and draft")
        if status != "draft":
            yield str(one.get("user_id") or "unknown"), None if status == "discarded" else one.get("value")


def _placed(pairs: list[Pair], places: list[int]) -> list[Pair]:
    """Return pairs of some answers as pairs of all answers, by their places."""
    return [Pair(places[pair.first], places[pair.second], pair.probability, pair.status, pair.margin) for pair in pairs]


def _name(one: Any) -> Any:
    return one.get("value") if isinstance(one, dict) else one
