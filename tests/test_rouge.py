"""Compiled ROUGE-L against the equation and against pycocoevalcap."""

import numpy as np
import pytest
import tensorflow as tf
from pycocoevalcap.rouge.rouge import Rouge as Coco

from spidercap.pipeline.metrics.references import References
from spidercap.pipeline.metrics.rouge import Rouge
from tests.oracles import padded, ragged_corpus, reference_array, rouge_l


def built(references, longest, dtype=tf.float64):
    counts = np.array([len(r) for r in references])
    return Rouge(References(reference_array(references, longest), counts), dtype)


@pytest.mark.parametrize("longest", [1, 9, 61, 62, 63, 130])
def test_equals_the_equation(longest):
    """References of one limb, just beyond it, and of three, where carries pass from limb to limb."""
    references, said = ragged_corpus(7, 12, longest)
    said[0], said[1] = list(references[0][0]), (references[1][0] * longest)[:longest]
    references[2][0] = said[2] = [4] * longest
    metric = built(references, longest)
    expected = [rouge_l(c, r) for c, r in zip(said, references, strict=True)]
    assert min(expected[0], expected[2]) == 1
    np.testing.assert_allclose(metric(tf.constant(padded(said, longest)), tf.range(12)), expected, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-6), (tf.float64, 1e-12)])
def test_equals_pycocoevalcap(dtype, tolerance):
    """Repeated words, unknown words, empty captions and empty references: there, "" is one empty word."""
    references, said = ragged_corpus(8, 300, 9, empty=True)
    assert any(c == [] and [] in r for c, r in zip(said, references, strict=True))
    truth = {i: [" ".join(map(str, r)) for r in image] for i, image in enumerate(references)}
    mean, images = Coco().compute_score(truth, {i: [" ".join(map(str, c))] for i, c in enumerate(said)})
    assert mean > 0.3 and max(images) == 1
    scores = tf.function(built(references, 9, dtype))(tf.constant(padded(said, 9)), tf.range(300))
    assert scores.dtype == dtype
    np.testing.assert_allclose(scores, images, atol=tolerance)


def test_precision_and_recall_of_different_references():
    """'a b' in 'a b c d e f' and in 'a': precision 1 from the first, recall 1 from the second."""
    metric = Rouge(np.array([[[4, 5, 6, 7, 8, 9], [4, 0, 0, 0, 0, 0]]]))
    np.testing.assert_allclose(metric(tf.constant([[4, 5]]), tf.constant([0])), [1], atol=1e-6)
    # Against the first alone recall is a third.
    metric = Rouge(np.array([[[4, 5, 6, 7, 8, 9]]]))
    expected = 2.44 * (1 / 3) / (1 / 3 + 1.44)
    np.testing.assert_allclose(metric(tf.constant([[4, 5]]), tf.constant([0])), [expected], atol=1e-6)
