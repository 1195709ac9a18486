"""What queries see of values, by scaled products (Vaswani et al. 2017, eq. 1).

Shapes: N captions, S queries of each, K keys and values, H units.
"""

import tensorflow as tf

ABSENT = -1e9  # added to the score of what cannot be seen


def attended(queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, added: tf.Tensor, heads: int = 1) -> tf.Tensor:
    """Returns `[N, S, H]`, what queries `[N, S, H]` see of values `[N, K, H]`, in heads of H / `heads` units each.

    `added` to the scores, broadcast to `[N, S, K]`: ABSENT for what cannot be seen.
    """
    return attend(queries, keys, values, added, heads)[0]


def attend(
    queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, added: tf.Tensor, heads: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `attended` returns, and the weights `[N, heads, S, K]` of the values in it, which sum to 1."""
    queries, keys, values = (_in_heads(x, heads) for x in (queries, keys, values))
    scores = tf.matmul(queries, keys, transpose_b=True) * queries.shape[3] ** -0.5
    weights = tf.nn.softmax(scores + added[:, None])
    seen = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
    return tf.reshape(seen, [tf.shape(seen)[0], tf.shape(seen)[1], heads * seen.shape[3]]), weights


def _in_heads(values: tf.Tensor, heads: int) -> tf.Tensor:
    """`[N, heads, S, H / heads]` of `[N, S, H]`."""
    shape = [tf.shape(values)[0], tf.shape(values)[1], heads, values.shape[2] // heads]
    return tf.transpose(tf.reshape(values, shape), [0, 2, 1, 3])
