"""What may change no number: padding after the end, a larger T, the order of a batch."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.rollouts import Rollouts
from spidercap.models.special_tokens import END
from spidercap.pipeline.data.batches import Batch
from spidercap.pipeline.training import objectives
from spidercap.pipeline.training.experience import Experience, WordsDrawn
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.steps import scored_captions, split_rewards
from tests.enumeration import T, flat, table_reward

LEVEL = tf.constant(0.0)


def batch_of(features):
    return Batch(tf.constant(features), tf.range(len(features)), None)


def gradients_of(captioner, baseline, objective, experience):
    credit = objective.credit(experience, *split_rewards(experience, table_reward(*scored_captions(experience))))
    found = policy_gradients(captioner, baseline, experience, credit)
    logs = {name: float(value) for name, value in found.logs._asdict().items() if value is not None}
    return flat([*found.captioner, *found.baseline]), logs | {"loss": float(found.losses[0])}


def every_objective(captioner):
    return [
        objectives.policy_gradient(captioner, T, samples=2, rollouts=2),
        objectives.policy_gradient(captioner, T, samples=3, rollouts=1, share_rollouts=True),
        objectives.policy_gradient(captioner, T, samples=2, rollouts=0),
        objectives.self_critical(captioner, T, samples=2),
        objectives.leave_one_out(captioner, T, samples=3),
        objectives.vine(captioner, T, samples=2, rollouts=3),
    ]


@pytest.mark.parametrize("which", range(6))
def test_nothing_after_the_end_changes_a_number(toy, which):
    """Five more steps of padding, in samples and in rollouts: the same gradient of both models, the same logs."""
    captioner, baseline, features = trained_baseline(toy)
    objective = every_objective(captioner)[which]
    experience = objective.sample(batch_of(features), tf.constant([2, 6]), LEVEL)
    short, short_logs = gradients_of(captioner, baseline, objective, experience)
    longer = [[0, 0], [0, 5]]
    leaders = experience.leaders
    if leaders is not None:
        leaders = tf.concat([leaders, tf.repeat(leaders[:, -1:], 5, axis=1)], axis=1)
    padded_experience = experience._replace(
        tokens=tf.pad(experience.tokens, longer),
        rollouts=experience.rollouts._replace(tokens=tf.pad(experience.rollouts.tokens, longer)),
        leaders=leaders,
    )
    long, long_logs = gradients_of(captioner, baseline, objective, padded_experience)
    assert np.abs(short).max() > 1e-3
    np.testing.assert_allclose(short, long, atol=1e-6)
    assert short_logs == pytest.approx(long_logs, abs=1e-5)


@pytest.mark.parametrize("which", range(6))
def test_the_order_of_images_changes_nothing_beyond_rounding(toy, which):
    """Images of a batch, with all that was experience of them, the other way round."""
    captioner, baseline, features = trained_baseline(toy)
    objective = every_objective(captioner)[which]
    experience = objective.sample(batch_of(features), tf.constant([2, 6]), LEVEL)
    samples = len(experience.tokens)
    order = np.roll(np.arange(samples), samples // 2)  # of two images, each with its samples in their order
    place = np.argsort(order)
    turned = Experience(
        experience.features,
        tf.gather(experience.image_index, order),
        tf.gather(experience.tokens, order),
        turned_rollouts(experience.rollouts, place),
        None
        if experience.leaders is None
        else tf.gather(tf.constant(place, tf.int32), tf.gather(experience.leaders, order)),
        drawn=turned_words(experience.drawn, place),
        feature_row=tf.gather(experience.feature_row, order),
    )
    ahead, logs = gradients_of(captioner, baseline, objective, experience)
    back, turned_logs = gradients_of(captioner, baseline, objective, turned)
    np.testing.assert_array_equal(np.sort(turned.image_index), np.sort(experience.image_index))
    assert (turned.image_index.numpy() != experience.image_index.numpy()).any()
    np.testing.assert_allclose(ahead, back, atol=1e-6)
    assert logs == pytest.approx(turned_logs, abs=1e-5)


def turned_rollouts(rollouts, place):
    """The same rollouts of samples that lie elsewhere, in the order of those."""
    prefix, order = turned_prefix(rollouts.prefix, place)
    return Rollouts(tf.gather(rollouts.tokens, order), prefix)


def turned_words(drawn, place):
    """The same words drawn in states of samples that lie elsewhere."""
    if drawn is None:
        return None
    prefix, order = turned_prefix(drawn.prefix, place)
    return WordsDrawn(prefix, tf.gather(drawn.tokens, order), tf.gather(drawn.log_prob, order))


def turned_prefix(prefix, place):
    prefix = np.stack([place[prefix.numpy()[:, 0]], prefix.numpy()[:, 1]], axis=1)
    order = np.lexsort(prefix.T[::-1])
    return tf.constant(prefix[order].reshape(-1, 2), tf.int32), order


def trained_baseline(toy):
    captioner, baseline, features = toy
    rng = np.random.default_rng(8)
    for weight in baseline.trainable_variables:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    return captioner, baseline, features


def test_padding_of_T_changes_neither_samples_nor_rollouts(toy):
    """Where every caption ends in time, T = 12 and T = 30 say the same words."""
    captioner, _, features = toy
    captioner.words.bias.assign([0, 0, 2.5, 0, 0, 0, 0])  # ends soon
    found = []
    for length in (12, 30):
        objective = objectives.policy_gradient(captioner, length, samples=4, rollouts=2)
        experience = objective.sample(batch_of(features), tf.constant([5, 9]), LEVEL)
        assert tf.reduce_all(tf.reduce_any(experience.tokens == END, axis=1))
        assert tf.reduce_all(tf.reduce_any(experience.rollouts.tokens == END, axis=1))
        found.append((experience.tokens[:, :12], experience.rollouts.tokens[:, :12], experience.rollouts.prefix))
    for short, long in zip(*found, strict=True):
        np.testing.assert_array_equal(short, long)
