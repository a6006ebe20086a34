"""Prompts and answers in tokens for encoder-decoder models, against the tokenizer of transformers."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignment.config.schema import ModelKeys
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.rows import Demonstration
from alignment.data.template import IGNORE, Template
from alignment.errors import DataError, ModelError
from alignment.policy.tokenizer import load_tokenizer
from tests.models import CHAT_TEMPLATE, save_tiny_bart, save_tiny_t5

MARKED = (
    "{% for message in messages %}{{ message['role'] }}: {% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}{% endgeneration %}!</s>{% else %}{{ message['content'] }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def template_of(folder):
    return Template(load_tokenizer(ModelKeys(model_name_or_path=str(folder))))


@pytest.mark.parametrize("save", [save_tiny_t5, save_tiny_bart], ids=["t5", "bart"])
def test_text_is_tokenised_as_the_tokenizer_does(tmp_path, save):
    template, plain = template_of(save(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)
    assert template.prompt_ids("Tell me a story.") == plain("Tell me a story.").input_ids
    answer = template.answer_ids("Tell me a story.", "The fox.")
    assert answer == plain(text_target="The fox.").input_ids
    assert template.sampled_ids("Tell me a story.", "The fox.", stop=False) == answer[:-1]
    assert template.answer_text(template.prompt_ids("Tell me a story."), answer) == "The fox."
    (row,) = template.answers(Demonstration("Tell me a story.", "The fox."))
    assert (row.context, row.ids, row.labels) == (template.prompt_ids("Tell me a story."), answer, answer)


def test_an_answer_begins_a_text_of_its_own():
    # T5's tokenizer puts a space before a text: "▁yes", where what follows "no" without a space is "yes"
    vocabulary = {"<pad>": 0, "</s>": 1, "▁no": 2, "▁yes": 3, "yes": 4, "<unk>": 5}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    tokenizer.decoder_start_id = 0
    template = Template(tokenizer)
    assert template.prompt_ids("no") == [2, 1]
    assert template.answer_ids("no", "yes") == [3, 1]
    assert template.answer_text([2, 1], [3]) == "yes"
    assert template.sides.decoder_inputs([3, 1]) == [0, 3]


def test_the_first_token_of_the_decoder_is_not_written_twice(tmp_path):
    save_tiny_bart(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.decoder_start_id = tokenizer.bos_token_id  # as T5Gemma's decoder begins
    template = Template(tokenizer)
    answer = template.answer_ids("What?", "The fox.")
    assert tokenizer.bos_token_id not in answer
    assert template.sides.decoder_inputs(answer) == [tokenizer.bos_token_id, *answer[:-1]]


def test_each_answer_of_a_conversation_is_a_row_behind_all_that_comes_before(tmp_path):
    template = template_of(save_tiny_t5(tmp_path, chat_template=CHAT_TEMPLATE.replace("<|im_end|>", "</s>")))
    messages = [("user", "What?"), ("assistant", "The fox."), ("user", "And?"), ("assistant", "A dog.")]
    chat = [{"role": role, "content": text} for role, text in messages]
    first, second = template.answers(Demonstration(chat[:-1], "A dog."))
    decode = template.tokenizer.decode
    assert decode(first.context) == "<|im_start|>user\nWhat?</s>\n<|im_start|>assistant\n</s>"
    assert decode(second.context) == (
        "<|im_start|>user\nWhat?</s>\n<|im_start|>assistant\nThe fox.</s>\n<|im_start|>user\nAnd?</s>\n"
        "<|im_start|>assistant\n</s>"
    )
    assert (decode(first.ids), decode(second.ids)) == ("The fox.</s>", "A dog.</s>")
    assert template.prompt_ids(chat[:1]) == first.context
    assert template.answer_ids(chat[:1], "The fox.") == first.ids


def test_what_a_template_does_not_mark_is_read_by_the_decoder_and_not_learned(tmp_path):
    template = template_of(save_tiny_t5(tmp_path, chat_template=MARKED))
    (row,) = template.answers(Demonstration([{"role": "user", "content": "What?"}], "The fox."))
    assert template.tokenizer.decode(row.ids) == "The fox.!</s>"
    assert template.tokenizer.decode([label for label in row.labels if label != IGNORE]) == "The fox.</s>"
    assert template.sides.decoder_inputs(row.ids)[1:] == row.ids[:-1]


def test_rows_that_no_encoder_reads_are_refused(tmp_path):
    template = template_of(save_tiny_t5(tmp_path))
    text = Demonstration("", "The quick brown fox.")
    with pytest.raises(DataError, match="is text without a prompt, which the encoder of an encoder-decoder model"):
        template.sides.require_read(text, AnswerTokens(template).answers(text), None)
    row = Demonstration("Tell me a story.", "The fox.")
    length = len(template.prompt_ids(row.prompt))
    template.sides.require_read(row, template.answers(row), length)
    with pytest.raises(DataError, match=f"the prompt has {length} tokens, and the encoder reads {length - 1}"):
        template.sides.require_read(row, template.answers(row), length - 1)


def test_a_decoder_without_a_first_token_is_refused(tmp_path):
    config = save_tiny_t5(tmp_path) / "config.json"
    config.write_text(config.read_text().replace('"decoder_start_token_id"', '"other"'))
    generation = tmp_path / "generation_config.json"
    generation.write_text(generation.read_text().replace('"decoder_start_token_id"', '"other"'))
    with pytest.raises(ModelError, match="names no decoder_start_token_id, the first token that its decoder reads"):
        template_of(tmp_path)


def test_an_encoders_template_is_another_one(tmp_path):
    """Sampled tokens of an encoder-decoder model are not those of a decoder with the same tokenizer."""
    template = template_of(save_tiny_t5(tmp_path))
    assert template.hash != Template(AutoTokenizer.from_pretrained(tmp_path)).hash
