"""Greedy decoding with fixed shapes says what greedy decoding says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.decoding import greedy, lengths
from spidercap.models.fixed_greedy import fixed_greedy
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END

V, F, T, N = 60, 7, 12, 40


def random_captioner(seed, end=0.0):
    """A captioner with random weights; `end` is added to the logit of the end token."""
    keras.utils.set_random_seed(seed)
    captioner = LstmCaptioner(V, F, units=9, embedding_size=8, dropout=0.0)
    rng = np.random.default_rng(seed)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 1, weight.shape))
    captioner.words.bias.assign(captioner.words.bias + end * tf.one_hot(END, V))
    return captioner


def both(captioner, count=N):
    """(tokens, log-probabilities) of greedy and of fixed_greedy, the latter traced with an unknown batch."""
    features = tf.constant(np.random.default_rng(1).normal(size=(count, F)), tf.float32)
    expected = greedy(*captioner.begin(features), T)

    @tf.function(input_signature=[tf.TensorSpec([None, F])], autograph=False)
    def fixed(features):
        return fixed_greedy(*captioner.begin(features), T)

    return expected, fixed(features), fixed.get_concrete_function()


@pytest.mark.parametrize("seed", range(4))
def test_captions_that_end_at_different_steps(seed):
    (tokens, log_prob), (found, found_log_prob), _ = both(random_captioner(seed, end=3.0))
    assert len(set(lengths(tokens).numpy())) > 3
    np.testing.assert_array_equal(found, tokens)
    np.testing.assert_allclose(found_log_prob, log_prob, atol=1e-4)
    assert found.dtype == tf.int32 and found_log_prob.dtype == tf.float32


@pytest.mark.parametrize(("end", "length"), [(-1e6, T), (1e6, 1)], ids=["never", "at once"])
def test_captions_that_never_end_or_at_once(end, length):
    (tokens, log_prob), (found, found_log_prob), _ = both(random_captioner(0, end))
    assert set(lengths(tokens).numpy()) == {length}
    np.testing.assert_array_equal(found, tokens)
    np.testing.assert_allclose(found_log_prob, log_prob, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row(count):
    (tokens, log_prob), (found, found_log_prob), _ = both(random_captioner(0, 3.0), count)
    assert found.shape == (count, T)
    np.testing.assert_array_equal(found, tokens)
    np.testing.assert_allclose(found_log_prob, log_prob, atol=1e-4)


def test_graph_drops_no_row_and_holds_no_string():
    *_, function = both(random_captioner(0))
    tokens, log_prob = function.outputs
    assert tokens.shape.as_list() == [None, T] and log_prob.shape.as_list() == [None]
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    assert not {"Where", "TensorArrayV3", "TensorListReserve"} & {n.op for n in nodes}
    assert not [n.name for n in nodes if n.attr["dtype"].type == tf.string.as_datatype_enum]
