"""Compiled BLEU against the equation and against pycocoevalcap."""

import numpy as np
import pytest
import tensorflow as tf
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from spidercap.pipeline.metrics.bleu import SMALL, TINY, Bleu, corpus_bleu
from spidercap.pipeline.metrics.references import References
from tests.oracles import bleu, padded, ragged_corpus, reference_array


def pycocoevalcap(references, said):
    """Returns BLEU of the corpus `[4]` and of each image `[I, 4]`."""
    scorer = BleuScorer(n=4)
    for caption, image in zip(said, references, strict=True):
        scorer += (" ".join(map(str, caption)), [" ".join(map(str, r)) for r in image])
    corpus, images = scorer.compute_score(option="closest")
    return corpus, np.array(images).T


def built(references, longest, dtype):
    counts = np.array([len(r) for r in references])
    return Bleu(References(reference_array(references, longest), counts), dtype)


@pytest.mark.parametrize("longest", [2, 9, 70])
def test_equals_the_equation(longest):
    references, said = ragged_corpus(5, 40, longest)
    metric = built(references, longest, tf.float64)
    words, image = tf.constant(padded(said, longest)), tf.range(40)
    expected = [bleu([c], [r], TINY, SMALL) for c, r in zip(said, references, strict=True)]
    np.testing.assert_allclose(metric(words, image), expected, rtol=1e-9, atol=1e-12)
    statistics = metric.statistics(words, image)
    np.testing.assert_allclose(corpus_bleu(statistics), bleu(said, references, TINY, SMALL), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-6), (tf.float64, 1e-12)])
def test_equals_pycocoevalcap(dtype, tolerance):
    """Repeated words, unknown words, empty captions and empty references."""
    references, said = ragged_corpus(6, 300, 9, empty=True)
    assert [] in said and any([] in r for r in references)
    metric = built(references, 9, dtype)
    words, image = tf.constant(padded(said, 9)), tf.range(300)
    corpus, images = pycocoevalcap(references, said)
    assert corpus[1] > 0.1
    scores = tf.function(metric)(words, image)
    assert scores.dtype == dtype
    np.testing.assert_allclose(scores, images, atol=tolerance)
    np.testing.assert_allclose(corpus_bleu(metric.statistics(words, image)), corpus, atol=1e-12)


def test_statistics_by_hand():
    """'a a b' has two of 'a' where a reference has one and another two: matches are clipped to the two."""
    references = np.array([[[4, 6, 0, 0, 0], [4, 4, 6, 7, 8]]])
    metric = Bleu(references)
    statistics = metric.statistics(tf.constant([[4, 4, 4, 6]]), tf.constant([0]))
    # 4 4 | 6; "4 4" once, "4 6"; "4 4 6". Lengths 2 and 5: the nearer to 4 is 5.
    np.testing.assert_array_equal(statistics, [[3, 2, 1, 0, 4, 3, 2, 1, 4, 5]])


def test_of_two_equally_close_lengths_the_shorter_counts():
    metric = Bleu(np.array([[[4, 5, 6, 7, 8], [4, 5, 6, 0, 0]]]))
    assert metric.statistics(tf.constant([[4, 5, 6, 7]]), tf.constant([0]))[0, 9] == 3


def test_a_reference_of_no_words_counts_only_if_given():
    references = np.array([[[4, 5, 6, 7], [0, 0, 0, 0]]])
    caption, image = tf.constant([[4, 0, 0, 0]]), tf.constant([0])
    assert Bleu(references).statistics(caption, image)[0, 9] == 4
    assert Bleu(References(references, np.array([2]))).statistics(caption, image)[0, 9] == 0
