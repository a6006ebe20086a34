"""Sequence-to-sequence pretraining: T5's span corruption, pairs of texts, and what is refused."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from alignment.errors import ModelError
from alignment.train.pretraining.spans import corrupted, counts, longest_text, noise_mask
from tests.models import save_tiny_encoder, save_tiny_t5
from tests.train.pretraining.conftest import TEXTS, losses, manifest, run


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return save_tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def test_the_example_of_the_paper():
    # figure 2 of https://arxiv.org/abs/1910.10683: "for inviting" and "last" are hidden
    words = "Thank you for inviting me to your party last week .".split()
    noise = np.array([word in ("for", "inviting", "last") for word in words])
    numbers = {word: place for place, word in enumerate([*words, "<X>", "<Y>", "<Z>"])}
    names = list(numbers)
    inputs, target = corrupted([numbers[word] for word in words], noise, [numbers[s] for s in ("<X>", "<Y>", "<Z>")])
    assert " ".join(names[place] for place in inputs) == "Thank you <X> me to your party <Y> week ."
    assert " ".join(names[place] for place in target) == "<X> for inviting <Y> last <Z>"


def test_spans_have_the_rate_and_the_mean_length_of_t5():
    assert counts(512, 0.15, 3.0) == (77, 26)  # round(76.8), round(25.67)
    # section 3.1.4 and T5's compute_input_and_target_lengths: 568 tokens become 512 and 114, each with EOS
    assert longest_text(511, 0.15, 3.0, 100) == 568
    numbers = np.random.default_rng(0)
    masks = np.stack([noise_mask(512, 0.15, 3.0, numbers) for _ in range(2000)])
    assert (masks.sum(1) == 77).all()
    starts = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    assert (starts.sum(1) == 26).all()
    assert not masks[:, 0].any()
    assert masks[:, -1].all()
    # first span of 26 that 77 tokens are cut into: mean 77/26; P(length 1) = 25/76, as one of 76 gaps is cut in 25
    first = np.array([np.diff(np.flatnonzero(np.diff(np.pad(mask.astype(int), 1))))[0] for mask in masks])
    assert first.mean() == pytest.approx(77 / 26, abs=0.2)
    assert (first == 1).mean() == pytest.approx(25 / 76, abs=0.04)


def test_input_and_target_hold_the_text():
    numbers = np.random.default_rng(1)
    for length in (2, 3, 10, 57):
        ids, sentinels = list(range(length)), list(range(1000, 1100))
        inputs, target = corrupted(ids, noise_mask(length, 0.15, 3.0, numbers), sentinels)
        spans: dict[int, list[int]] = {}
        for token in target:
            if token >= 1000:
                spans[token] = current = []
            else:
                current.append(token)
        assert [one for token in inputs for one in (spans[token] if token >= 1000 else [token])] == ids


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_text_and_pairs_and_transformers_loads_it(write, tmp_path, t5, method):
    pairs = [{"prompt": f"Say {n}.", "completion": f"It is {n}."} for n in range(8)]
    keys = {"model_name_or_path": str(t5), "objective": "seq2seq", "peft_method": method, "test_split_size": 0.25}
    for name, rows in {"texts": TEXTS, "pairs": pairs}.items():
        folder = tmp_path / name
        run(write(rows, output_dir=str(folder), max_steps=20, learning_rate=1e-2, **keys))
        assert losses(folder)[-1] < losses(folder)[0] - 0.1
        assert manifest(folder)["results"]["eval_perplexity"] > 1
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        given = AutoTokenizer.from_pretrained(folder)("The quick <extra_id_0> fox", return_tensors="pt")
        assert torch.isfinite(model.generate(**given, max_new_tokens=4)).all()
    shown = manifest(tmp_path / "pairs")["preview"]["sequences"]
    texts = {name: "".join(piece["text"] for piece in found) for name, found in shown.items()}
    assert (texts["input"][:4], texts["input"][-5:]) == ("Say ", ".</s>"[-5:])
    assert (texts["target"][:6], texts["target"][-4:]) == ("It is ", "</s>")


@pytest.mark.parametrize("objective", ["seq2seq", "masked"])
def test_accumulated_batches_weigh_tokens_alike(write, tmp_path, t5, objective):
    """T5's own loss, and BERT's, is a mean over one batch, and transformers adds up those of an update."""
    model = t5 if objective == "seq2seq" else save_tiny_encoder(tmp_path / "bert")
    config = model / "config.json"
    config.write_text(config.read_text().replace('dropout_prob": 0.1', 'dropout_prob": 0.0'))
    rows = [{"prompt": f"Say {n}.", "completion": "So. " * (n + 1)} for n in range(8)]
    found = []
    for size, steps in ((8, 1), (2, 4)):
        folder = tmp_path / str(size)
        keys = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        file = write(rows, model_name_or_path=str(model), objective=objective, output_dir=str(folder), **keys)
        run(file, optim="sgd", max_grad_norm=0)
        log = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        found.append((log["loss"], log["grad_norm"]))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_text_without_sentinels_and_a_decoder_are_refused(write, tmp_path, tiny_model_dir):
    bare = save_tiny_t5(tmp_path / "bare", sentinels=0)
    with pytest.raises(ModelError, match="has no sentinel tokens <extra_id_0>"):
        run(write(model_name_or_path=str(bare), objective="seq2seq"))
    with pytest.raises(ModelError, match="is a LlamaForCausalLM, and an encoder-decoder model, such as T5 or BART"):
        run(write(model_name_or_path=str(tiny_model_dir), objective="seq2seq", output_dir=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()
