r"""Leave-one-out among siblings: the words that were drawn from one state of a sampled caption.

From a state S + 1 words are drawn independently: the caption's own and S others. So the mean value of the others is a
baseline that does not depend on a word, and

    1 / (S + 1) sum_i (Q_i - mean of the others) grad log pi(w_i)  =  1 / S sum_i (Q_i - V) grad log pi(w_i)

is an unbiased estimate of the gradient at this state (Kool et al. 2019, eq. 8), where V is the mean of all. Equal words
share one value, so that only new words are rolled out. The value of the caption's own word is V of the next state, and
at its end its reward: values are backed up through the tree.

    a --- man --- runs --- END          the caption: reward 0.7, V before END = 0.7
     |     |  \-- sits --- END          words drawn before "runs": sits (rolled out: 0.3), and runs (not new)
     |      \--- with ... END
      \-- dog --- ... END               V before "runs" = (2 * 0.7 + 0.3) / 3

Shapes: N samples, T steps, P states, S words drawn from each, Q rollouts, W words in states with rollouts.
"""

import numpy as np
import tensorflow as tf

from spidercap.pipeline.training.estimators import token_mask
from spidercap.pipeline.training.experience import Credit, Siblings, WordsDrawn
from spidercap.pipeline.training.shapes import check_shapes


def next_step(prefix: tf.Tensor) -> tf.Tensor:
    """Returns the place `[P, 2]` of the word after each prefix `[P, 2]`: (caption, step), (caption, last index)."""
    check_shapes("next_step", prefix=(prefix, "P 2"))
    return prefix + tf.constant([0, 1])


def own_words(tokens: tf.Tensor, prefix: tf.Tensor) -> tf.Tensor:
    """Returns the word `[P]` that each caption `[N, T]` itself has after its prefix `[P, 2]`: (caption, last index)."""
    check_shapes("own_words", tokens=(tokens, "N T"), prefix=(prefix, "P 2"))
    return tf.gather_nd(tokens, next_step(prefix))


def new_words(own: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    """Returns bool `[P, S]`: drawn words `[P, S]` that are neither the caption's own `[P]` nor drawn before.

    own 7, drawn  7 5 5 4     new  0 1 0 1
    """
    check_shapes("new_words", own=(own, "P"), drawn=(drawn, "P S"))
    before = np.tri(drawn.shape[1], k=-1, dtype=bool)
    repeated = tf.reduce_any(_equal(drawn) & before, axis=2)
    return (drawn != own[:, None]) & ~repeated


def leave_one_out(
    tokens: tf.Tensor, drawn: WordsDrawn, sample_rewards: tf.Tensor, rollout_rewards: tf.Tensor
) -> Credit:
    """Returns the values of the samples' own words, those of the others as baseline, and the weights of all siblings.

    Args:
      tokens: `[N, T]`.
      drawn: from every state of every sample.
      sample_rewards: `[N]`.
      rollout_rewards: `[Q]`, of a rollout from each of `new_words`, in their order.
    """
    check_shapes(
        "leave_one_out",
        tokens=(tokens, "N T"),
        prefix=(drawn.prefix, "P 2"),
        words=(drawn.tokens, "P S"),
        sample_rewards=(sample_rewards, "N"),
        rollout_rewards=(rollout_rewards, "Q"),
    )
    others, place = drawn.tokens.shape[1], next_step(drawn.prefix)
    own = own_words(tokens, drawn.prefix)
    new = new_words(own, drawn.tokens)
    forked, forks = tf.reduce_any(new, axis=1), tf.where(new)
    times = tf.where(new, tf.reduce_sum(tf.cast(_equal(drawn.tokens), tf.float32), axis=2), 0.0)
    own_times = 1.0 + others - tf.reduce_sum(times, axis=1)
    rolled = tf.scatter_nd(forks, rollout_rewards, tf.shape(new, tf.int64))
    values, means = _backed_up(tokens, sample_rewards, place, own_times, tf.reduce_sum(times * rolled, axis=1), others)
    mean = tf.gather_nd(means, place)
    own_advantage = own_times * (tf.gather_nd(values, place) - mean) / others
    advantage = times * (rolled - mean[:, None]) / others
    siblings = Siblings(
        tf.concat([tf.boolean_mask(place, forked), tf.gather(place, forks[:, 0])], axis=0),
        tf.concat([tf.boolean_mask(own, forked), tf.gather_nd(drawn.tokens, forks)], axis=0),
        tf.concat([tf.boolean_mask(own_advantage, forked), tf.gather_nd(advantage, forks)], axis=0),
    )
    return Credit(values, ((others + 1) * means - values) / others, siblings)


def siblings_loss(logits: tf.Tensor, advantage: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns -1/N sum_i A_i log pi(w_i), up to a constant, of logits `[W]`, advantages `[W]` and N = `count`.

    Logits stand for log-probabilities: they differ by a number of their state, and the advantages of a state sum to 0.
    So neither the loss nor its gradient needs a softmax.
    """
    check_shapes("siblings_loss", logits=(logits, "W"), advantage=(advantage, "W"), count=(count, ""))
    return -tf.reduce_sum(tf.stop_gradient(advantage) * logits) / count


def _backed_up(tokens, sample_rewards, place, own_times, others_sum, others):
    """Values of the samples' own words and means V of their states, `[N, T]` both, zero after the end.

    From the last state to the first: V_t = (n_t V_t+1 + sum of the others' values) / (S + 1), where n_t counts the own
    word among the words drawn. Beyond the end V is the sample's reward.
    """
    mask = token_mask(tokens)
    shape = tf.shape(tokens)
    counts = tf.unstack(tf.scatter_nd(place, own_times, shape), axis=1)
    sums = tf.unstack(tf.scatter_nd(place, others_sum, shape), axis=1)
    value, values, means = sample_rewards, [], []
    for here, count, total in reversed(list(zip(tf.unstack(mask, axis=1), counts, sums, strict=True))):
        values.append(value)
        value = tf.where(here, (count * value + total) / (others + 1), value)
        means.append(value)
    values, means = (tf.stack(found[::-1], axis=1) for found in (values, means))
    return tf.where(mask, values, 0.0), tf.where(mask, means, 0.0)


def _equal(drawn: tf.Tensor) -> tf.Tensor:
    """Which words of a state are equal, `[P, S, S]`."""
    return drawn[:, :, None] == drawn[:, None]
