"""One row of well-known data sets, with the keys under which they are published: read, or refused with a remedy.

A `columns` and an `ignore_columns` that a refusal names are applied, and must be enough. The texts are made up; the
keys are those of the data sets' cards on the Hub, written from memory.
"""

import re

import pytest

from alignment.data import load_demonstrations, load_rankings
from alignment.errors import DataError
from tests.data import written


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


Q, GOOD, BAD = "Why is it so?", "Because it rained.", "No idea at all."
SIDES = {"chosen": [user(Q), assistant(GOOD)], "rejected": [user(Q), assistant(BAD)]}
SCORES = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 2}
RATED = [
    {"response": GOOD, "model": "a", "overall_score": 8.0, "critique": "Fine.", "annotations": {"x": {"Rating": "4"}}},
    {"response": BAD, "model": "b", "overall_score": 4.0, "critique": "Bad.", "annotations": {"x": {"Rating": "2"}}},
]
RANKINGS = {  # read at once
    "HuggingFaceH4/ultrafeedback_binarized": {
        **SIDES, "prompt": Q, "prompt_id": "ab12", "messages": SIDES["chosen"],
        "score_chosen": 8.5, "score_rejected": 7,
    },
    "argilla/ultrafeedback-binarized-preferences-cleaned": {
        **SIDES, "source": "evol_instruct", "prompt": Q, "chosen-rating": 5.0, "chosen-model": "a",
        "rejected-rating": 3.0, "rejected-model": "b",
    },
    "Skywork/Skywork-Reward-Preference-80K-v0.2": {**SIDES, "source": "magpie_ultra"},
    "allenai/llama-3.1-tulu-3-8b-preference-mixture": {
        **SIDES, "id": "1", "source": "ifeval", "prompt": Q, "chosen_model": "a", "rejected_model": "b",
    },
    "argilla/dpo-mix-7k": {**SIDES, "dataset": "argilla/capybara", "chosen_rating": 4.5, "rejected_rating": 3.0},
    "trl-lib/ultrafeedback_binarized": {**SIDES, "score_chosen": 8.5, "score_rejected": 7.0},
    "trl-lib/hh-rlhf-helpful-base": {
        "prompt": [user(Q)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)],
    },
    "allenai/reward-bench-2": {
        "id": "1", "prompt": Q, "chosen": [GOOD], "rejected": [BAD], "num_correct": 1, "num_incorrect": 1,
        "total_completions": 2, "models": ["a", "b"], "subset": "Focus", "additional_metadata": None,
    },
    "Anthropic/hh-rlhf": {
        "chosen": f"\n\nHuman: {Q}\n\nAssistant: {GOOD}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {BAD}",
    },
    "nvidia/HelpSteer2, preference": {
        "split": "train", "prompt": Q, "response_1": GOOD, "response_2": BAD, "preference_strength": -2,
        "preference_statement": "Response 1 is better.", "preference_elaboration": "It answers.",
    },
    "lmsys/chatbot_arena_conversations": {
        "question_id": "1", "model_a": "a", "model_b": "b", "winner": "model_a", "judge": "arena_user_1",
        "conversation_a": SIDES["chosen"], "conversation_b": SIDES["rejected"], "turn": 1, "anony": True,
        "language": "English", "tstamp": 1.0, "openai_moderation": {"flagged": False, "categories": {"hate": False}},
        "toxic_chat_tag": {"roberta-large": {"flagged": False, "probability": 0.01}},
    },
    "OpenAI preference fine-tuning": {
        "input": {"messages": [user(Q)], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [assistant(GOOD)], "non_preferred_output": [assistant(BAD)],
    },
}  # fmt: skip
DEMONSTRATIONS = {
    "allenai/tulu-3-sft-mixture": {"id": "1", "messages": SIDES["chosen"], "source": "ai2-adapt-dev/oasst1"},
    "HuggingFaceH4/no_robots": {"prompt": Q, "prompt_id": "1", "messages": SIDES["chosen"], "category": "Generation"},
    "Open-Orca/SlimOrca": {
        "conversations": [
            {"from": "human", "value": Q, "weight": 0.0}, {"from": "gpt", "value": GOOD, "weight": 1.0},
        ],
    },
    **{
        f"ShareGPT of {speaker}": {
            "id": "1", "conversations": [{"from": "human", "value": Q}, {"from": speaker, "value": GOOD}],
        }
        for speaker in ("gpt", "chatgpt", "bing", "bard", "assistant")
    },
    "trl-lib/kto-mix-14k": {"prompt": [user(Q)], "completion": [assistant(GOOD)], "label": True},
    "tatsu-lab/alpaca": {"instruction": Q, "input": "", "output": GOOD, "text": f"Below.\n{Q}\n\n{GOOD}"},
}  # fmt: skip
REMEDIED_RANKINGS = {  # refused, and read with the remedy that the refusal names
    "Intel/orca_dpo_pairs": {"system": "", "question": Q, "chosen": GOOD, "rejected": BAD},
    "argilla/distilabel-intel-orca-dpo-pairs": {
        "system": "", "input": Q, "chosen": GOOD, "rejected": BAD, "generations": [GOOD, BAD],
        "order": ["chosen", "rejected"], "labelling_model": "gpt-4", "labelling_prompt": [user("Rate\nit.")],
        "raw_labelling_response": "9 3\nThe first.", "rating": [9.0, 3.0], "rationale": "The\nfirst.",
        "status": "chosen",
        "original_chosen": GOOD, "original_rejected": BAD, "chosen_score": 9.0, "in_gsm8k_train": False,
    },
    "PKU-Alignment/PKU-SafeRLHF": {
        "prompt": Q, "response_0": GOOD, "response_1": BAD, "prompt_source": "Alpaca3-70B",
        "response_0_source": "Alpaca3-8B", "response_1_source": "Alpaca3-8B", "is_response_0_safe": True,
        "is_response_1_safe": False, "response_0_harm_category": {"Violence": False}, "response_0_severity_level": 0,
        "response_0_sha256": "ab12", "response_1_sha256": "cd34", "better_response_id": 0, "safer_response_id": 0,
    },
    "openbmb/UltraFeedback": {
        "source": "evol_instruct", "instruction": Q, "models": ["a", "b"], "completions": RATED,
        "correct_answers": ["None"], "incorrect_answers": ["None"],
    },
    "berkeley-nest/Nectar": {
        "prompt": Q, "turns": 1, "num_responses": 2, "source": ["lmsys-chat-1m"],
        "answers": [{"answer": GOOD, "model": "a", "rank": 1.0}, {"answer": BAD, "model": "b", "rank": 2.0}],
        "good_natured": True,
    },
    "nvidia/HelpSteer3": {
        "domain": "general", "language": "english", "context": [user(Q)], "response1": GOOD, "response2": BAD,
        "overall_preference": -2,
        "individual_preference": [{"score": -2, "reasoning": "It answers.", "feedback1": "Yes.", "feedback2": "No."}],
    },
    "lvwerra/stack-exchange-paired": {
        "qid": 1, "question": Q, "date": "2011/01/01", "metadata": ["https://a.b"], "response_j": GOOD,
        "response_k": BAD,
    },
}  # fmt: skip
REMEDIED_DEMONSTRATIONS = {
    "nvidia/HelpSteer": {"prompt": Q, "response": GOOD, **SCORES},
    "databricks/databricks-dolly-15k": {
        "instruction": Q, "context": "", "response": GOOD, "category": "closed_qa",
    },
    "Open-Orca/OpenOrca": {"id": "niv.1", "system_prompt": "", "question": Q, "response": GOOD},
    "stingning/ultrachat": {"id": "0", "data": [Q, GOOD]},
    "LDJnr/Capybara": {"source": "Airoboros", "conversation": [{"input": Q, "output": GOOD}]},
    "InternLM/xtuner": {"conversation": [{"system": "Be kind.", "input": Q, "output": GOOD}]},
    "allenai/qasper, as question and article": {"article": "It rained.", "question": Q, "answer": GOOD},
    "trl-lib/tldr, as article and summary": {"article": Q, "summary": GOOD},
    "openai/gsm8k": {"question": Q, "answer": GOOD},
    "CohereForAI/aya_dataset": {
        "inputs": Q, "targets": GOOD, "language": "English", "language_code": "eng",
        "annotation_type": "original-annotations", "user_id": "ab12",
    },
    "FreedomIntelligence/medical-o1-reasoning-SFT": {"Question": Q, "Complex_CoT": "Let me think.", "Response": GOOD},
    "open-r1/OpenR1-Math-220k": {
        "problem": Q, "solution": "It is 4.", "answer": "4", "problem_type": "Algebra", "question_type": "MCQ",
        "source": "olympiads", "uuid": "ab12", "is_reasoning_complete": [True], "correctness_math_verify": [True],
        "finish_reasons": None, "correctness_count": 1, "messages": SIDES["chosen"],
    },
}  # fmt: skip
COMPARED = "look like answers that are compared: write the better one as chosen"
REFUSED = {  # no name of a column helps; what to write instead
    "openai/webgpt_comparisons": (
        {
            "question": {"dataset": "triviaqa", "id": "1", "full_text": Q}, "quotes_0": {"extract": ["Rain."]},
            "answer_0": GOOD, "score_0": 0.5, "quotes_1": {"extract": ["Sun."]}, "answer_1": BAD, "score_1": -0.5,
        },
        "[answer_0, answer_1] as responses and [score_0, score_1] as scores",
    ),
    "lmarena-ai/arena-human-preference-55k": (
        {
            "id": 1, "model_a": "a", "model_b": "b", "prompt": f'["{Q}"]', "response_a": f'["{GOOD}"]',
            "response_b": f'["{BAD}"]', "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0,
        },
        "write conversation_a and conversation_b, lists of messages with the same question, and winner",
    ),
    "nvidia/HelpSteer": ({"prompt": Q, "response": GOOD, **SCORES}, "columns: {completion: response}"),
    "openai/summarize_from_feedback": (
        {
            "info": {"id": "1", "post": Q, "title": "Rain", "subreddit": "weather"}, "split": "train", "choice": 0,
            "summaries": [{"text": GOOD, "policy": "a"}, {"text": BAD, "policy": "b"}], "worker": "w", "batch": "b1",
        },
        "info.post as prompt, the texts of summaries as responses, and ranks: [0, 1] where choice is 0",
    ),
    "Gemini": (
        {
            "systemInstruction": {"parts": [{"text": "Be kind."}]},
            "contents": [{"role": "user", "parts": [{"text": Q}]}, {"role": "model", "parts": [{"text": GOOD}]}],
        },
        "the keys of Gemini; write messages: systemInstruction as the message of the system, and each of contents",
    ),
    "Salesforce/xlam-function-calling-60k": (
        {"id": 1, "query": Q, "answers": '[{"name": "f", "arguments": {}}]', "tools": '[{"name": "f"}]'},
        "write messages: the question as the user's, and a message of the assistant with the calls as tool_calls",
    ),
    "glaiveai/glaive-function-calling-v2": (
        {"system": "SYSTEM: You have f.", "chat": f"USER: {Q}\n\n\nASSISTANT: {GOOD} <|endoftext|>"},
        "write messages: the turns of chat as user, assistant and tool, with the calls as tool_calls",
    ),
    "trl-lib/math_shepherd": (
        {"prompt": Q, "completions": ["One.", "Two."], "labels": [True, False]},
        "process reward models are not trained here",
    ),
}  # fmt: skip


def ranking_of(loaded):
    (row,) = loaded.rows
    text = row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]
    assert len(row.prompt) == 1 or isinstance(row.prompt, str)
    return text, row.responses, [(pair.first, pair.second, pair.probability) for pair in row.pairs]


def demonstration_of(loaded):
    (row,) = loaded.rows
    text = row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]
    return text.removesuffix("\nIt rained."), row.completion


def remedy_in(message):
    """The entry's keys that a refusal names."""
    columns = re.search(r"columns: \{(.*?)\}", message)
    ignored = re.search(r"(?:without the others, set|\} and) ignore_columns: \[(.*?)\]", message)
    if columns is None:
        ignored = re.search(r"ignore_columns: \[(.*?)\]", message)
    keys = {"columns": dict(pair.split(": ") for pair in columns[1].split(", "))} if columns else {}
    return keys | ({"ignore_columns": ignored[1].split(", ")} if ignored else {})


@pytest.mark.parametrize("name", RANKINGS)
def test_comparisons_are_read(tmp_path, name):
    loaded = written.load(tmp_path, RANKINGS[name], loader=load_rankings)
    assert ranking_of(loaded) == (Q, [GOOD, BAD], [(0, 1, 1.0)])


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_demonstrations_are_read(tmp_path, name):
    assert demonstration_of(written.load(tmp_path, DEMONSTRATIONS[name], loader=load_demonstrations)) == (Q, GOOD)


@pytest.mark.parametrize("name", REMEDIED_RANKINGS)
def test_comparisons_are_read_with_the_remedy_that_their_refusal_names(tmp_path, name):
    row = REMEDIED_RANKINGS[name]
    remedy = remedy_in(written.refused(tmp_path, row, loader=load_rankings))
    loaded = written.load(tmp_path, row, loader=load_rankings, **remedy)
    assert ranking_of(loaded) == (Q, [GOOD, BAD], [(0, 1, 1.0)])


@pytest.mark.parametrize("name", REMEDIED_DEMONSTRATIONS)
def test_demonstrations_are_read_with_the_remedy_that_their_refusal_names(tmp_path, name):
    row = REMEDIED_DEMONSTRATIONS[name]
    remedy = remedy_in(written.refused(tmp_path, row, loader=load_demonstrations))
    assert demonstration_of(written.load(tmp_path, row, loader=load_demonstrations, **remedy)) == (Q, GOOD)


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_without_a_layout_is_refused_with_a_remedy(tmp_path, name):
    row, words = REFUSED[name]
    message = written.refused(tmp_path, row, loader=load_rankings)
    assert words in message
    remedy = remedy_in(message)
    if "columns" in remedy:  # where one is named, the row has a layout with it, if not the one that the stage needs
        with pytest.raises(DataError, match="holds no comparisons of answers, which this stage needs"):
            written.load(tmp_path, row, loader=load_rankings, **remedy)


TREES = {"message_tree_id": "m1", "lang": "en", "deleted": False, "tree_state": "ready_for_export"}
FLAT = [  # OpenAssistant/oasst1: one message a row
    {"message_id": "m1", "parent_id": None, "text": Q, "role": "prompter", **TREES},
    {"message_id": "m2", "parent_id": "m1", "text": GOOD, "role": "assistant", "rank": 0, **TREES},
]


def test_messages_of_trees_one_a_row_are_refused_with_the_file_to_use(tmp_path):
    message = written.refused(tmp_path, *FLAT, loader=load_demonstrations)
    assert "The rows are messages of trees; give the file of whole trees, which oasst reads" in message
    assert "ignore_columns" not in message


def test_two_rows_in_each_layout_are_read_in_their_order(tmp_path):
    both = REMEDIED_RANKINGS["PKU-Alignment/PKU-SafeRLHF"]
    swapped = {**both, "response_0": BAD, "response_1": GOOD, "better_response_id": 1, "safer_response_id": 0}
    remedy = {"columns": {"better": "better_response_id"}, "ignore_columns": ["safer_response_id"]}
    first, second = written.load(tmp_path, both, swapped, loader=load_rankings, **remedy).rows
    assert [first.pairs[0].probability, second.pairs[0].probability] == [1.0, 0.0]
    message = written.refused(tmp_path, both, loader=load_rankings)
    assert "safer_response_id may be better instead" in message
    assert f"response_0 and response_1 {COMPARED}" in message
    nectar = REMEDIED_RANKINGS["berkeley-nest/Nectar"]
    other = {**nectar, "prompt": "Who?", "answers": [{**one, "rank": 3 - one["rank"]} for one in nectar["answers"]]}
    columns = {"responses": "answers.answer", "ranks": "answers.rank"}
    first, second = written.load(tmp_path, nectar, other, loader=load_rankings, columns=columns).rows
    assert [first.pairs[0].probability, second.pairs[0].probability] == [1.0, 0.0]


def test_alternating_texts_and_pairs_are_the_turns_of_user_and_assistant(tmp_path):
    texts = {"data": [Q, GOOD, "Who?", "I."]}
    pairs = {"data": [{"input": Q, "output": GOOD}, {"input": "Who?", "output": "I."}]}
    for row in (texts, pairs):
        found = written.load(tmp_path, row, row, loader=load_demonstrations, columns={"messages": "data"})
        for one in found.rows:
            assert one.prompt == [user(Q), assistant(GOOD), user("Who?")]
            assert one.completion == "I."
    for key in ("prompt", "completion"):
        row = {"prompt": [user(Q)], "completion": [assistant(GOOD)], key: [Q, GOOD, Q]}
        assert f"'{key}[0]' is text, not a message" in written.refused(tmp_path, row, loader=load_demonstrations)
    system = [{"system": "Be kind.", **pairs["data"][0]}, pairs["data"][1]]
    (one,) = written.load(tmp_path, {"messages": system}, loader=load_demonstrations).rows
    assert one.prompt == [{"role": "system", "content": "Be kind."}, user(Q), assistant(GOOD), user("Who?")]
    message = written.refused(tmp_path, {"messages": system[::-1]}, loader=load_demonstrations)
    assert "'messages' has 'system' behind its first turn" in message
    message = written.refused(tmp_path, {"data": [Q, ""]}, loader=load_demonstrations, columns={"messages": "data"})
    assert "'messages[1]' is empty" in message


@pytest.mark.parametrize("better", [True, 2, "b", None, 0.5])
def test_the_number_of_the_better_response_is_0_or_1(tmp_path, better):
    row = {"prompt": Q, "response_0": GOOD, "response_1": BAD, "better": 0}
    assert ranking_of(written.load(tmp_path, row, loader=load_rankings)) == (Q, [GOOD, BAD], [(0, 1, 1.0)])
    message = written.refused(tmp_path, row, {**row, "better": better}, loader=load_rankings)
    assert "d.jsonl:2: 'better' is " in message


def test_keys_next_to_a_column_inside_a_list_are_refused_too(tmp_path):
    row = {"prompt": Q, "answers": [{"text": GOOD, "rank": 1, "hint": "x y"}, {"text": BAD, "rank": 2}]}
    columns = {"responses": "answers.text", "ranks": "answers.rank"}
    message = written.refused(tmp_path, row, loader=load_rankings, columns=columns)
    assert "does not read 'answers'" in message
    loaded = written.load(tmp_path, row, loader=load_rankings, columns=columns, ignore_columns=["hint"])
    assert ranking_of(loaded) == (Q, [GOOD, BAD], [(0, 1, 1.0)])
    message = written.refused(tmp_path, row, loader=load_rankings, columns={"responses": "answers.txt"})
    assert "columns takes responses from 'answers.txt', which no row has" in message


SHP = {
    "post_id": "ab1",
    "domain": "askhr_train",
    "upvote_ratio": 0.9,
    "history": Q,
    "score_A": 5,
    "score_B": 2,
    "human_ref_A": GOOD,
    "human_ref_B": BAD,
    "labels": 1,
    "seconds_difference": 1.0,
    "score_ratio": 2.5,
}


def test_shp_is_read_with_the_columns_that_its_refusal_names(tmp_path):
    other = {**SHP, "history": "Who?", "labels": 0}
    message = written.refused(tmp_path, SHP, loader=load_rankings)
    assert "The row has the keys of stanfordnlp/SHP. To read them as the layout numbered, set columns" in message
    assert "Known layouts" not in message
    found = written.load(tmp_path, SHP, other, loader=load_rankings, **remedy_in(message)).rows
    assert [one.responses for one in found] == [[BAD, GOOD]] * 2
    assert [one.pairs[0].probability for one in found] == [0.0, 1.0]  # labels 1: human_ref_A, GOOD, is better


def test_the_sign_of_a_strength_names_the_better_response_and_its_size_is_the_margin(tmp_path):
    row = RANKINGS["nvidia/HelpSteer2, preference"]
    rows = [{**row, "prompt": str(strength), "preference_strength": strength} for strength in (-3, 0, 1)]
    pairs = [one.pairs[0] for one in written.load(tmp_path, *rows, loader=load_rankings).rows]
    assert [(pair.probability, pair.status, pair.margin) for pair in pairs] == [
        (1.0, "ok", 3.0), (0.5, "tie", 0.0), (0.0, "ok", 1.0),
    ]  # fmt: skip
    for strength, words in ((None, "not a number"), (True, "not a number"), ("-2", "not a number")):
        message = written.refused(tmp_path, row, {**row, "preference_strength": strength}, loader=load_rankings)
        assert words in message or "lacks" in message or "is null" in message
    same = {**row, "response_2": GOOD}
    assert "are the same answer" in written.refused(tmp_path, same, loader=load_rankings)


@pytest.mark.parametrize(
    ("winner", "probability"),
    [("model_a", 1.0), ("model_b", 0.0), ("tie", 0.5), ("tie (bothbad)", 0.5), ("both_bad", 0.5)],
)
def test_the_winner_of_an_arena_is_the_better_conversation(tmp_path, winner, probability):
    row = {**RANKINGS["lmsys/chatbot_arena_conversations"], "winner": winner}
    assert ranking_of(written.load(tmp_path, row, loader=load_rankings)) == (Q, [GOOD, BAD], [(0, 1, probability)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"winner": "a or b"}, "'winner' is 'a or b'; known are model_a, model_b, tie and both_bad"),
        ({"winner": 1}, "'winner' is 1"),
        ({"conversation_b": [user("Who?"), assistant(BAD)]}, "do not begin with the same prompt"),
        ({"conversation_b": [*SIDES["rejected"], user("Why?"), assistant("So.")]}, "only single answers are compared"),
    ],
)
def test_an_arena_without_one_choice_is_refused(tmp_path, change, words):
    row = {**RANKINGS["lmsys/chatbot_arena_conversations"], **change}
    message = written.refused(tmp_path, row, loader=load_rankings)
    assert words in message
    assert "'chosen'" not in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": [user(Q)]}, "'input' is a list, not an object with messages"),
        ({"input": {"messages": [user(Q)], "seed_text": "Hm."}}, "'input' has 'seed_text'"),
        ({"input": {"messages": SIDES["chosen"]}}, "ends with a message of the assistant"),
        ({"preferred_output": SIDES["chosen"]}, "'preferred_output' has 2 messages"),
        ({"preferred_output": [user(GOOD)]}, "'preferred_output' ends with a message of the user"),
        ({"preferred_output": [assistant(BAD)]}, "'preferred_output' and 'non_preferred_output' are the same answer"),
    ],
)
def test_openai_preferences_that_are_not_single_answers_are_refused(tmp_path, change, words):
    message = written.refused(tmp_path, {**RANKINGS["OpenAI preference fine-tuning"], **change}, loader=load_rankings)
    assert words in message


def test_openai_preferences_have_tools_and_calls(tmp_path):
    call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    row = RANKINGS["OpenAI preference fine-tuning"]
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = {**row, "input": {"messages": [user(Q)], "tools": tools}, "preferred_output": [call]}
    (found,) = written.load(tmp_path, row, loader=load_rankings).rows
    assert '"name": "f"' in found.prompt[0]["tools"]
    assert found.responses[0].startswith("<tool_call>")
    columns = {"ignore_columns": ["seed_text"]}
    row["input"]["seed_text"] = "Hm."
    assert written.load(tmp_path, row, loader=load_rankings, **columns).rows[0].responses == found.responses
