"""The step `template`: what templates write, what they may not do, and which rows serve as examples."""

import random

import pytest

from alignment.config.schema.steps import step_entry
from alignment.data.prepare.step import Change, Drop, Row, StepError
from alignment.data.prepare.template.sandbox import Sandbox, TemplateFault
from alignment.errors import AlignmentError
from alignment.prepare.applying import built
from tests.prepare.running import SHARED, prepare, recipe_of

MOOD = {"name": "mood", "template": "Mood of: {{text}} ||| {{answer_choices[label]}}", "answer_choices": "bad ||| good"}
ASK = {"name": "ask", "template": "{{text}}\nGood or bad? ||| {{ ['bad', 'good'][label] }}"}
ROWS = [{"text": f"film {number}", "label": number % 2} for number in range(8)]
P3 = r"""dataset: reviews
templates:
  5f2a: !Template
    answer_choices: negative ||| positive
    id: 5f2a
    jinja: "{% if label != -1 %}{{text|replace('-', ' ')}}\nIs it {{'good'}}?\n|||{{ answer_choices[label]}}{%endif%}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      metrics: [Accuracy]
      original_task: true
    name: is_it
    reference: ''
  77aa: !Template
    answer_choices: null
    id: 77aa
    jinja: |-
      {% set words = [] %}{% for a, b in zip(text.split(), text.split()) %}{{ words.append(a ~ b) or "" }}{% endfor %}
      {{ ["Say", "Tell"] | choice }}: {{ most_seen | most_frequent | join(",") }} ||| {{ words | join(" ") }}
    metadata: !TemplateMetadata {}
    name: doubled
    reference: ''
"""


def step(**keys):
    return built(step_entry(kind="template", **keys), 1, 0, {}).step


def row(value, place=0, **notes):
    return Row(value, f"f:{place}", "", notes, place)


def made(outcome):
    assert isinstance(outcome, Change), outcome
    return [each.value for each in outcome.rows]


def test_writes_pairs_of_the_columns_and_notes_the_template_and_the_choices():
    (found,) = step(templates=[MOOD]).apply(row({"text": "so ||| so", "label": 1})).rows
    assert found.value == {"prompt": "Mood of: so ||| so", "completion": "good"}  # a separator of the row's stays
    assert found.layout == "prompt_completion"
    assert found.notes == {"template": "mood", "answer_choices": ["bad", "good"]}
    assert found.origin == "f:0"


def test_templates_are_drawn_by_seed_and_row():
    one = step(templates=[MOOD, ASK])
    drawn = [one.apply(row(value, place)).rows[0].notes["template"] for place, value in enumerate(ROWS * 8)]
    again = [one.apply(row(value, place)).rows[0].notes["template"] for place, value in enumerate(ROWS * 8)]
    assert drawn == again
    assert 20 < drawn.count("mood") < 44  # of 64
    both = step(templates=[MOOD, ASK], per_row=2).apply(row(ROWS[0]))
    assert sorted(each["prompt"] for each in made(both)) == ["Mood of: film 0", "film 0\nGood or bad?"]


def test_reads_promptsource_s_files(tmp_path):
    file = tmp_path / "templates.yaml"
    file.write_text(P3)
    two = step(promptsource=[str(file)], per_row=2)
    value = {"text": "a-b c", "label": 0, "most-seen": ["x", "y", "x"]}  # promptsource writes `_` for `-`
    pairs = {each["completion"]: each["prompt"] for each in made(two.apply(row(value)))}
    assert pairs["negative"] == "a b c\nIs it good?"
    assert pairs["a-ba-b cc"] in ("Say: x", "Tell: x")
    assert isinstance(step(promptsource=[str(file)], names=["is_it"]).apply(row({**value, "label": -1})), Drop)
    with pytest.raises(StepError, match="names: no template is is_is; did you mean is_it"):
        step(promptsource=[str(file)], names=["is_is"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("templates:\n  a: !!python/object/apply:os.system ['true']\n", "line 2: could not determine a constructor"),
        ("templates:\n  a: !Other {}\n", "line 2: could not determine a constructor"),
        ("templates:\n  a: !Template {name: b}\n", "the template a needs `name` and `jinja`"),
        ("dataset: x\n", "has no `templates:`"),
        ("a: [", "line "),
    ],
)
def test_refuses_files_that_are_not_promptsource_s(tmp_path, text, told):
    file = tmp_path / "templates.yaml"
    file.write_text(text)
    with pytest.raises(StepError, match=told):
        step(promptsource=[str(file)])


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ text['__cla' ~ 'ss__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ zip.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ '%s' % text }}",
        "{{ lipsum() }}",
        "{{ self._TemplateReference__context }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='xx') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='xx') %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='xx') %}{% for a in range(60) %}{% set n.s = [n.s, n.s]|join %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
        "{% set ns = namespace(n=3) %}{% for a in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
        "{% set ns = namespace(s='aa') %}{% for a in range(60) %}{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}",
        "{% set s = 'x' * 99999 %}{{ ([s] * 99999)|join }}",
        "{% set s = 'x' * 99999 %}{{ ([s] * 99999) }}",
        "{% set s = 'x' * 99999 %}{{ ''.join([s] * 99999) }}",
        "{% set n = namespace(l=['x']) %}{% for a in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
        "{{ 'x' * 999999999 }}",
        "{{ [0] * 999999999 }}",
        "{{ 9 ** 99999 }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ 'x'|center(999999999) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ range(99999999999)|list }}",
        "{% set l = [1] %}{% for a in range(60) %}{{ l.extend(l) }}{% endfor %}",
        "{{ nothing }}",
        "{% if %}",
    ],
)  # fmt: skip
def test_templates_hold_no_code_and_their_work_is_bounded(text):
    sandbox = Sandbox()
    sandbox.begin(random.Random(0), 10)
    with pytest.raises(TemplateFault):
        sandbox.compiled(text).render({"text": "a film"})


def test_a_choice_is_drawn_anew_for_each_row():
    one = step(templates=[{"name": "t", "template": "{{ ['Say', 'Tell'] | choice }}: {{ [1, 2] | random }} ||| a"}])
    prompts = {made(one.apply(row({"text": "a"}, place)))[0]["prompt"] for place in range(50)}
    assert prompts == {"Say: 1", "Say: 2", "Tell: 1", "Tell: 2"}


def test_templates_cannot_change_rows():
    value = {"text": "a", "label": 0, "list": [1]}
    text = {"name": "t", "template": "{{ list.append(2) }}{{ list|length }} ||| {{ list }}"}
    one = step(templates=[text])
    assert made(one.apply(row(value))) == made(one.apply(row(value))) == [{"prompt": "None2", "completion": "[1, 2]"}]


def test_the_stage_refuses_before_anything_is_written(tmp_path):
    cases = [
        (
            {"templates": [{**MOOD, "template": "{{txt}} ||| {{label}}"}]},
            "the template mood reads txt, which no row has; did",
        ),
        (
            {"templates": [{**MOOD, "template": "{{ text.__class__ }} ||| {{label}}"}]},
            "reads __class__, which a template",
        ),
        ({"templates": [{**MOOD, "template": "{{ text.a.b }} ||| {{label}}"}]}, "has not: a text has no 'a'"),
        ({"templates": [{**MOOD, "template": "{{ text + 1 }} ||| {{label}}"}]}, "a text and a number cannot be added"),
        (
            {"templates": [{**MOOD, "template": "{% for x in label %}{% endfor %} ||| a"}]},
            "a number has no",
        ),
        ({"templates": [{**MOOD, "template": "{{text}}"}]}, "has no ||| between"),
        ({"templates": [{**MOOD, "answer_choices": None}]}, "reads answer_choices and has none"),
        ({"templates": [MOOD, MOOD]}, "two templates have the name mood"),
        ({}, "needs templates, or files of promptsource"),
    ]
    for number, (keys, told) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(AlignmentError) as error:
            prepare(folder, ROWS, {"kind": "template", **keys})
        assert told in str(error.value)
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2
        assert not (folder / "run").exists()


def test_examples_are_other_rows_of_the_split_train(tmp_path):
    rows = [row({"text": f"film {at}", "label": at % 2}, at, split="test" if at > 5 else "train") for at in range(8)]
    rows.append(row({"text": "film 0", "label": 0}, 8))  # equals the first
    few = step(templates=[MOOD], few_shot=3)
    few.look(rows)
    for each in rows:
        (pair,) = made(few.apply(each))
        *examples, asked = pair["prompt"].split("\n\n")
        assert asked == f"Mood of: {each.value['text']}"
        assert len(set(examples)) == 3
        texts = [example.removeprefix("Mood of: ").rsplit(" ", 1) for example in examples]
        assert each.value["text"] not in [text for text, _ in texts]
        assert not {"film 6", "film 7"} & {text for text, _ in texts}  # held out
        assert all(answer == ("bad", "good")[int(text[-1]) % 2] for text, answer in texts)
    with pytest.raises(StepError, match="few_shot 9 needs more rows"):
        step(templates=[MOOD], few_shot=9).look(rows)
    split = {"kind": "split", "shares": {"train": 0.5, "test": 0.5}}
    with pytest.raises(AlignmentError, match="put split before template"):
        recipe_of(tmp_path, ROWS, {"kind": "template", "templates": [MOOD], "few_shot": 1}, split)


def test_labelled_reviews_become_instructions(tmp_path):
    (tmp_path / "p3.yaml").write_text(P3)
    data = SHARED / "reviews" / "sentence_polarity_10662.jsonl"
    if not data.is_file():
        pytest.skip("needs the shared data")
    lines = data.read_text().splitlines()
    (tmp_path / "reviews.jsonl").write_text("\n".join(lines[:200] + lines[-200:]) + "\n")
    template = {
        "kind": "template",
        "promptsource": [str(tmp_path / "p3.yaml")],
        "names": ["is_it"],
        "templates": [MOOD],
    }
    run = prepare(
        tmp_path, tmp_path / "reviews.jsonl", {**template, "names": ["is_it", "mood"]}, columns_added=["template"]
    )
    found = run.rows()
    assert len(found) == 400
    assert {each["template"] for each in found} == {"is_it", "mood"}
    assert {each["completion"] for each in found} == {"negative", "positive", "bad", "good"}
    assert found[0]["row_origin"].endswith("reviews.jsonl:1")
