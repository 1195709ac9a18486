"""The decoder's LSTM over captions of different lengths: no step is computed beyond a caption's end.

What the words read add to the gates is one product over all packed words, made by the caller; here is only what must
go step by step. Going back, the recurrent kernel's gradient is one product over all packed words too, not one a step.

Shapes: N captions, T steps, n packed words (models/packing.py), H units; gates in the order of keras.layers.LSTM:
input, forget, candidate, output.
"""

import tensorflow as tf

from spidercap.models.packing import Packing
from spidercap.models.precision import product


def gated(gates: tf.Tensor, cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns hidden state `[N, H]`, cell state `[N, H]` and open gates `[N, 4H]` of the gates' sums `[N, 4H]`.

    Source: Hochreiter, Schmidhuber, "Long short-term memory" (1997), with the forget gate of Gers et al. (2000).
    """
    with tf.name_scope("lstm"):  # profiles tell its operations by that
        enter, keep, candidate, leave = tf.split(gates, 4, axis=1)
        enter, keep, candidate, leave = tf.sigmoid(enter), tf.sigmoid(keep), tf.tanh(candidate), tf.sigmoid(leave)
        cell = keep * cell + enter * candidate
        return leave * tf.tanh(cell), cell, tf.concat([enter, keep, candidate, leave], axis=1)


def packed_lstm(
    inputs: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, kernel: tf.Tensor, packing: Packing, precision: tf.DType
) -> tf.Tensor:
    """Returns the hidden states `[n, H]` that follow the packed words.

    Args:
      inputs: `[n, 4H]`, what the words add to the gates, bias included.
      hidden: `[N, H]`, before the first word; likewise `cell`.
      kernel: `[H, 4H]`, the recurrent one.
      precision: of the products.
    """
    units = cell.shape[1]
    ends = tf.cumsum(packing.counts)
    begins = ends - packing.counts

    @tf.custom_gradient
    def run(inputs, hidden, cell, kernel):
        hidden, cell = tf.gather(hidden, packing.order), tf.gather(cell, packing.order)
        after, cells, gates = _forward(inputs, hidden, cell, kernel, packing.counts, begins, precision)
        # State 0.. of the list are the starts, then come those after each packed word.
        starts = tf.shape(hidden)[0]
        steps = packing.index[:, 1]
        place = tf.range(tf.shape(after)[0]) - tf.gather(begins, steps)
        before = tf.gather(tf.concat([[0], starts + begins[:-1]], axis=0), steps) + place

        def gradient(upstream):
            cells_before = tf.gather(tf.concat([cell, cells], axis=0), before)
            sums, first_hidden, first_cell = _backward(
                tf.convert_to_tensor(upstream), gates, cells, cells_before, kernel, packing.counts, begins, precision
            )
            hidden_before = tf.gather(tf.concat([hidden, after], axis=0), before)
            kernel_gradient = product(hidden_before, sums, precision, transpose_a=True)
            with tf.control_dependencies([kernel_gradient]):  # before the caller's products, or both take longer
                sums = tf.identity(sums)
            # Captions without a word, if any, come last.
            spare = [[0, starts - tf.shape(first_cell)[0]], [0, 0]]
            back = tf.argsort(packing.order)
            return (
                sums,
                tf.gather(tf.pad(first_hidden, spare), back),
                tf.gather(tf.pad(first_cell, spare), back),
                kernel_gradient,
            )

        return tf.ensure_shape(after, [None, units]), gradient

    return run(inputs, hidden, cell, kernel)


def _forward(inputs, hidden, cell, kernel, counts, begins, precision):
    """Hidden and cell states after each packed word, `[n, H]`, and the open gates `[n, 4H]`."""
    steps, units = _steps(counts), cell.shape[1]

    def advance(t, hidden, cell, states, cells, gates):
        count = counts[t]
        sums = inputs[begins[t] : begins[t] + count] + product(hidden[:count], kernel, precision)
        hidden, cell, opened = gated(sums, cell[:count])
        return t + 1, hidden, cell, states.write(t, hidden), cells.write(t, cell), gates.write(t, opened)

    def array(width):
        return tf.TensorArray(tf.float32, size=steps, element_shape=[None, width], infer_shape=False)

    rows = tf.TensorShape([None, units])
    start = (0, hidden, cell, array(units), array(units), array(4 * units))
    *_, states, cells, gates = tf.while_loop(
        lambda t, *_: t < steps,
        advance,
        start,
        shape_invariants=(tf.TensorShape([]), rows, rows, *(tf.TensorShape(None) for _ in range(3))),
    )
    return states.concat(), cells.concat(), gates.concat()


def _backward(upstream, gates, cells, cells_before, kernel, counts, begins, precision):
    """Gradients of the gates' sums `[n, 4H]` and of the first hidden and cell states `[N, H]`, in packed order."""
    steps, units = _steps(counts), cells.shape[1]

    def retreat(t, hidden, cell, sums):
        """`hidden` and `cell`: the gradients that come from later steps, of the captions that have them."""
        count = counts[t]
        new = [[0, count - tf.shape(hidden)[0]], [0, 0]]
        here = slice(begins[t], begins[t] + count)
        enter, keep, candidate, leave = tf.split(gates[here], 4, axis=1)
        hidden = upstream[here] + tf.pad(hidden, new)
        squashed = tf.tanh(cells[here])
        cell = tf.pad(cell, new) + hidden * leave * (1 - squashed * squashed)
        back = tf.concat(
            [
                cell * candidate * enter * (1 - enter),
                cell * cells_before[here] * keep * (1 - keep),
                cell * enter * (1 - candidate * candidate),
                hidden * squashed * leave * (1 - leave),
            ],
            axis=1,
        )
        hidden = product(back, turned, precision)
        return t - 1, hidden, cell * keep, sums.write(t, back)

    turned = tf.transpose(kernel)  # once: a product that turns it takes longer than its few rows do
    sums = tf.TensorArray(tf.float32, size=steps, element_shape=[None, 4 * units], infer_shape=False)
    rows = tf.TensorShape([None, units])
    none = tf.zeros([0, units])
    _, hidden, cell, sums = tf.while_loop(
        lambda t, *_: t >= 0,
        retreat,
        (steps - 1, none, none, sums),
        shape_invariants=(tf.TensorShape([]), rows, rows, tf.TensorShape(None)),
    )
    return sums.concat(), hidden, cell


def _steps(counts: tf.Tensor) -> tf.Tensor:
    """Steps that have a word; one, without words, where there is none, as lists of nothing cannot be put together."""
    return tf.maximum(1, tf.math.count_nonzero(counts, dtype=tf.int32))
