"""The step `pii`: what is found, what takes its place, and what is recorded."""

import json
import sys

import pytest

from alignment.config.schema.steps import step_entry
from alignment.data.prepare.pii.finder import Finder
from alignment.data.prepare.pii.numbers import check_character, luhn
from alignment.data.prepare.pii.spans import Span, chosen
from alignment.data.prepare.pii.surrogates import surrogate
from alignment.data.prepare.pii.texts import windows
from alignment.data.prepare.step import Change, Drop, Row, StepError
from alignment.errors import AlignmentError
from alignment.prepare.applying import built
from tests.prepare.running import prepare


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder()


def found(finder: Finder, text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in finder.find(text, finder.kinds)]


FOUND = [
    ("Write to jane.doe@corp.internal.", [("EMAIL_ADDRESS", "jane.doe@corp.internal")]),
    ("邮箱abc@example.com，谢谢", [("EMAIL_ADDRESS", "abc@example.com")]),
    ("npm i react@18.2.0", []),
    ("card 4111 1111 1111 1111!", [("CREDIT_CARD", "4111 1111 1111 1111")]),
    ("card 4111 1111 1111 1112!", []),  # the check digit is wrong
    ("卡号4111111111111111吗", [("CREDIT_CARD", "4111111111111111")]),
    ("gb82 west 1234 5698 7654 32 from bank", [("IBAN_CODE", "gb82 west 1234 5698 7654 32")]),
    ("GB83 WEST 1234 5698 7654 32", []),
    ("host 10.1.2.3, fe80::1ff:fe23:4567:890a", [
        ("IP_ADDRESS", "10.1.2.3"), ("IP_ADDRESS", "fe80::1ff:fe23:4567:890a")]),
    ("Phone:(555) 123-4567", [("PHONE_NUMBER", "(555) 123-4567")]),
    ("ring +44 20 7946 0958 now", [("PHONE_NUMBER", "+44 20 7946 0958")]),
    ("call 2125550123", [("PHONE_NUMBER", "2125550123")]),
    ("order 2125550123", []),
    ("ruled 1979-1990, sold 1.250.000, ZIP 12345-6789", []),
    ("身份证11010519491231002X。", [("CN_RESIDENT_ID", "11010519491231002X")]),  # the example of GB 11643
    ("身份证110105194912310021。", []),
    ("手机：１３８ ００１３ ８０００", [("CN_MOBILE_NUMBER", "１３８ ００１３ ８０００")]),
    ("ssn 219-09-9999", [("US_SSN", "219-09-9999")]),
    ("on 1978-04-13 12:20:39, or 2016年4月12日", [
        ("DATE_TIME", "1978-04-13 12:20:39"), ("DATE_TIME", "2016年4月12日")]),
    ("born April 3rd, 1999", [("DATE_TIME", "April 3rd, 1999")]),
    ("see https://foo.community/a(b)c.", [("URL", "https://foo.community/a(b)c")]),
    ("it is done.So we go", []),
    ("key AKIAIOSFODNN7EXAMPLE.", [("SECRET_VALUE", "AKIAIOSFODNN7EXAMPLE")]),
    ("token ghp_" + "a1B2" * 9, [("SECRET_VALUE", "ghp_" + "a1B2" * 9)]),
    ("my password is hunter2!x", [("SECRET_VALUE", "hunter2!x")]),
    ('password = "correct horse"', [("SECRET_VALUE", "correct horse")]),
    ("password: your_password1", []),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", [
        ("SECRET_VALUE", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----")]),
    ("<EMAIL_ADDRESS> <CREDIT_CARD> <PHONE_NUMBER>", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_finds_personal_data_and_leaves_what_only_looks_like_it(finder, text, expected):
    assert found(finder, text) == expected


def test_finds_what_a_window_s_end_would_cut(finder):
    text = "word " * 9_998 + "jane@example.com" + " word" * 20_000  # the address lies across 50,000 characters
    assert found(finder, text) == [("EMAIL_ADDRESS", "jane@example.com")]
    assert [offset for offset, _ in windows("a" * 120_000)] == [0, 49_000, 98_000]  # text without white space


def test_checksums_by_hand():
    # 7992739871: doubled from the right 1 4 8 9 7 (18→9) ... sum 67, so the check digit is 3 (Wikipedia's example)
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert check_character("11010519491231002") == "X"


def test_of_overlapping_spans_the_one_that_holds_the_others_counts_and_no_character_is_lost():
    text = "John Smith j@x.org and more"
    name, mail, domain = Span(0, 14, "PERSON", 0.8, True), Span(11, 18, "EMAIL_ADDRESS", 1.0), Span(13, 18, "URL", 0.5)
    kinds = {"PERSON", "EMAIL_ADDRESS", "URL"}
    assert chosen([domain, mail, name], kinds, text) == [Span(0, 11, "PERSON", 0.8, True), mail]
    # a type that is not chosen refutes a weaker reading, but hides no stronger span inside it
    assert chosen([Span(0, 9, "DATE_TIME", 0.6), Span(0, 9, "PHONE_NUMBER", 0.45)], {"PHONE_NUMBER"}, text) == []
    assert chosen([Span(0, 18, "URL", 0.6), mail], {"EMAIL_ADDRESS"}, text) == [mail]
    assert chosen([Span(0, 18, "URL", 0.6), mail], kinds, text) == [Span(0, 18, "URL", 0.6)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("CREDIT_CARD", "4111-1111-1111-1111"), ("IBAN_CODE", "GB82 WEST 1234 5698 7654 32"), ("US_SSN", "219-09-9999"),
     ("CN_RESIDENT_ID", "11010519491231002X"), ("CN_MOBILE_NUMBER", "13800138000"), ("PERSON", "Jane Doe"),
     ("EMAIL_ADDRESS", "jane@corp.com"), ("PHONE_NUMBER", "+44 20 7946 0958"), ("IP_ADDRESS", "8.8.8.8"),
     ("SECRET_VALUE", "hunter2!x"), ("MAC_ADDRESS", "00:1b:44:11:3a:b7")],
)  # fmt: skip
def test_surrogates_are_stable_differ_by_seed_and_scope_and_are_never_valid(finder, kind, value):
    made = {surrogate(kind, value, seed=seed, scope=scope) for seed in range(40) for scope in ("", "a")}
    assert len(made) == 80
    assert surrogate(kind, value, seed=3) == surrogate(kind, value.upper(), seed=3) != value
    checked = {"CREDIT_CARD", "IBAN_CODE", "US_SSN", "CN_RESIDENT_ID", "CN_MOBILE_NUMBER"}
    if kind in checked:
        assert not [each for each in made if (kind, each) in found(finder, f"ssn {each}")]


def test_spellings_of_a_number_get_the_same_surrogate():
    one, two = (surrogate("CREDIT_CARD", value, seed=1) for value in ("4111 1111 1111 1111", "4111111111111111"))
    assert one.replace(" ", "") == two


ROW = {
    "messages": [
        {"role": "user", "content": "I am jane@corp.com, card 4111 1111 1111 1111."},
        {"role": "assistant", "content": "Thanks, jane@corp.com."},
    ],
    "customer_phone": 2125550123,
    "meta": {"raw": '{"mail": "jane@corp.com", "note": "a\\njane@corp.com"}'},
}


def apply(row=ROW, seed=0, **keys):
    return built(step_entry(kind="pii", **keys), 1, seed, {}).step.apply(Row(row, "f:1", "messages"))


def test_masks_every_text_and_column_of_a_row_and_the_record_holds_no_personal_data():
    outcome = apply()
    assert isinstance(outcome, Change)
    assert outcome.private
    assert outcome.detail == "1 CREDIT_CARD, 4 EMAIL_ADDRESS, 1 PHONE_NUMBER"
    (row,) = outcome.rows
    assert row.value["messages"][0] == {"role": "user", "content": "I am <EMAIL_ADDRESS>, card <CREDIT_CARD>."}
    assert row.value["customer_phone"] == "<PHONE_NUMBER>"
    assert json.loads(row.value["meta"]["raw"]) == {"mail": "<EMAIL_ADDRESS>", "note": "a\n<EMAIL_ADDRESS>"}
    assert apply(row.value) is not None
    assert isinstance(apply(row.value), Row)  # once is enough


def test_surrogates_are_consistent_within_a_row_and_within_the_data_set():
    (row,) = apply(action="surrogate").rows
    first = row.value["messages"][1]["content"].removeprefix("Thanks, ").rstrip(".")
    assert first in row.value["messages"][0]["content"]
    assert json.loads(row.value["meta"]["raw"])["mail"] == first

    def mail(origin, **keys):
        step = built(step_entry(kind="pii", action="surrogate", **keys), 1, 0, {}).step
        return step.apply(Row({"text": "jane@corp.com"}, origin, "text")).rows[0].value["text"]

    assert mail("f:1") == mail("f:1") != mail("f:2")
    assert mail("f:1", surrogates="dataset") == mail("f:2", surrogates="dataset")


def test_actions_of_single_types_and_allowed_texts():
    outcome = apply(actions={"CREDIT_CARD": "drop"})
    assert isinstance(outcome, Drop)
    assert outcome.private
    (row,) = apply(action="keep", actions={"PHONE_NUMBER": "mask"}).rows
    assert row.value == {**ROW, "customer_phone": "<PHONE_NUMBER>"}
    (row,) = apply(allow=["jane@corp.com"]).rows
    assert "jane@corp.com, card <CREDIT_CARD>" in row.value["messages"][0]["content"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"types": ["EMAIL_ADRESS"]}, "types: EMAIL_ADRESS is not known; did you mean EMAIL_ADDRESS?"),
        ({"countries": ["xx"]}, "countries: xx is not known"),
        ({"phone_regions": ["us"]}, "phone_regions: us is not known"),
        ({"action": "keep"}, "looks for no type of personal data"),
    ],
)
def test_refuses_what_it_cannot_look_for(keys, told):
    with pytest.raises(StepError, match=told.replace("?", r"\?")):
        apply(**keys)


def test_runs_in_the_stage_and_leaves_no_personal_data_in_its_folder(tmp_path):
    rows = [
        {"prompt": "Who?", "completion": text} for text in ("I am jane@corp.com", "No one", "key: AKIAIOSFODNN7EXAMPLE")
    ]
    run = prepare(tmp_path, rows, {"kind": "pii", "actions": {"SECRET_VALUE": "drop"}})
    assert [row["completion"] for row in run.rows()] == ["I am <EMAIL_ADDRESS>", "No one"]
    assert [(row["action"], row["detail"]) for row in run.dropped] == [
        ("changed", "1 EMAIL_ADDRESS"),
        ("dropped", "1 SECRET_VALUE"),
    ]
    for path in run.folder.rglob("*"):
        assert not path.is_file() or not any(word in path.read_bytes() for word in (b"jane@corp", b"AKIAIO")), path


def test_a_step_before_it_may_not_record_texts(tmp_path):
    steps = [{"kind": "clean"}, {"kind": "pii"}]
    with pytest.raises(AlignmentError, match="jsonl would hold personal data") as error:
        prepare(tmp_path, [{"text": "I am jane@corp.com"}], *steps)
    assert error.value.exit_code == 2
    assert (
        prepare(tmp_path, [{"text": "jane@corp.com"}], *steps, record_texts=False).rows()[0]["text"]
        == "<EMAIL_ADDRESS>"
    )


def spacy_pipeline(folder):
    import spacy

    model = spacy.blank("xx")
    model.add_pipe("entity_ruler").add_patterns(
        [{"label": "PER", "pattern": "Alice Ng"}, {"label": "GPE", "pattern": "Oslo"}]
    )
    model.to_disk(folder)
    return {"kind": "spacy", "model_name_or_path": str(folder)}


def token_classifier(folder, labels=("O", "B-PER", "I-PER", "B-LOC")):
    """A model without layers whose embeddings are the labels of its words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    words = {"[UNK]": 0, "Alice": 1, "Ng": 2, "Oslo": 3}
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=4, num_hidden_layers=0, num_attention_heads=1, intermediate_size=4,
        id2label=dict(enumerate(labels)), max_position_embeddings=2_000,
    )  # fmt: skip
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for each in model.parameters():
            each.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        model.classifier.weight.copy_(9 * torch.eye(4))
        model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(4)[torch.arange(4)])
    model.save_pretrained(folder)
    return {"kind": "transformers", "model_name_or_path": str(folder)}


@pytest.mark.parametrize("make", [spacy_pipeline, token_classifier])
def test_reads_the_user_s_own_model_of_named_entities(tmp_path, make):
    ner = make(tmp_path / "ner")
    text = "Alice Ng of Oslo, alice@x.org. " + "Nothing here. " * 200 + "Alice Ng"
    (row,) = apply({"text": text}, ner=ner).rows
    assert row.value["text"] == "<PERSON> of <LOCATION>, <EMAIL_ADDRESS>. " + "Nothing here. " * 200 + "<PERSON>"
    label = "GPE" if make is spacy_pipeline else "LOC"
    (row,) = apply({"text": text}, ner={**ner, "labels": {label: None}}).rows
    assert row.value["text"].startswith("<PERSON> of Oslo")
    with pytest.raises(StepError, match="no label is TOWN"):
        apply(ner={**ner, "labels": {"TOWN": "LOCATION"}})


def test_refuses_a_model_that_is_none_or_has_labels_of_no_type(tmp_path):
    with pytest.raises(StepError, match="no spaCy pipeline can be loaded"):
        apply(ner={"kind": "spacy", "model_name_or_path": str(tmp_path)})
    with pytest.raises(StepError, match="it has no config"):
        apply(ner={"kind": "transformers", "model_name_or_path": str(tmp_path)})
    ner = token_classifier(tmp_path / "ner", ("O", "B-PER", "I-PER", "B-FROB"))
    with pytest.raises(StepError, match="the label FROB has no type of personal data"):
        apply(ner=ner)


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("alignment.data.prepare.pii.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(StepError, match=r'extra pii: pip install "alignment-stack\[pii\]"'):
        apply()
