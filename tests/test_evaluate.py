"""The table's numbers are the published ones; decoding a split neither loses nor shifts an image."""

import json

import numpy as np
import pytest
import tensorflow as tf

from models.captioner import END, SPECIAL_TOKENS
from pipeline.evaluate import BATCH, build_decoder, evaluate, score_captions, table
from pipeline.inputs import TokenizedSplit
from pipeline.tokenizer import tokenize
from pipeline.vocabulary import Vocabulary


def test_demo_of_the_coco_evaluation(data_folder):
    """BLEU-1..4, ROUGE-L and CIDEr as published with the evaluation code, on its own tokens."""
    demo = json.loads((data_folder / "coco" / "demo_tokenized.json").read_text(encoding="utf-8"))
    corpus, images = score_captions([e["refs"] for e in demo], [e["test"] for e in demo])
    assert [round(corpus[f"BLEU-{n}"], 3) for n in (1, 2, 3, 4)] == [0.579, 0.404, 0.279, 0.191]
    assert (round(corpus["ROUGE-L"], 3), round(corpus["CIDEr"], 3)) == (0.396, 0.600)
    assert len(images) == 1000
    assert np.mean([image["CIDEr"] for image in images]) == pytest.approx(corpus["CIDEr"], abs=1e-6)


def test_demo_from_raw_captions_by_our_tokenizer(data_folder):
    """The same numbers when our own tokenizer reads the captions as they were written."""
    said = {r["image_id"]: r["caption"] for r in _json(data_folder / "coco" / "demo_results.json")}
    references = {image_id: [] for image_id in said}
    for annotation in _json(data_folder / "coco" / "demo_references.json")["annotations"]:
        references[annotation["image_id"]].append(" ".join(tokenize(annotation["caption"])))
    captions = [" ".join(tokenize(c)) for c in said.values()]
    corpus, _ = score_captions([references[i] for i in said], captions)
    assert [round(corpus[f"BLEU-{n}"], 3) for n in (1, 2, 3, 4)] == [0.579, 0.404, 0.279, 0.191]
    assert round(corpus["CIDEr"], 3) == 0.600


def _json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_small_case_by_hand():
    """BLEU-1 of 'a b c' against 'a b d': two of three words, no brevity penalty; an empty caption scores 0."""
    corpus, images = score_captions([["a b d", "a x"], ["q r s"]], ["a b c", ""])
    assert images[0]["BLEU-1"] == pytest.approx(2 / 3, abs=1e-6)
    # ROUGE-L: the longest common subsequence is 2 words; F with beta 1.2 of the best precision and recall.
    precision, recall = 2 / 3, 2 / 3
    f = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert images[0]["ROUGE-L"] == pytest.approx(f, abs=1e-6)
    assert images[1]["CIDEr"] == 0
    assert set(corpus) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}


def test_captions_stay_with_their_images(toy):
    """More images than a batch, not a multiple of it: each caption is what the image gets alone."""
    captioner, _, _ = toy
    decode = build_decoder(captioner, 4)
    features = np.random.default_rng(0).normal(0, 3, (BATCH + 7, 3)).astype(np.float32)
    words = decode(features)
    assert words.shape == (BATCH + 7, 4)
    assert len(np.unique(words, axis=0)) > 3
    for i in (0, BATCH - 1, BATCH, BATCH + 6):
        np.testing.assert_array_equal(decode(features[i : i + 1])[0], words[i])


def test_evaluation_of_known_words():
    """A decoder that says the references scores BLEU 1; lengths and distinct captions are counted."""
    vocabulary = Vocabulary(SPECIAL_TOKENS + ("a", "red", "dog", "cat", "runs"), ())
    tokens = ((("a", "red", "dog", "runs"),), (("a", "cat", "runs", "a"),))
    split = TokenizedSplit(np.array([7, 9]), ("x", "y"), (("A red dog runs.",), ("A cat runs a.",)), tokens)
    ids = np.array([[4, 5, 6, 8, END, 0], [4, 7, 8, 4, END, 0]])
    result = evaluate(lambda features: ids[: len(features)], vocabulary, split, np.zeros([2, 3], np.float32))
    assert result.captions == ("a red dog runs", "a cat runs a")
    assert result.corpus["BLEU-4"] == pytest.approx(1, abs=1e-6)
    assert (result.corpus["mean length"], result.corpus["distinct captions"]) == (4, 2)


def test_table_aligns_and_shows_what_is_missing():
    lines = table({"mle": {"CIDEr": 0.5, "distinct captions": 123.0}, "pg": {"CIDEr": 1.25}}).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert "0.500" in lines[1] and "123" in lines[1] and lines[2].endswith("-")


def test_decoder_compiles_once(toy):
    captioner, _, features = toy
    traces = []
    step = captioner.step
    captioner.step = lambda state, token: traces.append(1) or step(state, token)
    decode = build_decoder(captioner, 4)
    for count in (1, 2, BATCH + 1):
        decode(np.repeat(features[:1], count, axis=0))
    assert len(traces) == 1
    assert tf.executing_eagerly()
