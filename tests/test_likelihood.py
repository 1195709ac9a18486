"""Likelihood's two variants: smoothed labels, and reading words of one's own (scheduled sampling)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.special_tokens import END, PAD, START, UNKNOWN
from spidercap.models.word_loss import log_probs
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import estimators, schedules
from spidercap.pipeline.training.steps import READING, likelihood_step
from tests import plain
from tests.enumeration import SAYABLE, T, flat
from tests.oracles import padded

WORDS = padded([[4, 5, END], [6, END]], T)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_is_its_equation(toy, smoothing):
    """(1 - e) log pi(w) + e mean_v log pi(v), over the words that may be said: V = 4 here."""
    captioner, _, _ = toy
    hidden = tf.constant(np.random.default_rng(0).normal(size=[4, 5]), tf.float32)
    words = tf.constant([4, END, 6, 5])
    log_pi = tf.nn.log_softmax(plain.logits(captioner, hidden)).numpy().astype(np.float64)
    expected = [
        (1 - smoothing) * log_pi[i, w] + smoothing * np.mean([log_pi[i, v] for v in SAYABLE])
        for i, w in enumerate(words.numpy())
    ]
    np.testing.assert_allclose(log_probs(captioner.projection(), hidden, words, smoothing), expected, atol=1e-5)
    np.testing.assert_allclose(plain.log_probs(captioner, hidden, words, smoothing), expected, atol=1e-5)


def test_label_smoothing_reaches_the_step(toy):
    captioner, _, features = toy
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(captioner.trainable_variables)
    mask = estimators.likelihood_mask(tf.constant(WORDS))
    hidden = tf.boolean_mask(plain.hidden(captioner, tf.constant(features), tf.constant(WORDS)), mask)
    losses = set()
    for smoothing in (0.0, 0.5):
        step = likelihood_step(captioner, optimizer, feature_dropout=0.0, label_smoothing=smoothing)
        losses.add(loss := float(step(batch_of(features), tf.constant([0, 0]), tf.constant(0.0)).loss))
        expected = -tf.reduce_mean(plain.log_probs(captioner, hidden, tf.boolean_mask(WORDS, mask), smoothing))
        assert loss == pytest.approx(float(expected), abs=1e-6)
    assert len(losses) == 2


def batch_of(features):
    return Batch(tf.constant(features), tf.constant([0, 1]), tf.constant(WORDS))


def test_schedule_drawn():
    """
    5% more every 5 epochs, 12% at most:
    epoch  0  4.9  5    9.9   10   15   100
    p      0   0  .05   .05  .10  .12   .12
    """
    epochs = [0, 4.9, 5, 9.9, 10, 15, 100]
    found = [schedules.sampling_probability(e, 0.12, 0.05, 5.0) for e in epochs]
    np.testing.assert_allclose(found, [0, 0, 0.05, 0.05, 0.1, 0.12, 0.12])


def test_read_words_are_true_ones_or_what_the_model_says_after_what_it_read(toy):
    """With probability 1 all are the model's, with 0 none; between, each follows the words read before it."""
    captioner, _, features = toy
    copies = 3000
    words = tf.constant(np.repeat(padded([[4, 5, 6]], T), copies, axis=0))
    step, start = captioner.begin(tf.constant(np.repeat(features[:1], copies, axis=0)))
    read = {
        p: decoding.read_own_words(step, start, words, tf.constant(p), tf.constant([1, 2])).numpy()
        for p in (0.0, 0.3, 1.0)
    }
    np.testing.assert_array_equal(read[0.0][:, : T - 1], words[:, : T - 1])
    for p in (0.3, 1.0):
        assert not np.isin(read[p][:, : T - 1], [START, UNKNOWN]).any()
        # Word 0: the model's with probability p, else 4; word 1 the same after whatever word 0 was.
        first = probabilities(captioner, features, [])
        for word in SAYABLE:
            check_share(read[p][:, 0] == word, p * first[word] + (1 - p) * (word == 4))
        for before in SAYABLE:
            then = read[p][read[p][:, 0] == before, 1]
            second = probabilities(captioner, features, [before])
            for word in SAYABLE:
                check_share(then == word, p * second[word] + (1 - p) * (word == 5))


def probabilities(captioner, features, words):
    (step, state), token = captioner.begin(tf.constant(features[:1])), START
    for word in [*words, None]:
        state, logits = step(state, tf.constant([token]))
        token = word
    return tf.nn.softmax(logits).numpy()[0]


def check_share(seen, expected):
    error = np.sqrt(max(expected * (1 - expected), 1e-3) / len(seen))
    assert abs(np.mean(seen) - expected) < 4.5 * error


def test_an_end_of_its_own_does_not_end_what_is_read(toy):
    """The true caption goes on, and so does reading, to its last word."""
    captioner, _, features = toy
    captioner.words.bias.assign([0, 0, 9, 0, 0, 0, 0])  # says the end all the time
    words = tf.constant([[4, 5, 6, 4, END, PAD], [4, END, PAD, PAD, PAD, PAD]])
    step, start = captioner.begin(tf.constant(features))
    read = decoding.read_own_words(step, start, words, tf.constant(1.0), tf.constant([1, 2]))
    np.testing.assert_array_equal(read[0, :5], [END] * 5)
    read = decoding.read_own_words(step, start, words, tf.constant(0.5), tf.constant([1, 3])).numpy()
    assert ((read[:, :5] == END) | (read[:, :5] == words.numpy()[:, :5])).all()


@pytest.mark.parametrize("probability", [0.0, 0.7])
def test_the_step_predicts_true_words_from_what_was_read(toy, probability):
    """Loss and gradient are those of the true words, given the words read; with none read, teacher forcing's."""
    captioner, _, features = toy
    learning = keras.optimizers.SGD(1.0)
    learning.build(captioner.trainable_variables)
    before = [w.numpy() for w in captioner.trainable_variables]
    step = likelihood_step(captioner, learning, feature_dropout=0.0, scheduled_sampling=True)
    seed = tf.constant([6, 1])
    word_step, start = captioner.begin(tf.constant(features))
    read_seed = tf.random.experimental.stateless_fold_in(seed, READING)
    read = decoding.read_own_words(word_step, start, tf.constant(WORDS), tf.constant(probability), read_seed)
    assert (probability == 0) == bool(np.all(read.numpy()[:, :1] == WORDS[:, :1]))
    mask = estimators.likelihood_mask(tf.constant(WORDS))
    with tf.GradientTape() as tape:
        hidden = tf.boolean_mask(plain.hidden(captioner, tf.constant(features), read), mask)
        loss = -tf.reduce_mean(plain.log_probs(captioner, hidden, tf.boolean_mask(WORDS, mask)))
    gradient = flat(tape.gradient(loss, captioner.trainable_variables))
    logs = step(batch_of(features), seed, tf.constant(probability))
    assert float(logs.loss) == pytest.approx(float(loss), abs=1e-6)
    moved = flat(before) - flat(captioner.trainable_variables)
    np.testing.assert_allclose(moved, gradient, atol=1e-6)
