"""The captioner's teacher-forced pass as Keras and differentiation make it: every place of `[N, T]`, padding too."""

import numpy as np
import tensorflow as tf

from spidercap.models.attention import AttentionCaptioner
from spidercap.models.special_tokens import FORBIDDEN, START
from spidercap.models.transformer import TransformerCaptioner


def hidden(captioner, features, words):
    """Hidden states `[N, T, H]`; the one at t has read the words before t."""
    if isinstance(captioner, TransformerCaptioner):
        return through_layers(captioner, features, words)
    words = tf.convert_to_tensor(words)
    read = tf.concat([tf.fill([words.shape[0], 1], START), words[:, :-1]], axis=1)
    start = list(captioner.begin(tf.convert_to_tensor(features))[1])
    states = captioner.lstm(captioner.embedding(read), initial_state=start[:2])
    return states + seen(captioner, features, states) if isinstance(captioner, AttentionCaptioner) else states


def attention_weights(captioner, features, words):
    """By caption the weights `[T, P']` of the parts that there are; of a Transformer the mean over its layers."""
    weights = []
    if isinstance(captioner, TransformerCaptioner):
        through_layers(captioner, features, words, weights)
        of_caption = len(captioner.blocks)
        return [np.mean(weights[i : i + of_caption], axis=0) for i in range(0, len(weights), of_caption)]
    words = tf.convert_to_tensor(words)
    read = tf.concat([tf.fill([words.shape[0], 1], START), words[:, :-1]], axis=1)
    start = list(captioner.begin(tf.convert_to_tensor(features))[1])
    seen(captioner, features, captioner.lstm(captioner.embedding(read), initial_state=start[:2]), weights)
    steps = words.shape[1]
    return [np.stack(weights[i : i + steps]) for i in range(0, len(weights), steps)]


def seen(captioner, features, states, weights=None):
    """What hidden states `[N, T, H]` see of features `[N, P, F]`, one after the other: `[N, T, H]`.

    The weights of the parts are added to the list `weights`.
    """
    found = []
    for vectors, of_caption in zip(features, states, strict=True):
        parts = tf.boolean_mask(vectors, tf.reduce_any(vectors != 0, axis=1))
        parts = (parts - captioner.feature_mean) / captioner.feature_deviation
        for hidden in of_caption:
            query = tf.linalg.matvec(captioner.query.kernel, hidden, transpose_a=True)
            scores = tf.linalg.matvec(parts @ captioner.key.kernel, query) / hidden.shape[0] ** 0.5
            values = parts @ captioner.value.kernel + captioner.value.bias
            found.append(tf.linalg.matvec(values, tf.nn.softmax(scores), transpose_a=True))
            if weights is not None:
                weights.append(tf.nn.softmax(scores).numpy())
    return tf.reshape(tf.stack(found), states.shape)


def logits(captioner, states):
    """Logits `[n, V]` of hidden states `[n, H]`."""
    unsayable = tf.reduce_sum(tf.one_hot(FORBIDDEN, captioner.words.units), axis=0)
    return captioner.words(states) - 1e9 * unsayable


def log_probs(captioner, states, words, smoothing=0.0):
    """log pi(word | hidden) `[n]`."""
    log_pi = tf.nn.log_softmax(logits(captioner, states))
    chosen = tf.gather(log_pi, words, batch_dims=1)
    sayable = [w for w in range(captioner.words.units) if w not in FORBIDDEN]
    return (1 - smoothing) * chosen + smoothing * tf.reduce_mean(tf.gather(log_pi, sayable, axis=1), axis=1)


def through_layers(captioner, features, words, weights=None):
    """Hidden states `[N, T, H]` of a Transformer of one head, image by image, as its equations are written.

    The weights `[T, P]` of the parts of each image and layer are added to the list `weights`.
    """
    found, units = [], captioner.units
    for vectors, caption in zip(features, np.asarray(words), strict=True):
        parts = tf.boolean_mask(vectors, tf.reduce_any(vectors != 0, axis=1))
        parts = captioner.part((parts - captioner.feature_mean) / captioner.feature_deviation)
        read = captioner.token(captioner.embedding(np.concatenate([[START], caption[:-1]])))
        rates = [10_000.0 ** (-i / units) for i in range(0, units, 2)]
        waves = [[f(t * rate) for f in (np.sin, np.cos) for rate in rates][:units] for t in range(len(caption))]
        values = read + np.array(waves, np.float32)
        for block in captioner.blocks:
            first, second, third = block.norm0, block.norm1, block.norm2
            query, key, value = tf.split(block.tokens(first(values)), 3, axis=1)
            scores = query @ tf.transpose(key) / units**0.5 + np.triu(
                np.full([len(caption)] * 2, -np.inf, np.float32), 1
            )
            values += block.seen_tokens(tf.nn.softmax(scores) @ value)
            key, value = tf.split(block.parts(parts), 2, axis=1)
            scores = block.query(second(values)) @ tf.transpose(key) / units**0.5
            values += block.seen_parts(tf.nn.softmax(scores) @ value)
            if weights is not None:
                weights.append(tf.nn.softmax(scores).numpy())
            values += block.narrow(tf.nn.gelu(block.wide(third(values)), approximate=True))
        found.append(captioner.norm(values))
    return tf.stack(found)
