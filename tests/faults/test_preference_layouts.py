"""Case 38: each file of comparisons is read as its rows mean it, or refused with a line that helps."""

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings
from alignment.errors import DataError

Q = [{"role": "user", "content": "q"}]
FIRST, SECOND = [(0, 1, 1.0)], [(0, 1, 0.0)]
COMPARED = "look like answers that are compared: write the better one as chosen, the other one as rejected"
READ = {  # prompt, answers and pairs of each ranking
    "argilla_messages_field": [(Q, ["a", "b"], SECOND)],
    "argilla_strings": [(Q, ["a", "b"], SECOND)],
    "chosen_single_message_dict": [(Q, ["a", "b"], FIRST)],
    "hh_assistant_first": [([{"role": "assistant", "content": "hi"}, *Q], ["a", "b"], FIRST)],
    "hh_double_assistant": [(Q, ["a\n\nb", "a\n\nc"], FIRST)],
    "hh_double_human": [([{"role": "user", "content": "q\n\nmore"}], ["a", "b"], FIRST)],
    "hh_first_row_odd": [(Q, ["good", "bad"], FIRST), (Q, ["a", "b"], FIRST)],
    "hh_no_leading_newlines": [(Q, ["good", "bad"], FIRST)],
    "hh_plain": [
        ([*Q, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q2"}], ["good", "bad"], FIRST)
    ],
    "ls_pairwise": [(Q, ["a", "b"], FIRST)],
    "mt-bench_human": [(Q, ["a", "b"], FIRST)],
    "openai_preference": [(Q, ["a", "b"], FIRST)],
    "prompt_list_plus_full_chosen": [(Q, ["a", "b"], FIRST)],
    "ranks_equal": [("q", ["a", "b", "c"], [(0, 1, 0.5), (0, 2, 1.0), (1, 2, 1.0)])],
    "rewardbench": [("q", ["a", "b"], FIRST)],
    "sharegpt_dpo": [(Q, ["a", "b"], FIRST)],
    "sharegpt_dpo_with_system": [([{"role": "system", "content": "Be terse"}, *Q], ["a", "b"], FIRST)],
    "ultrafeedback": [(Q, ["a", "b"], FIRST)],
}
REFUSED = {
    "arena": "write conversation_a and conversation_b, lists of messages with the same question, and winner",
    "argilla_empty_responses": "gives no usable row",
    "argilla_rating_none": "are not of two or more answers, each rated by one question",
    "chosen_list_one_two_empties": "'chosen' is an empty list",
    "distilabel_ratings": "as the layout answers, set columns: {prompt: instruction, responses: generations}",
    "helpsteer": "Set columns: {completion: response} for the layout prompt_completion",
    "hh_diverging": "give pairs that part at their last message",
    "hh_empty_answer": "'chosen' is an empty answer",
    "hh_ends_with_human": "'chosen' does not end with an answer of the assistant",
    "hh_fullwidth": "'chosen' does not begin with '\\n\\nHuman:'",
    "hh_one_longer": "'rejected' goes on after the answer with which it parts",
    "hh_quote_of_Human_in_answer": "'chosen' does not end with an answer of the assistant",
    "lf_ranking_dpo_old": "'output' is a list, not text",
    "lf_ranking_old_in_sft": "'output' is a list, not text",
    "ls_choices": "none of the annotations holds a result of the type pairwise or ranker",
    "ls_rating": "none of the annotations holds a result of the type pairwise or ranker",
    "pku": f"response_0 and response_1 {COMPARED}",
    "prompt_differs_from_chosen": "'prompt' differs from what 'chosen' begins with",
    "prompt_responses_ratings": "Where a column rates the responses, set columns: {scores: THAT COLUMN}",
    "shp": "{prompt: history, response_0: human_ref_B, response_1: human_ref_A, better: labels}",
    "summarize": "the texts of summaries as responses, and ranks: [0, 1] where choice is 0, else [1, 0]",
    "swift_in_sft": "does not read 'rejected_response' ('b')",
    "swift_rejected_response": "does not read 'rejected_response' ('b')",
    "system_in_chosen_only": "'chosen' and 'rejected' do not begin with the same prompt",
    "ultrafeedback_reversed": "'score_chosen' 5.0 is below 'score_rejected' 8.0",
    "webgpt": "[answer_0, answer_1] as responses and [score_0, score_1] as scores",
}


def load(shared, name, **keys):
    path = shared / "faults/38-preference-layouts" / f"{name}.jsonl"
    return load_rankings([DatasetEntry(path=str(path), **keys)], on_bad_row="stop", seed=0).rows


@pytest.mark.parametrize("name", READ)
def test_comparisons_are_read_as_their_rows_mean_them(shared, name):
    found = [
        (row.prompt, row.responses, [(pair.first, pair.second, pair.probability) for pair in row.pairs])
        for row in load(shared, name)
    ]
    assert found == READ[name]


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_with_a_line_that_helps(shared, name):
    with pytest.raises(DataError) as caught:
        load(shared, name)
    assert REFUSED[name] in str(caught.value)


def test_named_remedies_read_the_ratings(shared):
    columns = {"scores": "ratings"}
    (row,) = load(shared, "prompt_responses_ratings", columns=columns)
    assert [(pair.probability, pair.margin) for pair in row.pairs] == [(1.0, 1.0)]
    (row,) = load(
        shared, "distilabel_ratings", columns={**columns, "prompt": "instruction", "responses": "generations"}
    )
    assert (row.prompt, [pair.probability for pair in row.pairs]) == ("q", [1.0])


def test_every_file_of_the_case_is_named_above(shared):
    files = {file.stem for file in (shared / "faults/38-preference-layouts").glob("*.jsonl")}
    assert files == READ.keys() | REFUSED.keys()
