"""A warm start from a run of other captions: words that both have keep their weights."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END, SPECIAL_TOKENS, UNKNOWN
from spidercap.pipeline.training.other_words import copy_weights, shared_words

OLD = (*SPECIAL_TOKENS, "a", "dog", "red")
NEW = (*SPECIAL_TOKENS, "dog", "cat", "a", "cow")


def captioner_of(words, seed):
    captioner = LstmCaptioner(len(words), feature_size=3, units=5, embedding_size=4, dropout=0.0)
    rng = np.random.default_rng(seed)
    for weight in captioner.weights:
        weight.assign(rng.normal(1, 0.5, weight.shape))
    return captioner


@pytest.fixture
def both():
    source, captioner = captioner_of(OLD, 0), captioner_of(NEW, 1)
    copy_weights(captioner, NEW, source, OLD)
    return source, captioner


def logits(captioner, words, caption):
    """Of each next word `[T, V]`, while a caption is read."""
    (step, state), found = captioner.begin(tf.ones([1, 3])), []
    for word in caption:
        state, of_word = step(state, tf.constant([words.index(word)]))
        found.append(of_word.numpy()[0])
    return np.array(found)


def test_words_that_both_have_have_the_same_logits(both):
    caption = [OLD[1], "a", "dog", "a"]
    old, new = logits(both[0], OLD, caption), logits(both[1], NEW, caption)
    for word in ("a", "dog", OLD[END]):
        np.testing.assert_allclose(new[:, NEW.index(word)], old[:, OLD.index(word)], rtol=1e-5)


def test_new_words_share_the_probability_of_the_unknown_one(both):
    """Which is learned, but never said."""
    hidden = np.random.default_rng(2).normal(size=(6, 5))
    old, new = (np.exp(hidden @ one.words.kernel.numpy() + one.words.bias.numpy()) for one in both)
    together = sum(new[:, NEW.index(word)] for word in ("cat", "cow"))
    np.testing.assert_allclose(together, old[:, UNKNOWN], rtol=1e-5)


def test_a_new_word_is_read_as_the_unknown_one(both):
    old, new = logits(both[0], OLD, [OLD[1], OLD[UNKNOWN]]), logits(both[1], NEW, [OLD[1], "cow"])
    np.testing.assert_allclose(new[:, NEW.index("a")], old[:, OLD.index("a")], rtol=1e-5)


def test_the_same_words_give_the_same_captioner():
    source, captioner = captioner_of(OLD, 0), captioner_of(OLD, 1)
    copy_weights(captioner, OLD, source, OLD)
    for a, b in zip(captioner.weights, source.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_special_tokens_are_not_counted():
    assert shared_words(NEW, OLD) == 2
