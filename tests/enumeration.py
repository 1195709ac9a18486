"""A toy policy of which every caption can be enumerated: four words may be experience (one is the end), T = 3."""

import itertools

import numpy as np
import tensorflow as tf

from spidercap.models.rollouts import no_rollouts
from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.training.experience import Experience
from spidercap.pipeline.training.gradients import policy_gradients
from tests import plain
from tests.oracles import captions_of, padded, word_probabilities

T = 3
SAYABLE = (END, 4, 5, 6)
CAPTIONS = [tuple(c) for c in captions_of(SAYABLE, T)]
RNG = np.random.default_rng(0)
REWARDS = {caption: float(r) for caption, r in zip(CAPTIONS, RNG.uniform(0, 1, len(CAPTIONS)) ** 2, strict=True)}


def table_reward(captions, image_index):
    """A reward that is an arbitrary number for each caption, and twice that for image 1."""
    keys = tf.constant([sum(w * 10**i for i, w in enumerate(c)) for c in CAPTIONS], tf.int64)
    values = tf.constant([REWARDS[c] for c in CAPTIONS], tf.float32)
    asked = tf.reduce_sum(tf.cast(captions[:, :T], tf.int64) * [1, 10, 100], axis=1)
    same = asked[:, None] == keys[None]
    tf.debugging.assert_equal(tf.reduce_sum(tf.cast(same, tf.int32), axis=1), 1, "a caption that cannot be")
    return tf.linalg.matvec(tf.cast(same, tf.float32), values) * tf.cast(image_index + 1, tf.float32)


def features_of(experience):
    """Features `[N, F]` of each sample's image."""
    return tf.gather(experience.features, experience.feature_row)


def distribution(captioner, features):
    """P(caption) for every caption, word by word through the step closure; features `[1, F]`."""
    step, start = captioner.begin(tf.constant(features))
    return {c: float(np.prod(word_probabilities(step, start, c))) for c in CAPTIONS}


def continuations(probability, prefix):
    """P(caption | its beginning) of every caption that begins with `prefix`."""
    same = [c for c in CAPTIONS if c[: len(prefix)] == tuple(prefix)]
    mass = sum(probability[c] for c in same)
    return {c: probability[c] / mass for c in same}


def value(probability, prefix):
    """Q(g_<t, g_t): the expected reward of captions that begin with g_1..g_t."""
    return sum(p * REWARDS[c] for c, p in continuations(probability, prefix).items())


def exact_gradient(captioner, features):
    """d/d theta of sum_c P(c) r(c), by differentiating the enumerated sum; features `[1, F]`."""
    words = tf.constant(padded(CAPTIONS, T))
    rewards = tf.constant([REWARDS[c] for c in CAPTIONS], tf.float32)
    mask = words != PAD
    with tf.GradientTape() as tape:
        hidden = plain.hidden(captioner, tf.repeat(tf.constant(features), len(CAPTIONS), axis=0), words)
        logits = plain.logits(captioner, tf.reshape(hidden, [-1, hidden.shape[2]]))
        log_probs = tf.gather(tf.nn.log_softmax(logits), tf.reshape(words, [-1]), batch_dims=1)
        log_probs = tf.where(mask, tf.reshape(log_probs, words.shape), 0.0)
        expected = tf.reduce_sum(tf.exp(tf.reduce_sum(log_probs, axis=1)) * rewards)
    return flat(tape.gradient(expected, captioner.trainable_variables))


def flat(gradients):
    """All coordinates in one float64 vector."""
    return np.concatenate([np.asarray(tf.convert_to_tensor(g), np.float64).ravel() for g in gradients])


def outcomes_of(probability, samples):
    """Every outcome of M = `samples` captions of one image: captions `[O][M]`, and the probability of each."""
    outcomes = list(itertools.product(CAPTIONS, repeat=samples))
    return outcomes, np.array([np.prod([probability[c] for c in outcome]) for outcome in outcomes])


def experience_of(features, outcomes, rollouts=None, leaders=None):
    """The samples of all outcomes, as if each were an image of its own; features `[1, F]`."""
    tokens = padded([c for outcome in outcomes for c in outcome], T)
    none = no_rollouts(T)
    image = tf.zeros([len(tokens)], tf.int32)
    return Experience(tf.constant(features), image, tf.constant(tokens), rollouts or none, leaders, feature_row=image)


def expected_gradient(captioner, baseline, experience, credit, weights):
    """The estimator's gradient of expected reward, averaged over all outcomes with their probabilities.

    `weights` are those of the N samples: their outcome's probability over the number of its samples. They weigh
    advantages, in which the loss is linear: Q' - b = N w (Q - b).
    """
    weights = tf.cast(tf.constant(weights) * len(weights), tf.float32)[:, None]
    if credit.baseline is None:
        # Of each caption once: outcomes repeat them a thousand times, and all are of one image.
        said, row = np.unique(experience.tokens.numpy(), axis=0, return_inverse=True)
        hidden = plain.hidden(captioner, tf.repeat(experience.features, len(said), axis=0), tf.constant(said))
        steps = tf.tile(tf.range(T), [len(said)])
        expected = tf.gather(tf.reshape(baseline(tf.reshape(hidden, [-1, hidden.shape[2]]), steps), [-1, T]), row)
    else:
        expected = credit.baseline
    weighed = credit._replace(values=expected + weights * (credit.values - expected))
    if credit.siblings is not None:
        scaled = tf.gather(weights[:, 0], credit.siblings.state[:, 0]) * credit.siblings.advantage
        weighed = weighed._replace(siblings=credit.siblings._replace(advantage=scaled))
    return -flat(policy_gradients(captioner, baseline, experience, weighed)[0])
