"""What is computed fast is what is computed plainly: packed words, one pass over V, blocks of rows, drawn words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import blocks, decoding
from spidercap.models.categorical import best_token, draw, likeliest, uniforms
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.packing import pack
from spidercap.models.precision import product
from spidercap.models.rollouts import roll_out
from spidercap.models.special_tokens import END, FORBIDDEN, PAD
from spidercap.models.word_loss import log_probs, weighted_log_likelihood
from tests import plain
from tests.enumeration import flat
from tests.test_gpu_ready import nodes

V, H, T = 150, 12, 9


@pytest.fixture
def captioner():
    keras.utils.set_random_seed(1)
    made = LstmCaptioner(vocabulary_size=V, feature_size=4, units=H, embedding_size=7, dropout=0.0)
    rng = np.random.default_rng(2)
    for weight in made.trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return made


def captions(count, seed=0):
    """Captions of every length from 1 to T, in no order; some are cut."""
    rng = np.random.default_rng(seed)
    words = rng.integers(4, V, (count, T)).astype(np.int32)
    for row, length in enumerate(rng.permutation(np.arange(count) % (T + 1) + 1)):
        if length <= T:
            words[row, length - 1] = END
            words[row, length:] = PAD
    return words


def features(count):
    return np.random.default_rng(3).normal(size=(count, 4)).astype(np.float32)


def test_packing_drawn():
    """
    words    7 4 2 0     packed (row, step)   (1,0) (0,0) (2,0)  (1,1) (0,1) (2,1)  (1,2) (0,2)  (1,3)
             5 6 4 2
             8 2 0 0
    """
    words = tf.constant([[7, 4, 2, 0], [5, 6, 4, 2], [8, 2, 0, 0]])
    packing = pack(words)
    np.testing.assert_array_equal(packing.order, [1, 0, 2])
    np.testing.assert_array_equal(packing.counts, [3, 3, 2, 1])
    np.testing.assert_array_equal(
        packing.index, [[1, 0], [0, 0], [2, 0], [1, 1], [0, 1], [2, 1], [1, 2], [0, 2], [1, 3]]
    )
    np.testing.assert_array_equal(packing.of(words), [5, 7, 8, 6, 4, 2, 4, 2, 2])


@pytest.mark.parametrize("compiled", [False, True])
def test_packed_states_and_gradients_are_those_of_keras(captioner, compiled):
    """Of every weight, and of the features, through the recurrence and both starts."""
    words, seen = tf.constant(captions(14)), tf.constant(features(14))
    rng = np.random.default_rng(4)
    upstream = tf.constant(rng.normal(size=[14, T, H]), tf.float32)

    def fast():
        packing = pack(words)
        with tf.GradientTape() as tape:
            tape.watch(seen)
            hidden = captioner.hidden(seen, words, packing)
            loss = tf.reduce_sum(hidden * packing.of(upstream))
        return hidden, packing.index, tape.gradient(loss, [seen, *captioner.trainable_variables[:6]])

    hidden, index, gradients = (tf.function(fast) if compiled else fast)()
    with tf.GradientTape() as tape:
        tape.watch(seen)
        expected = plain.hidden(captioner, seen, words)
        loss = tf.reduce_sum(tf.where((words != PAD)[:, :, None], expected * upstream, 0.0))
    np.testing.assert_allclose(hidden, tf.gather_nd(expected, index), atol=1e-5)
    assert len(index) == np.sum(words != PAD)
    for found, wanted in zip(gradients, tape.gradient(loss, [seen, *captioner.trainable_variables[:6]]), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(found), tf.convert_to_tensor(wanted), atol=2e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("rows", [1024, 3], ids=["one block", "many"])
def test_one_pass_over_the_vocabulary_is_differentiation(captioner, monkeypatch, smoothing, rows):
    monkeypatch.setattr(blocks, "ROWS", rows)
    rng = np.random.default_rng(5)
    hidden = tf.constant(rng.normal(size=[11, H]) * 3, tf.float32)
    weights = tf.constant(rng.normal(size=[11]), tf.float32)
    words = tf.constant(rng.choice([END, *range(4, V)], 11), tf.int32)
    sources = [hidden, captioner.words.kernel, captioner.words.bias]
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        total, terms = weighted_log_likelihood(captioner.projection(), hidden, words, weights, smoothing)
        loss = 3 * total
    found = tape.gradient(loss, sources)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        expected = plain.log_probs(captioner, hidden, words, smoothing)
        loss = 3 * tf.reduce_sum(weights * expected)
    np.testing.assert_allclose(terms, expected, rtol=1e-5)
    np.testing.assert_allclose(log_probs(captioner.projection(), hidden, words, smoothing), expected, rtol=1e-5)
    np.testing.assert_allclose(total, tf.reduce_sum(weights * expected), rtol=1e-5)
    for a, b in zip(found, tape.gradient(loss, sources), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_words_without_hope_keep_their_log_probability(captioner):
    """A word 200 nats below the best has no float32 probability, but a log-probability and a gradient."""
    captioner.words.bias.assign(np.where(np.arange(V) == 9, -200.0, 0.0))
    hidden = tf.zeros([1, H])
    with tf.GradientTape() as tape:
        total, _ = weighted_log_likelihood(captioner.projection(), hidden, tf.constant([9]), tf.ones([1]))
    assert float(total) == pytest.approx(-200 - np.log(V - len(FORBIDDEN) - 1), rel=1e-5)
    assert float(tape.gradient(total, captioner.words.bias)[9]) == pytest.approx(1)


def test_no_gradient_flows_into_weights_and_terms(captioner):
    hidden, weights = tf.ones([2, H]), tf.ones([2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([hidden, weights])
        total, terms = weighted_log_likelihood(captioner.projection(), hidden, tf.constant([4, 5]), weights)
    assert tape.gradient(total, weights) is None
    assert tape.gradient(terms, hidden) is None
    assert tape.gradient(total, hidden) is not None


@pytest.mark.parametrize("rows", [5, 7, 64])
def test_blocks_change_no_word(captioner, monkeypatch, rows):
    """Greedy, sampled and rolled-out captions are the same, word for word, in blocks of few rows and all at once."""
    step, start = captioner.begin(tf.constant(features(20)))

    def say():
        words, forks = decoding.sample_with_forks(step, start, T, tf.constant([1, 2]), 3, draw)
        rolled = roll_out(step, words, forks, tf.constant([3, 4]), draw)
        return decoding.greedy(step, start, T)[0], words, forks.prefix, rolled.tokens

    at_once = say()
    assert len(at_once[3]) > 64
    monkeypatch.setattr(blocks, "ROWS", rows)
    for found, expected in zip(say(), at_once, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_caption_depends_on_no_other(captioner):
    """Captions end at other times, rows move up: words stay those of their own row, seed and time."""
    seen = features(12)
    together = decoding.sample(*captioner.begin(tf.constant(seen)), T, tf.constant([5, 6])).numpy()
    seen[1::2] = seen[::2]  # every other picture becomes another
    mixed = decoding.sample(*captioner.begin(tf.constant(seen)), T, tf.constant([5, 6])).numpy()
    np.testing.assert_array_equal(together[::2], mixed[::2])
    assert (together[1::2] != mixed[1::2]).any()


@pytest.mark.parametrize("width", [1, 5, 127, 128, 129, 300])
def test_drawn_words_are_those_of_the_inverted_distribution(width):
    """Group by the first number, word by the second: against NumPy, in float64."""
    rng = np.random.default_rng(width)
    logits = rng.normal(0, 3, (40, width)).astype(np.float32)
    uniform = uniforms(40, 6, tf.constant([1, width])).numpy()
    drawn = draw(tf.constant(logits), tf.constant(uniform)).numpy()
    for row in range(40):
        p = np.exp(logits[row].astype(np.float64) - logits[row].max())
        groups = np.add.reduceat(p, np.arange(0, width, 128))
        for s in range(6):
            group = np.searchsorted(np.cumsum(groups), uniform[row, s, 0] * groups.sum(), side="right")
            inside = p[group * 128 : group * 128 + 128]
            word = group * 128 + np.searchsorted(np.cumsum(inside), uniform[row, s, 1] * inside.sum(), side="right")
            assert drawn[row, s] == word


def test_draws_follow_the_softmax():
    """Chi-square over 300 words, 99.9% quantile by Wilson and Hilferty."""
    logits = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
    drawn = draw(tf.constant(logits[None]), uniforms(1, 60_000, tf.constant([7, 7]))).numpy()[0]
    expected = 60_000 * np.exp(logits) / np.exp(logits).sum()
    statistic = np.sum((np.bincount(drawn, minlength=300) - expected) ** 2 / expected)
    assert statistic < 299 * (1 - 2 / (9 * 299) + 3.09 * (2 / (9 * 299)) ** 0.5) ** 3


@pytest.mark.parametrize("u", [0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))])
def test_what_may_not_be_said_is_never_drawn(u):
    """At both ends of [0, 1), next to words without probability, whole groups of them too."""
    logits = np.full((3, 400), -1e9, np.float32)
    logits[0, 130], logits[1, [5, 399]], logits[2, 256:258] = 2.0, 0.0, -3.0
    drawn = draw(tf.constant(logits), tf.fill([3, 1, 2], tf.constant(u, tf.float32))).numpy()[:, 0]
    assert drawn[0] == 130 and drawn[1] in (5, 399) and drawn[2] in (256, 257)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_give_the_end(wrong):
    """Not padding, behind which the loss would not see them."""
    logits = np.zeros((2, 130), np.float32)
    logits[0] = wrong
    drawn = draw(tf.constant(logits), uniforms(2, 3, tf.constant([1, 1]))).numpy()
    np.testing.assert_array_equal(drawn[0], [END] * 3)
    assert ((drawn[1] >= 0) & (drawn[1] < 130)).all()


def test_the_best_word_of_what_is_no_number_is_the_end():
    """Also where padding beyond the vocabulary is a number, and the largest."""
    logits = np.array([[np.nan] * 3 + [-1e9], [0, np.nan, 2, -1e9], [0, 5, 2, -1e9]], np.float32)
    words, probability = best_token(tf.constant(logits))
    np.testing.assert_array_equal(words, [END, END, 1])
    assert np.isnan(probability[:2]).all()
    assert float(probability[2]) == pytest.approx(np.exp(5) / np.exp([0, 5, 2]).sum())
    np.testing.assert_array_equal(likeliest(tf.constant(logits), tf.zeros([3, 2, 2])), [[END] * 2, [END] * 2, [1] * 2])


def test_bfloat16_rounds_products_alone(captioner):
    """Hidden states, losses and gradients stay float32 and near; products and their elements have 8 bits."""
    left, right = tf.constant([[1.0, 2.0**-9]]), tf.constant([[1.0], [1.0]])
    assert float(product(left, right, tf.float32)[0, 0]) == 1 + 2.0**-9
    assert float(product(left, right, tf.bfloat16)[0, 0]) == 1
    assert float(product(tf.ones([1, 257]), tf.ones([257, 1]), tf.bfloat16)[0, 0]) == 256
    words, seen = tf.constant(captions(14)), tf.constant(features(14))
    packing, found = pack(words), {}
    for precision in (tf.float32, tf.bfloat16):
        captioner.precision = precision
        with tf.GradientTape() as tape:
            hidden = captioner.hidden(seen, words, packing)
            weights = tf.fill(tf.shape(packing.index)[:1], 0.1)
            total, terms = weighted_log_likelihood(captioner.projection(), hidden, packing.of(words), weights)
        gradients = tape.gradient(total, captioner.trainable_variables)
        assert {terms.dtype, hidden.dtype, total.dtype, *(g.dtype for g in gradients)} == {tf.float32}
        found[precision] = flat(gradients)
    difference = np.linalg.norm(found[tf.float32] - found[tf.bfloat16]) / np.linalg.norm(found[tf.float32])
    assert 1e-4 < difference < 0.05


def test_xla_changes_no_word_and_hardly_a_number(captioner, monkeypatch):
    """Compiled blocks are made up to powers of two with rows that count for nothing."""
    monkeypatch.setattr(blocks, "ROWS", 64)
    monkeypatch.setattr(blocks, "FEWEST", 16)
    seen, words = tf.constant(features(70)), tf.constant(captions(70))
    packing, found = pack(words), {}
    for jit in (False, True):
        captioner.jit = jit

        @tf.function(autograph=False)
        def run(jit=jit):
            step, start = captioner.begin(seen)
            paths, forks = decoding.sample_with_forks(step, start, T, tf.constant([1, 2]), 1, draw, jit)
            rolled = roll_out(step, paths, forks, tf.constant([3, 4]), draw, jit)
            with tf.GradientTape() as tape:
                hidden = captioner.hidden(seen, words, packing)
                weights = tf.fill(tf.shape(packing.index)[:1], 0.1)
                total, _ = weighted_log_likelihood(captioner.projection(), hidden, packing.of(words), weights)
            said = [decoding.greedy(step, start, T, jit)[0], paths, rolled.tokens]
            return said, tape.gradient(total, captioner.trainable_variables)

        assert jit == any(b"_XlaMustCompile" in str(n.attr).encode() for n in nodes(run.get_concrete_function()))
        found[jit] = run()
    for a, b in zip(found[True][0], found[False][0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(flat(found[True][1]), flat(found[False][1]), atol=1e-4)
