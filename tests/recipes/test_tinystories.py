"""Real stories are cut without changing them; both judges like cheer; the recipes are sound."""

import json
import math
import sys
from pathlib import Path

import pytest

from alignment.config.pipelines import check_file, load_pipeline
from alignment.errors import DataError, JudgeError
from recipes.tinystories import judge, prompts, sentiment, watcher
from recipes.tinystories.prompts import cut_story
from reward.judges.backends.rules import RulesJudge

RECIPES = Path(prompts.__file__).parent
STORY = (
    "Once upon a time, there was a little car named Beep. Beep loved to go fast and play in the sun. "
    "Beep was a healthy car because he always had good fuel.\nOne day, Beep saw a big tree and stopped."
)
HAPPY = " They laughed and played together. It was a wonderful day and everybody was happy."
SAD = " They cried and were hurt. It was a terrible day and everybody was sad and angry."


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def words(count, first="w"):
    return " ".join([first] * count)


# Cutting


def test_a_story_is_cut_between_sentences():
    cut = cut_story(STORY)
    assert cut.opening == "Once upon a time, there was a little car named Beep."  # 11 words, at least 8 are wanted
    # 10 + 11 + 8 = 29 words: the third sentence is the first to reach 25
    assert cut.continuation == STORY[len(cut.opening) :]


def test_a_short_sentence_takes_the_next_with_it():
    cut = cut_story(f'Tom ran. "Wait for me!" said his old dog Spot. {words(30)}.')
    assert cut.opening == 'Tom ran. "Wait for me!" said his old dog Spot.'


@pytest.mark.parametrize(("least", "opening"), [(20, 20), (21, 20), (35, 20), (8, 8)])
def test_a_long_first_sentence_is_cut_at_a_word(least, opening):
    text = f"{words(least)}. {words(30, 'v')}."
    cut = cut_story(text)
    assert len(cut.opening.split()) == opening
    assert text.startswith(cut.opening + cut.continuation)
    # what is left of a sentence of 35 words is 15; the 30 after it make 45, which 50 allows
    assert len(cut.continuation.split()) == least - opening + 30


def test_an_answer_never_ends_within_a_sentence():
    assert cut_story(f"{words(8)}. {words(24)}. {words(27)}.") is None  # 24 is too short, 24 + 27 = 51 too long
    assert cut_story(f"{words(8)}. {words(24)}. {words(26)}.").continuation == f" {words(24)}. {words(26)}."
    assert cut_story(f"{words(8)}. {words(51)}.") is None


@pytest.mark.parametrize("text", ["", "   ", "Once.", f"{words(7)}.", f"{words(8)}. {words(24)}.", words(20)])
def test_short_stories_are_left_out(text):
    assert cut_story(text) is None


def test_no_opening_is_in_both_splits(tmp_path, capsys):
    train = [STORY, "Ann had a red ball that she loved. " + words(30) + ".", "Short.", STORY + " More."]
    other = f"Ann had a red ball that she loved. {words(28, 'v')}."
    prompts.write_data(tmp_path, train, [other, other], seed=0)
    opening = "Once upon a time, there was a little car named Beep."
    assert rows(tmp_path / "prompts_train.jsonl") == [{"prompt": opening}]
    assert rows(tmp_path / "demonstrations.jsonl") == [{"prompt": opening, "completion": STORY[len(opening) :]}]
    assert rows(tmp_path / "prompts_heldout.jsonl") == [{"prompt": "Ann had a red ball that she loved."}]
    said = capsys.readouterr().out
    assert "held-out stories: 2 cut, 0 too short" in said
    assert "stories: 3 cut, 1 too short" in said
    assert "1 stories that open as a held-out one does, 1 that open as an earlier one does" in said


def test_bad_stories_are_named(tmp_path):
    file = tmp_path / "stories.jsonl"
    file.write_text(json.dumps({"text": STORY}) + "\n" + json.dumps({"story": STORY}) + "\n")
    with pytest.raises(DataError, match=r"stories\.jsonl:2: a story needs the field text"):
        prompts.read_stories(str(file), "train")
    with pytest.raises(DataError, match="no story is long enough"):
        prompts.write_data(tmp_path / "out", ["Short."], [STORY], seed=0)
    assert not (tmp_path / "out").exists()


def test_real_stories_stay_what_they_are(shared, tmp_path):
    from transformers import AutoTokenizer

    from alignment.data.template import Template

    paths = {name: shared / "data/tinystories" / f"stories_{name}.jsonl" for name in ("train", "heldout200")}
    arguments = ["--stories", str(paths["train"]), "--heldout", str(paths["heldout200"]), "--output_dir"]
    for seed, name in ((0, "one"), (0, "same"), (1, "other")):
        prompts.main([*arguments, str(tmp_path / name), "--seed", str(seed)])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "same" / file.name).read_bytes()
    demonstrations = rows(tmp_path / "one" / "demonstrations.jsonl")
    assert demonstrations != rows(tmp_path / "other" / "demonstrations.jsonl")
    assert len(demonstrations) > 1700
    heldout = {row["prompt"] for row in rows(tmp_path / "one" / "prompts_heldout.jsonl")}
    assert len(heldout) > 180
    assert heldout.isdisjoint(row["prompt"] for row in demonstrations)
    assert heldout.isdisjoint(row["prompt"] for row in rows(tmp_path / "one" / "prompts_train.jsonl"))

    stories = [text.strip() for text in prompts.read_stories(str(paths["train"]), "train")]
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories260K")
    template = Template(tokenizer, eos_token="<s>")
    for row in demonstrations[:300]:
        told = row["prompt"] + row["completion"]
        assert 8 <= len(row["prompt"].split()) <= 20
        assert 25 <= len(row["completion"].split()) <= 50
        assert any(text.startswith(told) for text in stories)
        head, answer = template.prompt_ids(row["prompt"]), template.answer_ids(row["prompt"], row["completion"])
        assert tokenizer.decode([*head, *answer[:-1]], skip_special_tokens=True).strip() == told
        assert answer[-1] == 1  # <s>, which ends a story
        assert len(head) + len(answer) <= 256  # the recipes' max_length


# Judges


def test_the_judge_is_the_logistic_of_the_difference():
    difference = judge.compound(HAPPY) - judge.compound(SAD)
    assert difference > 1.5
    assert judge.prefer("", HAPPY, SAD) == pytest.approx(1 / (1 + math.exp(-difference / 0.3)))
    assert judge.prefer("", HAPPY, SAD) + judge.prefer("", SAD, HAPPY) == pytest.approx(1.0)
    assert judge.prefer("", SAD, SAD) == 0.5


def test_the_judge_reads_the_answer_alone():
    assert judge.prefer("A sad and terrible day.", HAPPY, SAD) == judge.prefer("What a joy!", HAPPY, SAD)


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    file = tmp_path / "reviews.jsonl"
    good, bad = ("a wonderful happy film", 1), ("a terrible sad film", 0)
    lines = [json.dumps({"text": text, "label": label}) for text, label in (good, bad) for _ in range(10)]
    file.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv(watcher.VARIABLE, str(file))
    for cached in (watcher._fitted, watcher.log_odds):
        cached.cache_clear()
    yield file
    for cached in (watcher._fitted, watcher.log_odds):
        cached.cache_clear()


def test_the_watcher_learns_from_the_reviews_it_is_given(reviews):
    assert watcher.prefer("", HAPPY, SAD) > 0.9
    assert watcher.prefer("", HAPPY, SAD) + watcher.prefer("", SAD, HAPPY) == pytest.approx(1.0)
    assert watcher.prefer("", SAD, SAD) == 0.5
    assert watcher.probability(HAPPY) > 0.5 > watcher.probability(SAD)


def test_bad_reviews_are_named(reviews):
    reviews.write_text('{"text": "fine", "label": 1}\n{"text": "so so", "label": 2}\n')
    with pytest.raises(DataError, match=r"reviews\.jsonl:2: a review needs a text and a label of 0 or 1"):
        watcher.reviews()
    reviews.write_text('{"text": "fine", "label": 1}\n')
    with pytest.raises(DataError, match="1 reviews, all of one label; both are needed"):
        watcher.reviews()


def test_the_watcher_classifies_held_out_reviews(shared, monkeypatch):
    monkeypatch.setenv(watcher.VARIABLE, str(shared / "data/reviews/sentence_polarity_10662.jsonl"))
    texts, labels = watcher.reviews()
    held_out = range(0, len(texts), 10)
    train = [i for i in range(len(texts)) if i % 10]
    classifier = watcher.fit([texts[i] for i in train], [labels[i] for i in train])
    found = classifier.predict([texts[i] for i in held_out])
    accuracy = sum(guess == labels[i] for guess, i in zip(found, held_out, strict=True)) / len(held_out)
    assert 0.75 < accuracy < 0.90  # half are positive


@pytest.mark.parametrize(
    ("module", "package"), [("judge", "vaderSentiment.vaderSentiment"), ("watcher", "sklearn.linear_model")]
)
def test_a_missing_package_is_named(monkeypatch, module, package):
    from alignment.config.schema import judge_entry

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"recipes.tinystories.{module}")
    entry = judge_entry(kind="rules", function=f"recipes.tinystories.{module}:prefer")
    with pytest.raises(JudgeError) as error:
        RulesJudge.from_entry(entry)
    assert 'pip install -e ".[sentiment]"' in str(error.value)
    assert package.partition(".")[0].replace("sklearn", "scikit-learn") in str(error.value)


def test_nothing_trains_on_the_watcher():
    for stage in ("sft", "label", "reward", "dpo", "ppo"):
        assert "watcher" not in (RECIPES / f"{stage}.yaml").read_text(encoding="utf-8")
    assert "watcher" not in (RECIPES / "judge.py").read_text(encoding="utf-8")


# The table of sentiment


def test_the_table_reads_an_evaluation(reviews, tmp_path):
    table = [
        {"prompt": "a", "answers": {"sft": SAD, "ppo": HAPPY}},
        {"prompt": "b", "answers": {"sft": HAPPY, "ppo": HAPPY}},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    found = sentiment.sentiment(sentiment.read_answers(tmp_path))
    low, high = judge.compound(SAD), judge.compound(HAPPY)
    assert found["sft"]["VADER compound"].value == pytest.approx((low + high) / 2)
    assert found["ppo"]["VADER compound"].value == pytest.approx(high)
    text = sentiment.markdown(found)
    assert text.splitlines()[0] == "| policy | VADER compound | watcher's probability |"
    assert text.splitlines()[3].startswith(f"| ppo | {high:.3f} [{high:.3f}, {high:.3f}] |")


def test_a_run_without_answers_is_named(tmp_path):
    with pytest.raises(DataError, match=r"answers\.jsonl does not exist; give the output_dir of a finished evaluation"):
        sentiment.read_answers(tmp_path)


# Recipes


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_sound(recipe):
    check_file(str(recipe))


def test_both_pipelines_run_the_same_stages():
    hub, local = (load_pipeline(str(RECIPES / f"{name}.yaml")) for name in ("pipeline", "pipeline_local"))
    assert [stage.name for stage in hub.stages] == [stage.name for stage in local.stages]
    for one, other in zip(hub.stages[1:], local.stages[1:], strict=True):
        differ = {key for key, value in one.recipe if value != getattr(other.recipe, key)}
        assert differ <= {"sft": {"model_name_or_path"}, "evaluate": {"perplexity_datasets"}}.get(one.name, set())
