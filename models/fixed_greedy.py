"""Greedy decoding with fixed shapes, for formats that cannot drop rows from a loop, such as LiteRT and ONNX."""

import tensorflow as tf

from spidercap.models.categorical import best_token
from spidercap.models.decoding import State, Step, batch_size
from spidercap.models.special_tokens import END, PAD, START


def fixed_greedy(step: Step, state: State, max_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the captions `[N, T]` and log-probabilities `[N]` of `decoding.greedy`, always after T steps.

    No row leaves the batch. A caption that has ended reads padding, and what comes of it is masked.
    """
    count, rows = batch_size(state)
    places = tf.range(max_length)

    def body(t, state, tokens, going, captions, log_prob):
        state, logits = step(state, tokens)
        tokens, probability = best_token(logits)
        tokens = tf.where(going, tokens, PAD)
        captions = tf.where((places == t) & going[:, None], tokens[:, None], captions)
        log_prob += tf.where(going, tf.math.log(probability), 0.0)
        return t + 1, state, tokens, going & (tokens != END), captions, log_prob

    start = (0, state, tf.fill([count], START), tf.fill([count], True))
    start = (*start, tf.fill([count, max_length], PAD), tf.zeros([count]))
    *_, captions, log_prob = tf.while_loop(lambda t, *_: t < max_length, body, start)
    return tf.ensure_shape(captions, [rows, max_length]), log_prob
