"""Tasks of lm-eval in an evaluation: IFEval and a group of choices, really answered by a small trained model."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("lm_eval")

from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from alignment.config.schema import ModelKeys
from alignment.config.schema.lm_tasks import TaskEntry
from alignment.data.template import Template
from alignment.errors import AlignmentError, DataError, RecipeError
from alignment.evaluate.tasks.answered import REQUESTS, Answered
from alignment.evaluate.tasks.extra import require_lm_eval
from alignment.evaluate.tasks.loading import load_tasks
from alignment.evaluate.tasks.policy_lm import PolicyLM
from alignment.policy.tokenizer import load_tokenizer
from alignment.report.build import build
from recipes.evaluate import main
from tests.evaluate.tasks.local_tasks import write_tasks

SHARED = Path(__file__).parents[4] / "shared"
STORIES = SHARED / "models" / "stories260K"
IFEVAL = SHARED / "data" / "ifeval" / "input_data.jsonl"
pytestmark = [
    pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of lm-eval's dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the files that `datasets` leaves open
]


@pytest.fixture(scope="module")
def policy():
    tokenizer = load_tokenizer(ModelKeys(model_name_or_path=str(STORIES)))
    return AutoModelForCausalLM.from_pretrained(STORIES).eval(), tokenizer, Template(tokenizer)


def lm_of(policy, folder, **changes):
    keys = {"what": "test", "batch_size": 4, "chat": False, "seed": 0, **changes}
    return PolicyLM(*policy, answered=Answered(folder / REQUESTS, ["hash"]), **keys)


def answers(lm, loaded, limit=None):
    found = evaluate(lm, {"tasks": loaded.tasks, "groups": loaded.groups}, limit=limit, bootstrap_iters=0)
    return {name: [sample["resps"] for sample in samples] for name, samples in found["samples"].items()}


def test_answers_equal_those_of_lm_evals_own_model(policy, tmp_path):
    tasks = write_tasks(tmp_path / "tasks")
    ifeval = TaskEntry(task="ifeval", dataset_path=str(IFEVAL), gen_kwargs={"max_gen_toks": 24, "until": ["!"]})
    written, chosen = load_tasks([ifeval, TaskEntry(task="stories", task_path=tasks)], 0)
    theirs = HFLM(pretrained=policy[0], tokenizer=policy[1], batch_size=4)
    mine = lm_of(policy, tmp_path)
    assert answers(mine, written, 12) == answers(theirs, written, 12)
    for name, found in answers(mine, chosen).items():
        for pairs, expected in zip(found, answers(theirs, chosen)[name], strict=True):
            for [(nats, greedy)], [(nats_there, greedy_there)] in zip(pairs, expected, strict=True):
                assert nats == pytest.approx(nats_there, abs=1e-4)
                assert greedy == greedy_there
    assert mine.cut == 0


class Request:
    def __init__(self, *arguments):
        self.args = arguments


def test_whole_texts_and_cut_prompts_equal_lm_evals(policy, tmp_path):
    theirs = HFLM(pretrained=policy[0], tokenizer=policy[1], batch_size=4, max_length=512)
    text = "Once upon a time there was a little girl. " * 70  # more than the context
    mine = lm_of(policy, tmp_path)
    assert mine.loglikelihood_rolling([Request(text)]) == pytest.approx(
        theirs.loglikelihood_rolling([Request(text)], disable_tqdm=True), rel=1e-5
    )
    assert mine.cut == 0
    pair = Request(text, " She was happy.")
    [(nats, _)] = mine.loglikelihood([pair])
    assert nats == pytest.approx(theirs.loglikelihood([pair], disable_tqdm=True)[0][0], rel=1e-5)
    assert mine.cut == 1
    written = Request(text, {"max_gen_toks": 8, "until": []})
    assert mine.generate_until([written]) == theirs.generate_until([written], disable_tqdm=True)
    assert mine.cut == 2
    with pytest.raises(DataError, match=r"answers of 512 tokens leave no room for a prompt in the context of 512"):
        mine.generate_until([Request("a", {"max_gen_toks": 512})])


def test_a_batch_is_read_again_or_computed_whole(policy, tmp_path):
    requests = [Request(f"Tim had {n}", {"max_gen_toks": 4, "do_sample": True, "temperature": 1.0}) for n in range(6)]
    requests += requests[:1]  # the same request is sampled anew
    first = lm_of(policy, tmp_path).generate_until(requests)
    file = tmp_path / REQUESTS
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 7
    again = lm_of((None, *policy[1:]), tmp_path)
    again.__class__.max_length, kept = property(lambda _: 512), again.__class__.max_length
    try:
        assert again.generate_until(requests) == first  # without a model
    finally:
        again.__class__.max_length = kept
    file.write_text("".join(lines[:5]) + lines[5][:10])  # killed in the second batch
    assert lm_of(policy, tmp_path).generate_until(requests) == first


def test_a_chat_template_adds_no_second_start(policy, tmp_path):
    lm = lm_of(policy, tmp_path, chat=True)
    assert lm.tok_encode("<s>hi")[0] == 1
    assert 1 not in lm.tok_encode("hi")
    assert lm_of(policy, tmp_path).tok_encode("<s>hi").count(1) == 1
    assert lm_of(policy, tmp_path).tok_encode("hi")[0] == 1


def save_adapter(path):
    model = AutoModelForCausalLM.from_pretrained(STORIES)
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    get_peft_model(model, lora).save_pretrained(path)
    return str(path)


def recipe_of(tmp_path, *tasks, tuned=str(STORIES), **changes):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Once upon a time"}\n{"prompt": "Lily had"}\n')
    recipe = {
        "stage": "evaluate",
        "output_dir": str(tmp_path / "out"),
        "model_name_or_path": str(STORIES),
        "candidates": [{"name": "tuned", "model_name_or_path": tuned}],
        "datasets": [{"path": str(tmp_path / "rows.jsonl")}],
        "judges": [{"kind": "rules", "name": "shorter", "function": "tests.evaluate.rules:shorter"}],
        "max_new_tokens": 4,
        "bootstrap_samples": 200,
        "tasks": list(tasks),
        **changes,
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(recipe))
    return ["--config", str(tmp_path / "evaluate.yaml")]


def test_baseline_and_candidates_are_compared_document_by_document(tmp_path, capsys):
    tasks = write_tasks(tmp_path / "tasks")
    main(
        recipe_of(
            tmp_path,
            {"task": "ifeval", "dataset_path": str(IFEVAL), "limit": 30, "gen_kwargs": {"max_gen_toks": 32}},
            {"task": "stories", "name": "choices", "task_path": tasks},
            tuned=save_adapter(tmp_path / "tuned"),
        )
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "task_answers.jsonl").read_text().splitlines()]
    assert len(rows) == 30 + 5
    ifeval = results["tasks"]["ifeval"]["tasks"]["ifeval"]
    assert (ifeval["documents"], ifeval["num_fewshot"], ifeval["version"]) == (30, 0, 4.0)
    of_rows = [row["policies"] for row in rows if row["task"] == "ifeval"]
    for metric, found in ifeval["metrics"].items():
        items = {
            who: [row[who]["metrics"][metric] for row in of_rows] for who in ("sft", "tuned")
        }  # one verdict, or a list of one for each instruction
        means = {}
        for who, values in items.items():
            flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
            means[who] = sum(flat) / len(flat)
            assert found["policies"][who]["value"] == pytest.approx(means[who])
        difference = found["differences"]["tuned"]
        assert difference["value"] == pytest.approx(means["tuned"] - means["sft"])
        assert difference["clusters"] == 30
        assert difference["low"] is None or difference["low"] <= difference["value"] <= difference["high"]
    assert any(row["sft"]["responses"] != row["tuned"]["responses"] for row in of_rows)

    choices = results["tasks"]["choices"]
    group = choices["groups"]["stories"]["metrics"]["acc"]
    right = [row["policies"]["sft"]["metrics"]["acc"] for row in rows if row["entry"] == "choices"]
    assert group["policies"]["sft"]["value"] == pytest.approx(sum(right) / 5)
    assert (group["policies"]["sft"]["n"], group["policies"]["sft"]["clusters"]) == (5, 2)  # two subtasks
    assert set(choices["tasks"]) == {"stories_animals", "stories_food"}
    shown = capsys.readouterr().out
    assert "Tasks of lm-eval" in shown
    assert "prompt_level_strict_acc" in shown
    page = build([tmp_path / "out"]).read_text()
    assert "<h3>Tasks of lm-eval</h3>" in page
    assert "<td>prompt_level_strict_acc</td><td>30</td>" in page
    # A second run reads the answers of the first.
    requests = (tmp_path / "out" / REQUESTS).read_bytes()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    main(["--config", str(tmp_path / "evaluate.yaml")])
    assert (tmp_path / "out" / REQUESTS).read_bytes() == requests
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    assert again["tasks"] == results["tasks"]


def test_examples_come_from_a_file_named_for_their_split(tmp_path):
    rows = [{"question": f"{n}+{n}?", "answer": f"#### {2 * n}"} for n in range(9)]
    data = tmp_path / "data"
    data.mkdir()
    for split, part in (("train", rows[:5]), ("test", rows[5:])):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    entry = TaskEntry(task="gsm8k", dataset_path=str(data), num_fewshot=2)
    (loaded,) = load_tasks([entry], 0)
    task = loaded.tasks["gsm8k"]
    assert [doc["question"] for doc in task.eval_docs] == ["5+5?", "6+6?", "7+7?", "8+8?"]
    assert len(task.fewshot_docs()) == 5
    assert task.config.num_fewshot == 2
    assert loaded.longest_answer == 256
    (data / "dev.jsonl").write_text((data / "train.jsonl").read_text())  # `datasets` alone names it validation
    (again,) = load_tasks([entry], 0)
    assert set(again.tasks["gsm8k"].dataset) == {"train", "test", "dev"}


def test_tasks_need_no_judge(tmp_path, capsys):
    tasks = write_tasks(tmp_path / "tasks", by_size=False)
    main(recipe_of(tmp_path, {"task": "stories", "task_path": tasks}, judges=[]))
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["judges"] == []
    stories = found["tasks"]["stories"]
    means = [one["metrics"]["acc"]["policies"]["sft"]["value"] for one in stories["tasks"].values()]
    # The group weighs its tasks alike, three documents as much as two.
    assert stories["groups"]["stories"]["metrics"]["acc"]["policies"]["sft"]["value"] == pytest.approx(sum(means) / 2)
    assert "win rate" not in capsys.readouterr().out
    assert "Tasks of lm-eval" in build([tmp_path / "out"]).read_text()


def refused(tmp_path, *tasks):
    with pytest.raises(AlignmentError) as caught:
        main(recipe_of(tmp_path, *tasks))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_what_cannot_be_run_is_refused_before_a_model_is_loaded(tmp_path):
    tasks = write_tasks(tmp_path / "tasks")
    local = {"task": "ifeval", "dataset_path": str(IFEVAL)}
    assert "task ifeval" in (told := refused(tmp_path, local))
    assert "answers of 1280 tokens leave no room for a prompt in the context of 512" in told
    assert "max_gen_toks" in told
    assert "stories2 is no task, group or tag in" in refused(tmp_path, {"task": "stories2", "task_path": tasks})
    assert "task_path nowhere is no folder" in refused(tmp_path, {"task": "stories", "task_path": "nowhere"})
    assert "num_fewshot 0, which lm-eval does not change" in refused(tmp_path, {**local, "num_fewshot": 3})
    assert "samples with num_return; policies read until" in refused(
        tmp_path, {**local, "gen_kwargs": {"num_return": 2}}
    )
    assert "Give local data with dataset_path" in refused(tmp_path, "gsm8k")
    (tmp_path / "gsm.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    assert "takes 5 examples from another split" in refused(
        tmp_path, {"task": "gsm8k", "dataset_path": str(tmp_path / "gsm.jsonl")}
    )
    (tmp_path / "data.xml").write_text("<a/>")
    assert "ends with none of .jsonl" in refused(
        tmp_path, {"task": "gsm8k", "dataset_path": str(tmp_path / "data.xml")}
    )
    assert "has the name ifeval of tasks.0; give it another name" in refused(tmp_path, local, "ifeval")


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(
        RecipeError, match=r"^tasks: need the package lm_eval, .*pip install \"alignment-stack\[tasks\]\""
    ):
        require_lm_eval()


def test_sentences_are_counted_with_punkts_tables():
    from alignment.evaluate.tasks.extra import prepare_checks

    prepare_checks()
    count = importlib.import_module("lm_eval.tasks.ifeval.instructions_util").count_sentences
    assert count("Dr. Smith left on Jan. 5. He was glad! Mr. Lee, of Acme Corp. in the U.S., was not.") == 3


def test_names_are_entries_and_faults_have_their_place(tmp_path):
    tasks = ["ifeval", {"task": "gsm8k", "limitt": 3}]
    main_arguments = recipe_of(tmp_path, *tasks)
    with pytest.raises(RecipeError, match=r"tasks\[1\]\.limitt: .*limit"):
        main(main_arguments)
    with pytest.raises(RecipeError, match=r"judges: is empty, and so is tasks"):
        main(recipe_of(tmp_path, judges=[]))
    assert TaskEntry.model_validate("ifeval") == TaskEntry(task="ifeval")
    assert TaskEntry(task="ifeval", name="chat").label == "chat"
