"""The work that a line of `benchmarks.speed` needs at least: word-steps, and products with the parts of images.

A word-step computes the distribution of one next token: the matrix products of the LSTM and of the vocabulary. Needed:

- decoding: the tokens of the captions, the end token counted;
- beam search of width W: per image one row at the first step, then W rows per step up to the longest of the returned
  captions (to prove that no other is better may take more);
- rollouts: the tokens of the continuations without the first of each, whose distribution is that of the sample;
- training: three times the tokens of the captions, because the backward pass has two products per product of the
  forward pass.

The keys and values of an image's parts are made once by a decoder, and once more, with gradients, by an update.
"""

from typing import NamedTuple

import tensorflow as tf

from benchmarks.speed_world import World
from spidercap.models.rollouts import Rollouts
from spidercap.models.special_tokens import PAD
from spidercap.pipeline.training.experience import Experience


class Work(NamedTuple):
    """What a call needs at least."""

    word_steps: float
    image_flops: float  # of the products that make keys and values of the images' parts


def words_in(captions: tf.Tensor) -> int:
    """Returns the number of tokens in captions `[..., T]`, end tokens counted."""
    return int(tf.math.count_nonzero(captions != PAD))


def learned_images(world: World, words: int) -> float:
    """Returns the FLOPs of the products with the parts of a batch's images, gradients included, for words of all."""
    images = len(world.images.features)
    return images * world.setting.learned_image_flops(words / images)


def sampled_and_learned_images(world: World, experience: Experience) -> float:
    """Returns the FLOPs of a step on a reward that are spent on the parts of images: sampling reads them as well."""
    read = len(world.images.features) * world.setting.image_flops()
    return read + learned_images(world, words_in(experience.tokens))


def rollout_steps(rollouts: Rollouts) -> int:
    """Returns the word-steps that rollouts need in addition to their samples."""
    read = int(tf.reduce_sum(rollouts.prefix[:, 1] + 1))
    return words_in(rollouts.tokens) - read - len(rollouts.tokens)


def beam_steps(words: tf.Tensor) -> int:
    """Returns the word-steps that beam search needs to find captions `[B, W, T]`."""
    longest = tf.reduce_max(tf.math.count_nonzero(words != PAD, axis=2), axis=1)
    return int(tf.reduce_sum(1 + words.shape[1] * (longest - 1)))
