"""Greedy, sampling, masks and time: small tables with obvious answers."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.categorical import draw
from spidercap.models.packing import pack
from spidercap.models.rollouts import roll_out
from spidercap.models.special_tokens import END, PAD, START, UNKNOWN
from spidercap.models.word_loss import log_probs, weighted_log_likelihood
from spidercap.pipeline.training import estimators
from tests.oracles import padded, word_probabilities


def scripted(script):
    """A step whose state counts its words; at time t row i wants script[i][t], whatever came before."""
    script = tf.constant(script)

    def step(state, token):
        hidden, cell = state
        time = tf.cast(cell[:, 1], tf.int32)
        row = tf.cast(cell[:, 0], tf.int32)
        wanted = tf.gather_nd(script, tf.stack([row, time], axis=1))
        moved = tf.stack([cell[:, 0], cell[:, 1] + 1], axis=1)
        del token
        return (hidden, moved), tf.one_hot(wanted, 10) * 50.0

    rows = script.shape[0]
    start = tf.stack([tf.range(rows, dtype=tf.float32), tf.zeros([rows])], axis=1)
    return step, (tf.zeros([rows, 2]), start)


#          words wanted          greedy says
SCRIPT = [
    [4, 5, END, 7, 8],  #  4 5 END . .     stops at the end token
    [END, 4, 4, 4, 4],  #  END . . . .     says nothing
    [6, 7, 8, 9, 4],
]  #    6 7 8 9 4       is cut: no end token
SAID = [[4, 5, END, PAD, PAD], [END, PAD, PAD, PAD, PAD], [6, 7, 8, 9, 4]]  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
def test_greedy_follows_the_script(compiled):
    step, state = scripted(SCRIPT)

    def run():
        return decoding.greedy(step, state, 5)

    words, log_prob = (tf.function(run) if compiled else run)()
    np.testing.assert_array_equal(words, SAID)
    np.testing.assert_allclose(log_prob, np.zeros(3), atol=1e-6)
    np.testing.assert_array_equal(decoding.lengths(words), [3, 1, 5])


def test_greedy_stops_when_all_have_ended():
    steps = []
    step, state = scripted([[4, END, 5, 5, 5], [END, 5, 5, 5, 5]])

    def counting(state, token):
        steps.append(token)
        return step(state, token)

    decoding.greedy(counting, state, 5)
    assert len(steps) == 2


def test_sampling_follows_the_script_and_keeps_states():
    step, state = scripted(SCRIPT)
    words, forks = tf.function(lambda: decoding.sample_with_forks(step, state, 5, tf.constant([1, 2]), 3, draw))()
    np.testing.assert_array_equal(words, SAID)
    np.testing.assert_array_equal(words, decoding.sample(step, state, 5, tf.constant([1, 2])))
    for (path, last), said, cell in zip(
        forks.prefix.numpy(), forks.tokens.numpy(), forks.state[1].numpy(), strict=True
    ):
        np.testing.assert_array_equal(cell, [path, last + 2])  # it has read the start and words 0..last
        np.testing.assert_array_equal(said, [SAID[path][last + 1]] * 3)


def test_rollouts_run_on_from_their_own_time():
    """
    path       prefixes (last index)
    4 5 END    0, 1              the whole caption is no prefix
    END        none
    6 7 8 9 4  0, 1, 2, 3        a cut caption ends at T
    """
    step, state = scripted(SCRIPT)
    words, forks = decoding.sample_with_forks(step, state, 5, tf.constant([1, 2]), 2, draw)
    rolled = tf.function(lambda: roll_out(step, words, forks, tf.constant([3, 4]), draw))()
    prefixes = [[0, 0], [2, 0], [0, 1], [2, 1], [2, 2], [2, 3]]  # time by time
    np.testing.assert_array_equal(rolled.prefix, np.repeat(prefixes, 2, axis=0))
    # A scripted policy says the same words again, whichever prefix it goes on from.
    np.testing.assert_array_equal(rolled.tokens, np.repeat(np.array(SAID)[[0, 2, 0, 2, 2, 2]], 2, axis=0))


@pytest.mark.parametrize("compiled", [False, True])
def test_no_prefix_no_rollout(compiled):
    step, state = scripted([[END, 4, 4]] * 3)
    words, forks = decoding.sample_with_forks(step, state, 3, tf.constant([1, 2]), 3, draw)

    def run():
        return roll_out(step, words, forks, tf.constant([3, 4]), draw)

    rolled = (tf.function(run) if compiled else run)()
    assert rolled.tokens.shape == (0, 3)
    values = estimators.action_values(words, tf.constant([1.0, 2.0, 3.0]), rolled.prefix, tf.zeros([0]))
    np.testing.assert_array_equal(values, [[1, 0, 0], [2, 0, 0], [3, 0, 0]])


def test_unsayable_words_are_never_said(toy):
    """Even when the model wants nothing else; and their probability is nought where it is differentiated."""
    captioner, _, features = toy
    captioner.words.bias.assign([30, 30, 0, 30, 0, 0, 0])
    many = tf.constant(np.repeat(features, 200, axis=0))
    step, start = captioner.begin(many)
    sampled, forks = decoding.sample_with_forks(step, start, 4, tf.constant([0, 1]), 2, draw)
    rolled = roll_out(step, sampled, forks, tf.constant([0, 2]), draw)
    said, _ = decoding.greedy(step, start, 4)
    for words in (sampled, rolled.tokens, said):
        inside = words.numpy()[estimators.token_mask(words).numpy()]
        assert not np.isin(inside, [PAD, START, UNKNOWN]).any()
    assert len(np.unique(sampled)) > 3
    words = tf.constant([[4, 5], [6, 4]])
    hidden = captioner.hidden(tf.constant(features), words, pack(words))
    probability = tf.nn.softmax(captioner.projection().logits(hidden)).numpy()
    assert (probability[:, [PAD, START, UNKNOWN]] == 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)


def test_teacher_forcing_is_the_step_closure_word_by_word(toy):
    """No step of misalignment: hidden state t predicts word t, having read the words before it."""
    captioner, _, features = toy
    captions = [[4, 5, 6, END], [6, END], [5, 5, 5, 5]]
    words = tf.constant(padded(captions, 4))
    which, packing = np.array([0, 1, 1]), pack(words)
    hidden = captioner.hidden(tf.constant(features[which]), words, packing)
    found = log_probs(captioner.projection(), hidden, packing.of(words)).numpy()
    expected = [
        np.log(word_probabilities(*captioner.begin(tf.constant(features[i : i + 1])), caption))
        for i, caption in zip(which, captions, strict=True)
    ]
    np.testing.assert_allclose(found, [expected[row][t] for row, t in packing.index.numpy()], atol=1e-5)


def test_greedy_takes_the_likeliest_word_and_sums_its_logs(toy):
    captioner, _, features = toy
    words, log_prob = decoding.greedy(*captioner.begin(tf.constant(features)), 4)
    for row in range(2):
        caption = [int(w) for w in words[row] if w != PAD]
        step, start = captioner.begin(tf.constant(features[row : row + 1]))
        assert float(log_prob[row]) == pytest.approx(sum(np.log(word_probabilities(step, start, caption))), abs=1e-5)
        for t in range(len(caption)):
            others = [word_probabilities(step, start, [*caption[:t], w])[-1] for w in (END, 4, 5, 6)]
            assert word_probabilities(step, start, caption[: t + 1])[-1] == pytest.approx(max(others))


def test_sampled_words_follow_the_softmax(toy):
    """Chi-square of the first word, 99.9% quantile of 3 degrees of freedom."""
    captioner, _, features = toy
    many = tf.constant(np.repeat(features[:1], 5000, axis=0))
    first = decoding.sample(*captioner.begin(many), 2, tf.constant([4, 2])).numpy()[:, 0]
    step, start = captioner.begin(tf.constant(features[:1]))
    expected = {w: 5000 * word_probabilities(step, start, [w])[0] for w in (END, 4, 5, 6)}
    assert sum((np.sum(first == w) - e) ** 2 / e for w, e in expected.items()) < 16.27


def test_nothing_after_the_end_changes_a_number(toy):
    """Log-probabilities and gradients of a caption are the same however much padding follows it."""
    captioner, _, features = toy

    def gradients(length):
        words = tf.constant(padded([[4, END], [5, 6, END]], length))
        packing = pack(words)
        weights = tf.ones(len(packing.index))
        with tf.GradientTape() as tape:
            hidden = captioner.hidden(tf.constant(features), words, packing)
            loss, _ = weighted_log_likelihood(captioner.projection(), hidden, packing.of(words), weights)
        return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, captioner.trainable_variables)]

    for short, long in zip(gradients(3), gradients(9), strict=True):
        np.testing.assert_allclose(short, long, atol=1e-6)


def test_the_end_token_keeps_its_gradient(toy):
    """Likelihood of captions that end pushes the end token's bias up."""
    captioner, _, features = toy
    words = tf.constant([[4, END, PAD], [5, 6, END]])
    packing = pack(words)
    with tf.GradientTape() as tape:
        hidden = captioner.hidden(tf.constant(features), words, packing)
        weights = estimators.likelihood_weights(packing.of(estimators.likelihood_mask(words)))
        likelihood, _ = weighted_log_likelihood(captioner.projection(), hidden, packing.of(words), weights)
    probability = tf.nn.softmax(captioner.projection().logits(hidden)).numpy()[:, END]
    ends = (packing.of(words).numpy() == END).astype(float)
    expected = np.mean(ends - probability)
    assert float(tape.gradient(likelihood, captioner.words.bias)[END]) == pytest.approx(expected, abs=1e-6)


def test_masks_drawn():
    words = tf.constant([[7, 3, 4, 2, 0], [2, 0, 0, 0, 0], [4, 4, 4, 4, 4]])
    np.testing.assert_array_equal(estimators.token_mask(words), [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(
        estimators.likelihood_mask(words), [[1, 0, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    )


def test_action_values_drawn():
    """
    words    7    4    2    0        5    5    5    5  (cut)
    Q       .5   .3    r0   0       .1   .2   .4    r1
    """
    words = tf.constant([[7, 4, 2, 0], [5, 5, 5, 5]])
    prefix = tf.constant([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [1, 2]])
    values = estimators.action_values(
        words, tf.constant([0.9, 0.8]), prefix, tf.constant([0.4, 0.6, 0.3, 0.1, 0.2, 0.4])
    )
    np.testing.assert_allclose(values, [[0.5, 0.3, 0.9, 0], [0.1, 0.2, 0.4, 0.8]], atol=1e-6)


def test_copies_of_an_image_begin_alike(toy):
    captioner, _, features = toy
    step, start = captioner.begin(tf.constant(features), 3)
    same_step, same = captioner.begin(tf.constant(np.repeat(features, 3, axis=0)))
    words = tf.constant([4, 5, 6, 4, 5, 6])
    for found, expected in zip(step(start, words)[0], same_step(same, words)[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_captions_of_an_image_read_its_features(toy):
    captioner, _, features = toy
    words = tf.constant([[4, END, PAD], [5, 6, END], [6, 4, 5]])
    row, packing = np.array([1, 0, 1]), pack(words)
    found = captioner.hidden(tf.constant(features), words, packing, feature_row=tf.constant(row, tf.int32))
    np.testing.assert_array_equal(found, captioner.hidden(tf.constant(features[row]), words, packing))
