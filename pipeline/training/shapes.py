"""Checks of shapes when a function is traced or called eagerly; a compiled step does not contain them."""

import numpy as np
import tensorflow as tf


def check_shapes(function: str, **arguments: tuple[tf.Tensor, str]) -> None:
    """Checks the arguments of a function against the shapes of its docstring.

        check_shapes("action_values", tokens=(tokens, "N T"), prefix=(prefix, "Q 2"), rewards=(rewards, "Q"))

    A letter is a size that must be the same everywhere, a number is that size, "" is a scalar. A size that is unknown
    when tracing matches any.

    Raises:
      ValueError: a shape differs; the message names the function, the argument, its shape and the expected one.
    """
    known: dict[str, int] = {}
    for name, (tensor, letters) in arguments.items():
        expected = letters.split()
        shape = tf.TensorShape(tensor.shape if hasattr(tensor, "shape") else np.shape(tensor))
        if shape.rank is None:
            continue
        sizes = [int(letter) if letter.isdigit() else known.get(letter) for letter in expected]
        if tensor is None or not shape.is_compatible_with(sizes):
            given = [f"{letter} = {known[letter]}" for letter in expected if letter in known]
            where = f" with {', '.join(given)}" if given else ""
            got = None if tensor is None else shape.as_list()
            raise ValueError(f"{function}: {name} must be [{', '.join(expected)}]{where}, got {got}")
        known |= {letter: size for letter, size in zip(expected, shape, strict=True) if size is not None}
