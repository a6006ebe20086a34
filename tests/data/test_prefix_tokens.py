"""What texts share at their beginning is tokenised once, and the ids are those of each text tokenised alone."""

import functools
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignment.data.control import ControlTokens
from alignment.data.prefix_tokens import PrefixTokens
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import DataError
from tests.data.kinds import KINDS, TEMPLATELESS
from tests.data.test_adversarial import ANSWERS, FEW, LETTERS, MARKS, ORDINARY, OTHERS
from tests.models import make_tokenizer

ADDED = [
    AddedToken("<|im_end|>x", special=True),  # longer than the token that it begins with
    AddedToken("q<|im_start|>r", special=True),  # holds another
    AddedToken("|>a<|", special=True),  # overlaps others
    AddedToken("<|left|>", special=True, lstrip=True),
    AddedToken("<|right|>", special=True, rstrip=True),
    AddedToken("<|word|>", special=True, single_word=True),
    AddedToken("<|Normal|>", normalized=True),
    AddedToken("   ", normalized=False),
]
PIECES = [*ORDINARY, *MARKS, *(token.content for token in ADDED), "word", "<unk>"]
FEWER = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_",
    "|>",
    "a",
    "q",
    "r",
    "x",
    "a<|",
    "<|left|>",
    "<|right|>",
    "<|word|>",
    " ",
]


def texts_of(pieces):
    """Texts, each made of the one before: characters that are taken off its end, and pieces that follow then."""
    return st.lists(st.tuples(st.integers(0, 12), st.lists(pieces, max_size=6)), max_size=8)


@functools.cache
def metaspace():
    """A tokenizer that puts a space before the first word of a text alone, and has a token for what it cannot write."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    core.train_from_iterator(["a user asks the assistant, who answers"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@functools.cache
def with_added_tokens():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(ADDED)
    return tokenizer


def tried(work):
    """What `work` returns, or the text of its refusal."""
    try:
        return work()
    except DataError as error:
        return str(error)


@settings(max_examples=100, deadline=None)
@given(texts_of(st.sampled_from(FEWER)))
@example([(0, ["q", "<|im_start|>"]), (0, ["r"])])
def test_tokens_that_hold_others_do_not_mislead(steps):
    require_same_ids(with_added_tokens(), steps)


@settings(**FEW)
@given(texts_of(st.sampled_from(PIECES) | LETTERS))
def test_a_space_before_the_first_word_alone_does_not_mislead(steps):
    require_same_ids(metaspace(), steps)


@pytest.mark.parametrize("kind", ["qwen25", "llama3", *TEMPLATELESS])
@settings(**FEW)
@given(texts_of(st.sampled_from(PIECES) | LETTERS))
def test_each_text_has_the_ids_that_it_has_alone(kind, tokenizers, steps):
    require_same_ids(tokenizers(kind), steps)


def require_same_ids(tokenizer, steps):
    """Compare the ids of texts that begin alike with those of each text alone, also with stand-ins in them."""
    control, text, mixed, hidden = ControlTokens(tokenizer, ""), "", "", {}
    of_text, of_mixed = PrefixTokens(tokenizer, control.ids), PrefixTokens(tokenizer, control.ids)
    for number, (dropped, pieces) in enumerate(steps):
        more = "".join(pieces)
        text = text[: max(len(text) - dropped, 0)] + more
        assert of_text.ids(text, {}) == tokenizer(text, add_special_tokens=False)["input_ids"]
        mixed = mixed[: max(len(mixed) - dropped, 0)] + (control.hide(more, hidden) if number % 2 else more)
        assert tried(partial(of_mixed.ids, mixed, hidden)) == tried(partial(control.ids, mixed, hidden))


def test_a_tokenizer_that_reads_a_text_as_a_whole_is_given_it_whole():
    tokenizer = make_tokenizer()

    def encode(text, hidden):
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], len(text)]

    prefixes = PrefixTokens(tokenizer, encode)
    for text in ("<|im_start|>a<|im_end|>", "<|im_start|>a<|im_end|>b", "<|im_start|>a<|im_end|>b<|im_start|>"):
        assert prefixes.ids(text, {}) == encode(text, {})


@pytest.mark.parametrize("kind", KINDS)
@settings(**{**FEW, "suppress_health_check": list(HealthCheck)})
@given(turns=st.lists(st.tuples(OTHERS, ANSWERS), min_size=1, max_size=4))
def test_conversations_have_the_ids_that_they_have_alone(kind, templates, turns):
    template = templates(kind)
    pairs = [({"role": "user", "content": asked}, {"role": "assistant", "content": said}) for asked, said in turns]
    messages = [message for pair in pairs for message in pair]
    row = Demonstration(messages[:-1], messages[-1]["content"])
    found = tried(lambda: template.demonstrations(row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefixTokens, "ids", lambda self, text, hidden: self._encode(text, hidden))
        assert found == tried(lambda: template.demonstrations(row))


@pytest.mark.parametrize("turns", [20, 200])
def test_a_conversation_is_tokenised_few_times(turns):
    template, texts = Template(make_tokenizer()), []
    messages = [{"role": ("user", "assistant")[place % 2], "content": f"word {place}"} for place in range(turns)]
    row = Demonstration(messages[:-1], messages[-1]["content"])
    whole = template.demonstrations(row)
    with pytest.MonkeyPatch.context() as patch:
        encode = ControlTokens._encode
        patch.setattr(ControlTokens, "_encode", lambda self, text: texts.append(text) or encode(self, text))
        assert template.demonstrations(row) == whole
    written = template.tokenizer.apply_chat_template(messages, tokenize=False)
    assert len(written) / 2 < sum(map(len, texts)) < 3 * len(written)
