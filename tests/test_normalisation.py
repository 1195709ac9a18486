"""The normalisation of features: none of a new image becomes huge because training images hardly varied in it."""

import numpy as np
import pytest

from spidercap.models.lstm_captioner import LstmCaptioner


def normalised(training, others):
    """The mean and std after `adapt`, and the normalised features of other images."""
    captioner = LstmCaptioner(vocabulary_size=5, feature_size=training.shape[1], units=2, embedding_size=2, dropout=0.0)
    captioner.adapt(training.astype(np.float32))
    mean, std = captioner.feature_mean.numpy(), captioner.feature_deviation.numpy()
    assert mean.shape == std.shape == (training.shape[1],)
    return mean, std, (others - mean) / std


def images(count, seed=0, size=200):
    return np.random.default_rng(seed).gamma(0.7, 0.6, (count, size))


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_features_that_vary_are_divided_by_their_std(shift):
    training = images(500) + shift
    assert (training.std(axis=0) > 0.1 * training.std(axis=0).mean()).all()
    mean, std, _ = normalised(training, training)
    np.testing.assert_allclose(mean, training.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, training.std(axis=0), rtol=1e-4)


def test_the_std_has_a_floor():
    training = np.array([[0.0, 1.0, 7.0, 3.0], [4.0, 1.2, 7.0, 3.002]])
    mean, std, _ = normalised(training, training)
    floor = 0.1 * np.mean([2.0, 0.1, 0.0, 0.001])
    np.testing.assert_allclose(std, [2.0, 0.1, floor, floor], rtol=1e-4)
    np.testing.assert_allclose(mean, [2.0, 1.1, 7.0, 3.001], rtol=1e-6)


@pytest.mark.parametrize(("count", "largest"), [(2, 20), (3, 12), (5, 8), (20, 2)])
def test_other_images_have_about_the_size_of_few_training_images(count, largest):
    """Without the floor their rms is about 130, 49, 4 and 1.2."""
    sizes = [np.sqrt(np.mean(normalised(images(count, k), images(50, 99))[2] ** 2)) for k in range(9)]
    assert 0.5 < np.median(sizes) < largest


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-3, 5e-3])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_images_that_are_alike_leave_others_finite(count, noise):
    """One image is equal to itself; features of equal images may differ by rounding."""
    training = images(1) * (1 + noise * np.random.default_rng(1).normal(size=(count, 200)))
    _, std, others = normalised(training, images(50, 99))
    np.testing.assert_allclose(std, np.abs(training.mean(axis=0)).mean(), rtol=1e-5)
    assert np.sqrt(np.mean(others**2)) < 5


def test_features_that_are_all_0_stay_finite():
    _, std, others = normalised(np.zeros((3, 4)), np.ones((2, 4)))
    assert (std == 1).all() and (others == 1).all()
