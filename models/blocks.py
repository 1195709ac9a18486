"""A function of many rows, computed in blocks, so that arrays `[rows, V]` exist for one block at a time."""

from collections.abc import Callable, Sequence

import tensorflow as tf

ROWS = 1024  # the most per block
FEWEST = 64  # the fewest of a block compiled by XLA


def in_blocks(
    function: Callable,
    arrays: Sequence[tf.Tensor],
    results: Sequence[tf.TensorSpec],
    carry: Sequence[tf.Tensor] = (),
    jit: bool = False,
    most: int | None = None,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns the results of function(*rows, *carry) -> (results, carry) for all rows, and the last carry.

    Blocks have equal sizes, but the last may be smaller. With `jit` XLA compiles one block per size, and sizes are
    powers of two: the last block is padded with rows of zeros, which must not change the carry.

    Args:
      function: what is computed of a block.
      arrays: `[n, ...]` each, n static or not.
      results: shape and dtype of one row of each result.
      carry: what is passed from block to block, of fixed shapes.
      jit: whether to compile blocks with XLA.
      most: the largest n, if it is known; if it fits into one block, there is no loop.
    """
    rows = tf.shape(arrays[0])[0]
    blocks = tf.maximum(1, -(-rows // ROWS))
    size = -(-rows // blocks)
    if jit:
        powers = [FEWEST << i for i in range((ROWS // FEWEST).bit_length())]
        size = tf.gather(powers, tf.searchsorted(powers, [size])[0])
        function = tf.function(function, jit_compile=True, autograph=False)

    def block(i, carry, gathered):
        begin = i * size
        here = [array[begin : begin + size] for array in arrays]
        count = tf.shape(here[0])[0]
        if jit:
            here = [_padded(part, size) for part in here]
        made, carry = function(*here, *carry)
        if jit:
            made = [part[:count] for part in made]
        return i + 1, list(carry), [array.write(i, part) for array, part in zip(gathered, made, strict=True)]

    if most is not None and most <= ROWS and not jit:
        made, carry = function(*arrays, *carry)
        return list(made), list(carry)
    gathered = [
        tf.TensorArray(r.dtype, size=blocks, element_shape=[None, *r.shape], infer_shape=False) for r in results
    ]
    _, carry, gathered = tf.while_loop(
        lambda i, *_: i < blocks, block, (0, list(carry), gathered), parallel_iterations=1
    )
    return [array.concat() for array in gathered], carry


def _padded(rows: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    spare = tf.concat([[size - tf.shape(rows)[0]], tf.shape(rows)[1:]], axis=0)
    return tf.concat([rows, tf.zeros(spare, rows.dtype)], axis=0)
