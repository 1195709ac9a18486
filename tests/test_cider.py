"""Compiled CIDEr-D against the equation and against pycocoevalcap."""

import numpy as np
import pytest
import tensorflow as tf
from pycocoevalcap.cider.cider_scorer import CiderScorer

from models.captioner import END
from pipeline.metrics.cider import (
    MAX_BASE,
    Cider,
    count_document_frequencies,
    without_end,
)
from tests.oracles import cider_d, padded

IMAGES, MOST, LONGEST = 12, 5, 9


@pytest.fixture
def corpus():
    """Ragged references: 1 to 5 an image, 1 to 9 words of a small vocabulary, so that n-grams repeat and meet."""
    rng = np.random.default_rng(1)
    references = [
        [[int(w) for w in rng.integers(4, 10, rng.integers(1, LONGEST + 1))] for _ in range(rng.integers(1, MOST + 1))]
        for _ in range(IMAGES)
    ]
    references[0] = [[4, 5, 4, 5, 4, 5, 4, 5, 6]] * 2  # a repeated n-gram, and a repeated reference
    return references


def array(references):
    return np.stack([padded([*r, *[[]] * (MOST - len(r))], LONGEST) for r in references])


def candidates(count):
    """Captions with a word that no reference has (11), of all lengths from nothing to full."""
    rng = np.random.default_rng(2)
    return [[int(w) for w in rng.integers(4, 12, rng.integers(0, LONGEST + 1))] for _ in range(count)]


def test_equals_the_equation(corpus):
    references = array(corpus)
    cider = Cider(references, count_document_frequencies(references, 12))
    said = candidates(60) + [list(corpus[0][0]), [4, 4, 4, 4, 4, 4]]
    image = np.arange(len(said)) % IMAGES
    scores = tf.function(cider)(tf.constant(padded(said, LONGEST)), tf.constant(image))
    expected = [cider_d(c, corpus[i], corpus) for c, i in zip(said, image, strict=True)]
    assert max(expected) > 1
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_equals_pycocoevalcap(corpus):
    """With document frequencies of the very call, as its Cider class computes them."""
    references = array(corpus)
    said = candidates(IMAGES)
    scorer = CiderScorer(n=4, sigma=6.0)
    for caption, image in zip(said, corpus, strict=True):
        scorer += (" ".join(map(str, caption)), [" ".join(map(str, r)) for r in image])
    mean, each = scorer.compute_score()
    assert mean > 0
    cider = Cider(references, count_document_frequencies(references, 12))
    scores = cider(tf.constant(padded(said, LONGEST)), tf.range(IMAGES))
    np.testing.assert_allclose(scores, each, atol=1e-5)


def test_document_frequencies_of_another_corpus(corpus):
    """References that the corpus has never seen score by the corpus's frequencies, new n-grams as never seen."""
    train, others = corpus[:6], corpus[6:]
    frequencies = count_document_frequencies(array(train), 12)
    cider = Cider(array(others), frequencies)
    said = candidates(6)
    scores = cider(tf.constant(padded(said, LONGEST)), tf.range(6))
    expected = [cider_d(c, r, train) for c, r in zip(said, others, strict=True)]
    assert max(expected) > 0.5
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_padding_order_and_batch_change_nothing(corpus):
    references = array(corpus)
    cider = Cider(references, count_document_frequencies(references, 12))
    said, image = padded(candidates(40), LONGEST), np.arange(40) % IMAGES
    scores = cider(tf.constant(said), tf.constant(image)).numpy()
    wider = cider(tf.constant(np.pad(said, [[0, 0], [0, 6]])), tf.constant(image)).numpy()
    np.testing.assert_allclose(wider, scores, atol=1e-6)
    order = np.random.default_rng(0).permutation(40)
    shuffled = cider(tf.constant(said[order]), tf.constant(image[order])).numpy()
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-6)
    alone = [float(cider(tf.constant(said[i : i + 1]), tf.constant(image[i : i + 1]))[0]) for i in range(5)]
    np.testing.assert_allclose(alone, scores[:5], atol=1e-6)


def test_ngrams_of_the_largest_vocabulary_have_keys_of_their_own():
    """The highest ids do not overflow, and neighbours do not meet."""
    high = MAX_BASE - 1
    references = np.array([[[high] * 4], [[high, high, high, high - 1]], [[high - 1, high, high, high]]], np.int32)
    frequencies = count_document_frequencies(references, MAX_BASE)
    assert [len(k) for k in frequencies.keys] == [2, 3, 3, 3]
    assert all((k >= 0).all() and (np.diff(k) > 0).all() for k in frequencies.keys)
    assert int(frequencies.keys[3][-1]) == sum(high * MAX_BASE**i for i in range(4))  # in Python's own integers
    with pytest.raises(ValueError, match="55,108"):
        count_document_frequencies(references, MAX_BASE + 1)


def test_end_token_is_a_word_only_if_asked():
    captions = np.array([[4, 5, END, 0]])
    np.testing.assert_array_equal(without_end(captions), [[4, 5, 0, 0]])
    np.testing.assert_array_equal(without_end(tf.constant(captions)), [[4, 5, 0, 0]])
