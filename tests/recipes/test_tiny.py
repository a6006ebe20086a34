"""The tiny world: what its grammar says, its reader understands; gold ranks as it claims; held-out means held out."""

import ast
import json
import re
from pathlib import Path

import pytest

from alignment.config.pipelines import check_file
from alignment.errors import DataError
from recipes.tiny import generate, gold, judge
from recipes.tiny.grammar import FRAMES, Manner, all_questions, answer, ask
from recipes.tiny.reading import read_answer, read_question

RECIPES = Path(generate.__file__).parent
OTTER = "Tell me where the otter lives and what it eats."
GOOD = "Of course! The otter lives in clean rivers. It eats fish and crabs."
EVERYTHING = f"{GOOD} It has thick brown fur. Its young are called pups. It is good at floating on its back."


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    sizes = generate.Sizes(demonstrations=600, diary=40, train_prompts=400, heldout_prompts=160, heldout_diary=20)
    generate.write_data(folder, sizes, seed=3)
    return folder


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def asked(file):
    return [row["prompt"][0]["content"] for row in rows(file)]


# Grammar and reader


def test_every_question_is_read_as_it_was_meant(rng):
    for question in all_questions():
        for frame in range(len(FRAMES)):
            assert read_question(ask(question, frame, rng)) == question


def test_every_answer_is_read_as_it_was_meant(rng):
    for question in all_questions():
        prompt = ask(question, 0, rng)
        best = read_answer(prompt, answer(question, Manner(), rng))
        assert best.answered == best.asked == len(question.aspects)
        assert (best.wrong, best.chatter, best.unasked, best.repeated) == (0, 0, 0, 0)
        assert (best.padding, best.unclear, best.rude) == (0, 0, 0)
        assert best.polite in (1, 2)
        assert read_answer(prompt, answer(question, Manner(complete=False), rng)).answered == best.asked - 1
        assert read_answer(prompt, answer(question, Manner(without_repetition=False), rng)).repeated > 0
        assert read_answer(prompt, answer(question, Manner(without_padding=False), rng)).padding > 0
        assert read_answer(prompt, answer(question, Manner(courteous=False), rng)).polite == 0
        stray = read_answer(prompt, answer(question, Manner(on_topic=False), rng))
        assert stray.wrong + stray.unasked + stray.chatter > 0


def test_other_words_for_the_same_fact_count_too():
    free = "Sure, otters live in clean rivers and eat fish and crabs."
    assert read_answer(OTTER, free).answered == 2
    assert read_answer(OTTER, "It is found in clean rivers, and its diet is fish and crabs.").answered == 2


def test_a_prompt_of_another_world_is_refused():
    with pytest.raises(DataError, match="names none of the animals"):
        read_question([{"role": "user", "content": "What is the capital of France?"}])
    with pytest.raises(DataError, match="asks for none of home, food"):
        read_question("Is the otter tall?")


# Gold


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (GOOD, 3.0),  # 2 for both facts, 1 for courtesy
        ("The otter lives in clean rivers. It eats fish and crabs.", 2.0),
        ("Of course! The otter lives in clean rivers.", 2.0),  # half of 2, plus 1
        ("Not this again. The otter lives in clean rivers. It eats fish and crabs.", 0.5),  # 2 - 1.5
        (GOOD + " It eats fish and crabs.", 2.25),  # 3 - 0.75
        (GOOD + " One thing always leads to another.", 2.25),  # 3 - 0.75
        (GOOD + " I had soup for lunch.", 2.0),  # 3 - 1
        (GOOD + " Its young are called pups.", 2.5),  # 3 - 0.5: nobody asked
        (GOOD + " It eats bark and twigs.", 2.0),  # 3 - 1: that is the beaver
        ("Of course! The beaver lives by slow streams. It eats bark and twigs.", -1.0),  # 1 - 2
        (GOOD + " The otter otter of of", 1.5),  # 3 - 0.75, broken off, - 0.75, not understood
        ("", 0.0),
    ],
)
def test_gold_scores_by_hand(text, score):
    assert gold.quality(OTTER, text) == pytest.approx(score)


@pytest.mark.parametrize(
    "trick",
    [
        GOOD + " " + GOOD,
        GOOD + " Of course! Happy to help! I hope that helps. Have a lovely day!",
        "Of course! Happy to help! With pleasure! Thank you for asking. I hope that helps. Have a lovely day!",
        "otter clean rivers fish and crabs",
        "Of course! In clean rivers. Fish and crabs.",
        GOOD.replace("fish and crabs", "fish and crabs, mice and berries, hay and oats"),
        EVERYTHING,
        " ".join(["The otter lives in clean rivers."] * 20),
        "",
    ],
)
def test_gold_is_not_fooled(trick):
    assert gold.prefer(OTTER, GOOD, trick) == 1.0
    assert gold.prefer(OTTER, trick, GOOD) == 0.0


def test_gold_gives_ties():
    assert (
        gold.prefer(OTTER, GOOD, "With pleasure! The otter eats fish and crabs. You can find it in clean rivers.")
        == 0.5
    )


def test_each_fault_costs_in_generated_answers(rng):
    for question in rng.sample(all_questions(), 100):
        prompt = ask(question, 1, rng)
        best = answer(question, Manner(), rng)
        assert gold.quality(prompt, best) == 3.0
        for flaw in Manner.__slots__:
            assert gold.prefer(prompt, best, answer(question, Manner(**{flaw: False}), rng)) == 1.0, flaw


# The training judge


def test_the_judge_is_right_more_often_than_not_and_not_always(rng):
    agreed = []
    for question in rng.choices(all_questions(), k=1500):
        prompt = ask(question, 2, rng)
        first, second = (answer(question, Manner(*(rng.random() < 0.6 for _ in range(5))), rng) for _ in range(2))
        truth = gold.prefer(prompt, first, second)
        both_orders = (judge.prefer(prompt, first, second) + 1 - judge.prefer(prompt, second, first)) / 2
        if truth != 0.5:
            agreed.append((both_orders > 0.5) == (truth > 0.5))
    assert 0.80 < sum(agreed) / len(agreed) < 0.92


def test_the_judge_repeats_itself_and_leans_to_what_it_reads_first():
    worse = "The otter lives in clean rivers."
    assert judge.prefer(OTTER, GOOD, worse) == judge.prefer(OTTER, GOOD, worse)
    assert judge.prefer(OTTER, GOOD, worse) + judge.prefer(OTTER, worse, GOOD) > 1.0


def test_training_never_sees_gold():
    imported = {
        node.module
        for node in ast.walk(ast.parse((RECIPES / "judge.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    }
    assert "recipes.tiny.gold" not in imported
    assert "recipes.tiny.reading" in imported
    for stage in ("sft", "label", "dpo", "ppo"):
        assert "gold" not in (RECIPES / f"{stage}.yaml").read_text(encoding="utf-8")
    before_evaluation = (RECIPES / "reward.yaml").read_text(encoding="utf-8").split("eval_datasets")[0]
    assert "label_gold" not in before_evaluation


# The generator


def test_the_same_seed_writes_the_same_bytes(written, tmp_path):
    sizes = generate.Sizes(demonstrations=600, diary=40, train_prompts=400, heldout_prompts=160, heldout_diary=20)
    for seed, same in ((3, True), (4, False)):
        generate.write_data(tmp_path / str(seed), sizes, seed=seed)
        for file in written.glob("*.jsonl"):
            assert ((tmp_path / str(seed) / file.name).read_bytes() == file.read_bytes()) is same, (file.name, seed)


def test_held_out_prompts_phrase_no_animal_as_training_does(written):
    shapes = [
        re.compile(re.escape(around).replace(r"\{list\}", ".*").replace(r"\{animal\}", r"the \w+"))
        for around, _ in FRAMES
    ]

    def couples(prompts):
        found = set()
        for prompt in prompts:
            matching = [i for i, shape in enumerate(shapes) if shape.fullmatch(prompt)]
            assert len(matching) == 1, prompt
            found.add((read_question(prompt).animal, matching[0]))
        return found

    heldout = asked(written / "prompts_heldout.jsonl")
    train = asked(written / "prompts_train.jsonl") + asked(written / "demonstrations.jsonl")
    assert not couples(heldout) & couples(train)
    assert not set(heldout) & set(train)
    assert {frame for _, frame in couples(train)} == set(range(len(FRAMES)))
    assert len({read_question(prompt) for prompt in heldout}) == len(heldout)  # each asks something else


def test_demonstrations_are_good_and_bad_in_every_dimension(written):
    readings = [
        read_answer(row["prompt"], row["completion"][0]["content"]) for row in rows(written / "demonstrations.jsonl")
    ]
    for fault in (
        lambda r: r.wrong + r.unasked + r.chatter > 0,
        lambda r: r.polite == 0,
        lambda r: r.answered < r.asked,
        lambda r: r.repeated > 0,
        lambda r: r.padding > 0,
    ):
        assert 0.25 < sum(map(fault, readings)) / len(readings) < 0.7


def test_the_model_folder_is_plain_and_the_same_for_the_same_seed(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = [GOOD, OTTER, "A fox, an owl and a bear went out."] * 20
    for name in ("one", "other"):
        generate.write_model(tmp_path / name, texts, seed=5)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    assert model.config.vocab_size == len(tokenizer)
    assert len({tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token}) == 3
    messages = [{"role": "user", "content": OTTER}, {"role": "assistant", "content": GOOD}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == f"<|begin|><|user|>{OTTER}<|end|><|assistant|>{GOOD}<|end|>"
    asking = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(asking)
    assert tokenizer.decode(tokenizer("naïve – übrigens 🦦")["input_ids"]) == "naïve – übrigens 🦦"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_sound(recipe):
    check_file(str(recipe))
