"""An untrained captioner whose captions have the lengths of a trained one's, on which the cost of a step depends.

One unit is a clock, which no other unit reads. Of all tokens only the end token reads it, whose logit is SLOPE times
the clock plus a bias. In an LSTM its gates are open, so that its cell grows by the same amount at each step, and it is
tanh(cell); what is seen of the image's parts adds nothing to it. In a Transformer it is a slow sine of the position, to
which no layer adds anything. The logits of other tokens have the std LOGIT_STD, so that a token is about as uncertain
as a trained captioner's. The bias is found by bisection, so that sampled captions have MEAN tokens when they are cut at
CUT; captions with T > CUT have the same weights. Lengths have a std of about 2.5, and about one caption in a hundred is
cut, because tanh flattens.

Shapes: I images, R references per image, N captions, P parts, F features, H units, V tokens, T steps.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from spidercap.models.attention import AttentionCaptioner
from spidercap.models.captioner import Captioner
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.packing import pack
from spidercap.models.special_tokens import END, FORBIDDEN_LOGIT, PAD, SPECIAL_TOKENS, START
from spidercap.models.transformer import TransformerCaptioner, positions

MEAN, CUT = 10.0, 20  # tokens of a caption, the end token counted
LOGIT_STD = 4.0
RATE, SLOPE, OPEN = 0.275, 40.0, 10.0  # the clock's growth per step, its weight in the end's logit, bias of its gates
SLOW, SINE_SLOPE = 0.08, 8.0  # of a Transformer's clock: radians per step, about, and the weight
EMBEDDING = 2.0  # std
PROBES = 256  # captions from which the bias is computed
REFERENCES = 5


@dataclasses.dataclass(frozen=True)
class Lifelike:
    """A captioner, and data to train it; all captions have the lengths of captions that it samples."""

    captioner: Captioner
    features: np.ndarray  # float32 [I, F] or [I, P, F]
    captions: np.ndarray  # int32 [I, T]: for likelihood, each with the end token or cut
    references: np.ndarray  # int32 [I, R, T]: for rewards
    length_shares: np.ndarray  # float64 [CUT]: of sampled captions with 1, 2, .. tokens, cut at CUT


def lifelike(
    vocabulary_size: int,
    units: int,
    features: int,
    images: int,
    max_length: int,
    seed: int = 0,
    kind: str = "lstm",
    parts: int = 1,
) -> Lifelike:
    """Returns a captioner of CAPTIONERS of these sizes with an embedding of H, and captions by Zipf's law.

    Args:
      parts: P, for captioners that attend to parts.
    """
    rng = np.random.default_rng(seed)
    captioner = CAPTIONERS[kind](vocabulary_size, features, units, units, dropout=0.3, max_length=max(max_length, CUT))
    shape = (images, parts, features) if captioner.takes_parts else (images, features)
    vectors = rng.normal(size=shape).astype(np.float32)
    probes = tf.constant(vectors[np.arange(PROBES) % images])
    has_cell = isinstance(captioner, LstmCaptioner)
    clock = _set_cell(captioner, rng) if has_cell else _set_positions(captioner)
    scale = LOGIT_STD / (_hidden_size(captioner, probes, rng, clock) * np.sqrt(units))
    _set_words(captioner, rng, clock, scale, SLOPE if has_cell else SINE_SLOPE)
    odds = _end_odds(captioner, probes, seed)
    bias = _bisected(odds)
    captioner.words.bias.assign(np.where(np.arange(vocabulary_size) == END, bias, 0.0))
    shares = length_shares(odds, bias)
    captions = _captions(rng, (1 + REFERENCES) * images, vocabulary_size, max_length, shares)
    return Lifelike(
        captioner, vectors, captions[:images], captions[images:].reshape(images, REFERENCES, max_length), shares
    )


def length_shares(odds: np.ndarray, bias: float) -> np.ndarray:
    """Returns float64 `[T]`: the shares of captions of 1..T tokens, those that are cut counted as T.

    The t-th token of caption n is the end with log odds `odds` `[N, T]` + `bias`, if no earlier one was.
    """
    end = 1 / (1 + np.exp(-(odds + bias)))
    going = np.cumprod(1 - end, axis=1)
    before = np.concatenate([np.ones([len(odds), 1]), going[:, :-1]], axis=1)
    shares = before * end
    shares[:, -1] = before[:, -1]
    return shares.mean(axis=0)


def mean_and_std(shares: np.ndarray) -> tuple[float, float]:
    """Returns mean and std of lengths 1, 2, .. with these shares."""
    lengths = np.arange(1, len(shares) + 1)
    mean = shares @ lengths
    return float(mean), float(np.sqrt(shares @ (lengths - mean) ** 2))


def _set_cell(captioner: LstmCaptioner, rng: np.random.Generator) -> int:
    """Makes unit 0 the clock, and returns 0. The other units depend strongly on tokens, and not on the clock.

    Keras's columns are those of the gates input, forget, cell, output, H each.
    """
    cell, units = captioner.lstm.cell, captioner.lstm.units
    clock = np.arange(4) * units
    kernel, recurrent, bias = (x.numpy() for x in (cell.kernel, cell.recurrent_kernel, cell.bias))
    kernel[:, clock] = recurrent[:, clock] = recurrent[0] = 0
    bias[clock] = [OPEN, OPEN, np.arctanh(RATE), OPEN]
    for variable, value in ((cell.kernel, kernel), (cell.recurrent_kernel, recurrent), (cell.bias, bias)):
        variable.assign(value)
    embedding = captioner.embedding.embeddings
    embedding.assign(rng.normal(0, EMBEDDING, embedding.shape))
    _without(captioner.image, 0)
    if isinstance(captioner, AttentionCaptioner):
        _without(captioner.value, 0)
    return 0


def _set_positions(captioner: TransformerCaptioner) -> int:
    """Makes the unit of a sine of about SLOW the clock, and returns its number."""
    phases = positions(tf.constant([1]), captioner.units).numpy()[0, : captioner.units // 2]
    clock = int(np.abs(np.arcsin(phases) - SLOW)[1:].argmin()) + 1  # unit 0 is the sine of a radian per step
    for layer in (captioner.token, *(layer for block in captioner.blocks for layer in block.summands)):
        _without(layer, clock)
    return clock


def _without(layer: keras.layers.Dense, unit: int) -> None:
    """Sets to zero what a layer adds to a unit."""
    kernel = layer.kernel.numpy()
    kernel[:, unit] = 0
    layer.kernel.assign(kernel)


def _set_words(captioner: Captioner, rng: np.random.Generator, clock: int, scale: float, slope: float) -> None:
    kernel = rng.normal(0, scale, captioner.words.kernel.shape).astype(np.float32)
    kernel[clock] = kernel[:, END] = 0
    kernel[clock, END] = slope
    captioner.words.kernel.assign(kernel)


def _hidden_size(captioner: Captioner, features: tf.Tensor, rng: np.random.Generator, clock: int) -> float:
    """The root mean square of hidden units without the clock, after uniformly drawn tokens."""
    words = rng.integers(len(SPECIAL_TOKENS), captioner.embedding.input_dim, [len(features), CUT], dtype=np.int32)
    hidden = captioner.hidden(features, tf.constant(words), pack(tf.constant(words))).numpy()
    return float(np.square(np.delete(hidden, clock, axis=1)).mean()) ** 0.5


def _end_odds(captioner: Captioner, features: tf.Tensor, seed: int) -> np.ndarray:
    """Float64 `[N, CUT]`: the end's log odds with bias 0 at each token of sampled captions that never end."""
    step, state = captioner.begin(features)
    words, odds = tf.fill([len(features)], START), []
    for t in range(CUT):
        state, logits = step(state, words)
        others = tf.where(tf.range(logits.shape[1]) == END, FORBIDDEN_LOGIT, logits)
        odds.append((logits[:, END] - tf.reduce_logsumexp(others, axis=1)).numpy())
        words = tf.random.stateless_categorical(others, 1, [seed, t], dtype=tf.int32)[:, 0]
    return np.stack(odds, axis=1).astype(np.float64)


def _bisected(odds: np.ndarray) -> float:
    """The bias with which captions have MEAN tokens."""
    low, high = -100.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        longer = mean_and_std(length_shares(odds, middle))[0] > MEAN
        low, high = (middle, high) if longer else (low, middle)
    return high


def _captions(rng: np.random.Generator, count: int, vocabulary_size: int, cut: int, shares: np.ndarray) -> np.ndarray:
    """Int32 `[count, cut]`; the k-th word of the vocabulary has a probability proportional to about 1 / k."""
    lengths = rng.choice(np.arange(1, len(shares) + 1), size=count, p=shares)[:, None]
    drawable = vocabulary_size - len(SPECIAL_TOKENS)
    words = len(SPECIAL_TOKENS) - 1 + (drawable + 1) ** rng.random([count, cut])
    place = np.arange(1, cut + 1)
    ends = (place == lengths) & (lengths < CUT)
    return np.where(ends, END, np.where(place <= lengths, words.astype(np.int32), PAD)).astype(np.int32)
