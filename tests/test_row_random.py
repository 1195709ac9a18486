"""Random numbers by row: the same wherever a row is computed, and drawn as they should be."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import row_random
from spidercap.models.packing import pack
from spidercap.models.row_random import RowSeed

SEED = tf.constant([3, 7])


def part(first):
    """The seed of the rows from `first` on."""
    return RowSeed(SEED, tf.constant(first, tf.int64))


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 2), (4, 1, 2), (5,)])
def test_a_row_has_the_same_numbers_in_every_part_of_the_batch(shape):
    whole = row_random.uniforms(SEED, 9, *shape).numpy()
    assert whole.shape == (9, *shape)
    assert len(np.unique(whole)) == whole.size
    for first in range(9):
        rest = row_random.uniforms(part(first), 9 - first, *shape).numpy()
        np.testing.assert_array_equal(whole[first:], rest)


def test_places_beyond_32_bits_go_on():
    far = 2**33 + 5
    near = row_random.uniforms(part(far), 3, 2).numpy()
    np.testing.assert_array_equal(near[1:], row_random.uniforms(part(far + 1), 2, 2).numpy())
    assert (near != row_random.uniforms(part(5), 3, 2).numpy()).all()


def test_numbers_are_uniform_and_independent_of_each_other():
    numbers = row_random.uniforms(SEED, 50_000, 3).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(0), 0.5, atol=0.005)
    np.testing.assert_allclose(np.cov(numbers.T), np.eye(3) / 12, atol=0.002)


def test_other_seeds_other_numbers():
    seeds = [SEED, row_random.fold_in(SEED, 1), row_random.fold_in(SEED, 2), *row_random.split(SEED)]
    drawn = [row_random.uniforms(seed, 50).numpy() for seed in seeds]
    for i, one in enumerate(drawn):
        assert not any((one == other).any() for other in drawn[:i])


def test_repeated_rows_are_those_of_a_larger_batch():
    """Two samples of each of the images 2, 3 of a batch are its rows 4 to 7; folded seeds keep the place."""
    whole = row_random.uniforms(row_random.fold_in(SEED, 4), 8, 2).numpy()
    some = row_random.uniforms(row_random.fold_in(row_random.repeated(part(2), 2), 4), 4, 2).numpy()
    np.testing.assert_array_equal(whole[4:], some)


class TestDropout:
    ROWS, SIZE = 300, 41

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_share_and_mean(self, rate):
        dropped = row_random.dropout(tf.ones([self.ROWS, self.SIZE]), rate, SEED).numpy()
        kept = dropped != 0
        assert (~kept).mean() == pytest.approx(rate, abs=0.015)
        np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=1e-4)
        assert dropped.mean() == pytest.approx(1, abs=5e-2 / (1 - rate))

    def test_rows_of_a_part(self):
        values = tf.random.stateless_normal([8, self.SIZE], [1, 2])
        whole = row_random.dropout(values, 0.5, SEED).numpy()
        np.testing.assert_array_equal(whole[3:], row_random.dropout(values[3:], 0.5, part(3)).numpy())

    def test_tokens_are_dropped_by_caption_and_step(self):
        """Other captions in the batch change a token's place among the packed ones, not its numbers."""
        words = np.array([[7, 4, 2, 0], [5, 6, 4, 2], [8, 2, 0, 0], [9, 9, 9, 2]])
        masks = {}
        for first, last in ((0, 4), (0, 2), (2, 4), (3, 4)):
            packing = pack(tf.constant(words[first:last]))
            ones = tf.ones([len(packing.index), self.SIZE])
            dropped = row_random.dropout(ones, 0.5, part(first), packing.index, 4).numpy()
            for (row, step), mask in zip(packing.index.numpy(), dropped, strict=True):
                np.testing.assert_array_equal(masks.setdefault((first + row, step), mask), mask)
        assert len({mask.tobytes() for mask in masks.values()}) == len(masks) == 13

    def test_gradient_goes_through_what_is_kept(self):
        values = tf.ones([4, self.SIZE])
        with tf.GradientTape() as tape:
            tape.watch(values)
            dropped = row_random.dropout(values, 0.5, SEED)
        np.testing.assert_array_equal(tape.gradient(dropped, values), dropped)
