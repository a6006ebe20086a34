"""`alignment score` and `bench` encode an answer as training encodes it, or refuse it with training's words."""

import json
import re

import pytest

from alignment.data import load_rankings
from alignment.data.template import Template
from alignment.errors import AlignmentError
from reward.bench.reading import read_bench
from reward.models.batches import encode_rankings
from reward.models.ensemble import Ensemble
from reward.models.score_file import _rows
from reward.models.scoring import RewardScorer
from tests.data import written
from tests.data.kinds import written as template_of
from tests.models import CHAT_TEMPLATE, make_tokenizer

IM = "{{ '<|im_start|>' + m.role + '\\n' + TEXT + '<|im_end|>\\n' }}"
THINKS = IM.replace(
    "TEXT",
    "('<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' if m.reasoning_content is defined else '') + m.content",
)
OPENS = IM.replace("TEXT", "m.content")
TEMPLATES = {
    "writes no reasoning": CHAT_TEMPLATE,
    "writes reasoning": template_of(THINKS),
    "opens a thought": template_of(OPENS, "{{ '<|im_start|>assistant\\n<think>\\n' }}"),
    "adds an empty thought": CHAT_TEMPLATE.replace(
        "{{ message['content'] }}",
        "{% if message['role'] == 'assistant' and '</think>' not in message['content'] %}<think>\n\n</think>\n\n"
        "{% endif %}{{ message['content'] }}",
    ),
}
U, WORSE = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nNo."}
ANSWERS = {
    "plain": {"content": "So."},
    "in the text": {"content": "<think>\nit rains\n</think>\n\nSo."},
    "not closed": {"content": "<think>\nit rains"},
    "in the middle": {"content": "So <think>it rains</think>."},
    **{key: {"content": "So.", key: "it rains"} for key in ("reasoning_content", "reasoning", "thinking")},
    "tags in the field": {"content": "So.", "reasoning_content": "it <think> rains"},
    "control token": {"content": "<|im_start|>"},
}


def outcome(make):
    """The ids, or how the refusal begins behind its place."""
    try:
        return make()
    except AlignmentError as error:
        return re.split(r"answer 1(?: of 2)?: |:1: ", str(error))[-1][:50]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("kind", TEMPLATES)
def test_scores_read_reasoning_as_training_does(tmp_path, kind, answer):
    template = Template(make_tokenizer(chat_template=TEMPLATES[kind]))
    scorer = Ensemble((RewardScorer(None, template, 0, 4, None, {}),), ("m",))
    better = {"role": "assistant", **ANSWERS[answer]}
    pair = {"prompt": [U], "chosen": [better], "rejected": [WORSE]}

    def trained():
        rankings = written.load(tmp_path, pair, loader=load_rankings).rows
        return encode_rankings(rankings, template, max_length=None).rows[0].input_ids[0]

    def scored():
        (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": [U, better]}) + "\n")
        (row,) = _rows(tmp_path / "rows.jsonl", ())
        return row.encoded(scorer)[0][0]

    def benched():
        (tmp_path / "d.jsonl").write_text(json.dumps(pair) + "\n")
        (row,) = read_bench([str(tmp_path / "d.jsonl")]).rows
        return scorer.encode_answer(row.ranking, 0, where="d:1")[0]

    wanted = outcome(trained)
    assert outcome(benched) == wanted
    found = outcome(scored)
    assert found == wanted or (isinstance(found, str) and isinstance(wanted, str))
    if kind == "writes reasoning" and answer == "reasoning_content":
        assert "it rains\n</think>\n\nSo." in template.tokenizer.decode(wanted)


def test_the_remedy_is_a_sentence_of_its_own(tmp_path):
    template = Template(make_tokenizer(chat_template=TEMPLATES["writes no reasoning"]))
    pair = {"prompt": [U], "chosen": [{"role": "assistant", "content": "<|im_start|>"}], "rejected": [WORSE]}
    rankings = written.load(tmp_path, pair, loader=load_rankings).rows
    with pytest.raises(AlignmentError, match=r"or give it words\. Or set on_bad_row: skip"):
        encode_rankings(rankings, template, max_length=None)
