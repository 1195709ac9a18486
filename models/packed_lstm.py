"""An LSTM over captions of different lengths that computes nothing beyond a caption's end.

The caller multiplies all packed tokens with the input kernel at once; only the recurrent part runs step by step. In the
backward pass the recurrent kernel's gradient is one product over all packed tokens too, not one per step.

Shapes: N captions, T steps, n packed tokens (models/packing.py), H units. Gates are in the order of keras.layers.LSTM:
input, forget, candidate, output.
"""

import tensorflow as tf

from spidercap.models.packing import Packing
from spidercap.models.precision import product


def gated(gates: tf.Tensor, cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns hidden state `[N, H]`, cell state `[N, H]` and activated gates `[N, 4H]` of pre-activations `[N, 4H]`.

    Source: Hochreiter, Schmidhuber, "Long short-term memory" (1997), with the forget gate of Gers et al. (2000).
    """
    with tf.name_scope("lstm"):  # profiles recognise its operations by this name
        input_gate, forget_gate, candidate, output_gate = tf.split(gates, 4, axis=1)
        input_gate, forget_gate = tf.sigmoid(input_gate), tf.sigmoid(forget_gate)
        candidate, output_gate = tf.tanh(candidate), tf.sigmoid(output_gate)
        cell = forget_gate * cell + input_gate * candidate
        return output_gate * tf.tanh(cell), cell, tf.concat([input_gate, forget_gate, candidate, output_gate], axis=1)


def packed_lstm(
    inputs: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor, kernel: tf.Tensor, packing: Packing, precision: tf.DType
) -> tf.Tensor:
    """Returns the hidden states `[n, H]` after the packed tokens.

    Args:
      inputs: `[n, 4H]`, tokens times the input kernel, plus the bias.
      hidden: initial hidden state `[N, H]`.
      cell: initial cell state `[N, H]`.
      kernel: the recurrent kernel `[H, 4H]`.
      precision: of the matrix products.
    """
    units = cell.shape[1]
    ends = tf.cumsum(packing.counts)
    begins = ends - packing.counts

    @tf.custom_gradient
    def run(inputs, hidden, cell, kernel):
        # Or a tape that watches would build the loop's own gradient too, which nobody asks for.
        inputs, hidden, cell, kernel = (tf.stop_gradient(x) for x in (inputs, hidden, cell, kernel))
        hidden, cell = tf.gather(hidden, packing.order), tf.gather(cell, packing.order)
        after, cells, gates = _forward(inputs, hidden, cell, kernel, packing.counts, begins, precision)
        # In the list of states the N initial ones come first, then those after each packed token.
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
            # Captions without a token, if any, come last.
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
    """Hidden and cell states after each packed token, `[n, H]`, and the activated gates `[n, 4H]`."""
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
    """Gradients of pre-activations `[n, 4H]` and of initial hidden and cell states `[N, H]`, in packed order."""
    steps, units = _steps(counts), cells.shape[1]

    def retreat(t, hidden, cell, sums):
        """`hidden` and `cell`: gradients from later steps, for the captions that have later steps."""
        count = counts[t]
        new = [[0, count - tf.shape(hidden)[0]], [0, 0]]
        here = slice(begins[t], begins[t] + count)
        input_gate, forget_gate, candidate, output_gate = tf.split(gates[here], 4, axis=1)
        hidden = upstream[here] + tf.pad(hidden, new)
        squashed = tf.tanh(cells[here])
        cell = tf.pad(cell, new) + hidden * output_gate * (1 - squashed * squashed)
        back = tf.concat(
            [
                cell * candidate * input_gate * (1 - input_gate),
                cell * cells_before[here] * forget_gate * (1 - forget_gate),
                cell * input_gate * (1 - candidate * candidate),
                hidden * squashed * output_gate * (1 - output_gate),
            ],
            axis=1,
        )
        hidden = product(back, transposed, precision)
        return t - 1, hidden, cell * forget_gate, sums.write(t, back)

    transposed = tf.transpose(kernel)  # once: transposing it in each product would take longer than its few rows
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
    """The number of steps that have a token, at least one: a TensorArray without elements cannot be concatenated."""
    return tf.maximum(1, tf.math.count_nonzero(counts, dtype=tf.int32))
