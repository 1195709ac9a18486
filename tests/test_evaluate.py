"""Decoding a split neither loses nor shifts an image, and the table shows what was scored."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.beam import beam_search
from spidercap.models.decoder import Captions, Decoder
from spidercap.models.special_tokens import END, SPECIAL_TOKENS
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.data.tokens import tokenize_split
from spidercap.pipeline.evaluation.evaluate import BATCH, build_decoder, evaluate, n_best_json
from spidercap.pipeline.evaluation.table import table
from spidercap.pipeline.text.vocabulary import Vocabulary


def test_captions_stay_with_their_images(toy):
    """More images than a batch, not a multiple of it: each caption is what the image gets alone."""
    captioner, _, _ = toy
    decode = build_decoder(captioner, 4)
    features = np.random.default_rng(0).normal(0, 3, (BATCH + 7, 3)).astype(np.float32)
    words = decode(features).tokens[:, 0]
    assert words.shape == (BATCH + 7, 4)
    assert len(np.unique(words, axis=0)) > 3
    for i in (0, BATCH - 1, BATCH, BATCH + 6):
        np.testing.assert_array_equal(decode(features[i : i + 1]).tokens[0, 0], words[i])


def test_beam_is_the_decoder_that_is_asked_for(toy):
    """The best captions are those of the search itself; image by image, also behind a batch's end."""
    captioner, _, _ = toy
    features = np.random.default_rng(0).normal(0, 3, (BATCH + 2, 3)).astype(np.float32)
    settings = {"length_penalty": 0.6, "no_repeat_ngram": 2, "bad_endings": (5,), "n_best": 2}
    said = build_decoder(captioner, 4, Decoder("beam", 3, **settings))(features)
    expected = beam_search(*captioner.begin(tf.constant(features)), 4, width=3, **settings)
    np.testing.assert_array_equal(said.tokens, expected.tokens[:, :2])
    np.testing.assert_allclose(said.log_prob, expected.log_prob[:, :2], atol=1e-4)
    greedy = build_decoder(captioner, 4)(features)
    assert (said.tokens[:, 0] != greedy.tokens[:, 0]).any()


def test_samples_stay_with_their_images_and_their_seed(toy):
    """An image's samples are those of its place, whichever worker draws them; the same seed draws the same."""
    captioner, _, _ = toy
    features = np.random.default_rng(0).normal(0, 3, (BATCH + 7, 3)).astype(np.float32)
    decoder = Decoder("nucleus", n_best=3, temperature=1.5)
    found = build_decoder(captioner, 4, decoder, seed=5)(features)
    assert found.tokens.shape == (BATCH + 7, 3, 4) and (np.diff(found.log_prob) <= 0).all()
    again = build_decoder(captioner, 4, decoder, seed=5)
    np.testing.assert_array_equal(again(features).tokens, found.tokens)
    np.testing.assert_array_equal(again(features[: BATCH + 1]).tokens, found.tokens[: BATCH + 1])
    assert (build_decoder(captioner, 4, decoder, seed=6)(features).tokens != found.tokens).any()
    same = np.repeat(features[:1], 2 * BATCH, axis=0)  # the second batch has other numbers than the first
    tokens = again(same).tokens
    assert (tokens[:BATCH] != tokens[BATCH:]).any()

    class Two:
        count = 2

        def __init__(self, number):
            self.number = number
            self.rows = []

        def gathered(self, rows):
            self.rows.append(rows)
            return rows

    parts = []
    for number in range(2):
        workers = Two(number)
        build_decoder(captioner, 4, decoder, workers, seed=5)(features)
        parts.append(workers.rows[0])
    np.testing.assert_array_equal(np.concatenate(parts)[: len(features)], found.tokens)


def test_evaluation_of_known_words():
    """A decoder that says the references scores BLEU 1; lengths and distinct captions are counted."""
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "a", "red", "dog", "cat", "runs"), ())
    split = tokenize_split(Split((7, 9), ("x", "y"), (("A red dog runs.",), ("A cat runs a",)), ("1", "2"), None))
    ids = np.array([[4, 5, 6, 8, END, 0], [4, 7, 8, 4, END, 0]])
    second = np.array([[4, END, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    said = Captions(np.stack([ids, second], axis=1), np.array([[-1.0, -2.0], [-3.0, -np.inf]]))
    result = evaluate(
        lambda features: said,
        vocabulary,
        split,
        np.zeros([2, 3], np.float32),
        ("bleu4", "cider"),
        {},
    )
    assert result.captions == ("a red dog runs", "a cat runs a")
    assert result.corpus["BLEU-4"] == pytest.approx(1, abs=1e-6)
    assert n_best_json(split, result) == [
        {"image_id": 7, "captions": [{"caption": "a red dog runs", "log_prob": -1}, {"caption": "a", "log_prob": -2}]},
        {"image_id": 9, "captions": [{"caption": "a cat runs a", "log_prob": -3}]},
    ]
    assert (result.corpus["mean length"], result.corpus["distinct captions"]) == (4, 2)


def test_table_aligns_and_shows_what_is_missing():
    lines = table({"mle": {"CIDEr": 0.5, "distinct captions": 123.0}, "pg": {"CIDEr": 1.25}}).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert "0.500" in lines[1] and "123" in lines[1] and lines[2].endswith("-")


def test_decoder_compiles_once(toy):
    captioner, _, features = toy
    traces = []
    begin = captioner.begin
    captioner.begin = lambda features: traces.append(1) or begin(features)
    decode = build_decoder(captioner, 4)
    for count in (1, 2, BATCH + 1):
        decode(np.repeat(features[:1], count, axis=0))
    assert len(traces) == 1
    assert tf.executing_eagerly()
