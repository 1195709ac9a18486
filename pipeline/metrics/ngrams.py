"""n-grams as bit sets, for all compiled metrics; exact for any vocabulary.

The positions of a word in a reference are bits of int64 "limbs" of 62 positions each. The end positions of a longer
n-gram are those of the n-gram without its last word, shifted by one, that are also positions of the last word. So
n-grams are compared word by word, without keys or hashes, and different ones never collide. Within a candidate, a bit
means the number of steps since an earlier occurrence of the word.

Only single words of an image, and CIDEr's known n-grams, are looked up. Each is one int64 key, place * base + word,
where `place` is the image's row or the place of the n-gram's prefix in a table, and word < base. Keys differ if image,
prefix or word differ, and they stay below 2**63. A table (key_table.py) compares whole keys.

Shapes: I images, R references per image, L their length, N candidates, T steps, limbs as lists of tensors. Inside the
metrics steps come first, so that the windows of n-grams are slices without a copy.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from spidercap.models.special_tokens import END, PAD

ORDERS = (1, 2, 3, 4)
BITS = 62  # of a limb, so that adding two limbs and a carry stays below 2**63
FULL = (1 << BITS) - 1
# Elements of the largest temporary: 4 MB each, of which a few exist at a time.
ROOM = 2**19
UNROLLED = 40


def ends(limbs: Sequence[tf.Tensor]) -> Iterator[list[tf.Tensor]]:
    """Yields, for each order n, limbs `[T - n + 1, ...]` of the positions where the n-grams of each step end.

    Args:
      limbs: `[T, ...]`, the positions of single words.
    """
    current = list(limbs)
    for order in ORDERS:
        if order > 1:
            words = [limb[order - 1 :] for limb in limbs]
            moved = _moved_on([limb[:-1] for limb in current])
            current = [tf.bitwise.bitwise_and(m, w) for m, w in zip(moved, words, strict=True)]
        yield current


def repeats(words: tf.Tensor) -> Iterator[list[tf.Tensor]]:
    """Yields, for each order n, limbs `[T - n + 1, N]`: bit d - 1 is set if the same n-gram occurred d steps before.

    Args:
      words: int64 `[T, N]`.
    """
    steps, count = words.shape[0], tf.shape(words)[1]
    before = tf.concat([tf.fill([steps, count], tf.constant(-1, tf.int64)), words], 0)
    single = []
    for first in range(0, max(steps - 1, 1), BITS):

        def add(i, bits, first=first):
            earlier = tf.slice(before, [steps - 1 - first - i, 0], [steps, count])
            earlier.set_shape(words.shape)
            bit = tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.cast(i, tf.int64))
            return tf.bitwise.bitwise_or(bits, tf.where(words == earlier, bit, tf.zeros_like(bit)))

        single.append(repeat(min(BITS, steps - 1 - first), add, tf.zeros_like(words)))
    current = single
    for order in ORDERS:
        if order > 1:  # the last words are as far apart as the first
            current = [tf.bitwise.bitwise_and(c[:-1], s[order - 1 :]) for c, s in zip(current, single, strict=True)]
        yield current


def counted(limbs: Sequence[tf.Tensor], most: int) -> tf.Tensor:
    """Returns how many bits of the limbs are set: uint8, or int64 if there can be `most` > 255."""
    kind = tf.uint8 if most <= 255 else tf.int64
    return functools.reduce(tf.add, [tf.cast(tf.raw_ops.PopulationCount(x=limb), kind) for limb in limbs])


def repeat(times: int, body: Callable, state):
    """Returns the state after `times` of state = body(i, state); unrolled, or a loop in the graph if there are many."""
    if times > UNROLLED:
        return tf.while_loop(lambda i, _: i < times, lambda i, s: (i + 1, body(i, s)), (0, state))[1]
    for i in range(times):
        state = body(i, state)
    return state


def in_chunks(function: Callable, width: int, candidates: tf.Tensor, image_index: tf.Tensor, dtype: tf.DType):
    """Returns function(words int64 `[T, n]`, images int64 `[n]`) -> dtype `[n, ...]` for all `[N, T]`, `[N]`.

    Few candidates are computed at once, many in equal chunks, so that memory is bounded for any N.

    Args:
      width: elements of the function's largest temporary per word of a candidate.
    """
    candidates, image_index = tf.cast(candidates, tf.int64), tf.cast(image_index, tf.int64)
    steps, count = candidates.shape[1], tf.shape(candidates)[0]
    rows = max(1, ROOM // (max(steps, 1) * width))

    def at_once(candidates=candidates, image_index=image_index):
        return function(tf.transpose(candidates), image_index)

    def one_by_one():
        chunks = -(-count // rows)
        size = -(-count // chunks)
        spare = chunks * size - count  # tf.pad has no GPU kernel for int64
        parts = tf.concat([candidates, tf.zeros([spare, steps], tf.int64)], 0)
        images = tf.concat([image_index, tf.zeros([spare], tf.int64)], 0)
        result = tf.map_fn(
            lambda part: at_once(*part),
            (tf.reshape(parts, [chunks, size, steps]), tf.reshape(images, [chunks, size])),
            fn_output_signature=dtype,
            parallel_iterations=1,
        )
        return tf.reshape(result, tf.concat([[chunks * size], tf.shape(result)[2:]], 0))[:count]

    if candidates.shape[0] is None:
        return tf.cond(count <= rows, at_once, one_by_one)
    return at_once() if candidates.shape[0] <= rows else one_by_one()


def limbs_of(positions: int) -> int:
    """Returns the number of limbs for so many positions."""
    return max(1, -(-positions // BITS))


def caption_codes(captions: tf.Tensor) -> tf.Tensor:
    """Returns a code int64 `[N]` of each of captions `[N, T]`: equal for equal captions, else different.

    The random linear code of 64 bits confuses two captions about once in 10^19 pairs.
    """
    factors = np.random.default_rng(0).integers(-(2**63), 2**63, captions.shape[1])
    return tf.reduce_sum(tf.cast(captions, tf.int64) * factors, axis=1)


def without_end(captions):
    """Returns int captions of any shape with the end token replaced by padding (NumPy or TensorFlow)."""
    where = tf.where if tf.is_tensor(captions) else np.where
    return where(captions == END, PAD, captions)


def _moved_on(limbs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Positions plus one; the last of a limb becomes the first of the next."""
    bitwise, one, top = tf.bitwise, tf.constant(1, tf.int64), tf.constant(BITS - 1, tf.int64)
    moved = [bitwise.left_shift(limb, one) for limb in limbs]
    if len(limbs) == 1:
        return moved  # there is no position beyond the last
    low = [bitwise.bitwise_and(limb, tf.constant(FULL, tf.int64)) for limb in moved]
    carry = [bitwise.right_shift(limb, top) for limb in limbs[:-1]]
    return [low[0], *(bitwise.bitwise_or(a, b) for a, b in zip(low[1:], carry, strict=True))]
