"""From pixels to token ids as one graph of plain operations, which converters to other formats can read."""

import keras
import tensorflow as tf

from spidercap.models.captioner import Captioner
from spidercap.models.fixed_greedy import fixed_greedy


def plain_variables(encoder: keras.Model | None, captioner: Captioner) -> list[tf.Variable]:
    """Returns the variables of both, each once: layers of the encoder that were tuned are a part of both."""
    variables = [*(encoder.variables if encoder else ()), *captioner.variables]
    return [variable.value for variable in {id(v): v for v in variables}.values()]


class PixelsGraph(tf.Module):
    """`pixels` float32 `[N, S, S, 3]` in 0..255, resized and not cropped -> `ids` int32 `[N, T]`, `log_prob` `[N]`.

    Captions are greedy. They have no strings in the graph: a word is found by its id in the vocabulary.
    """

    def __init__(self, encoder: keras.Model, captioner: Captioner, max_length: int):
        super().__init__()
        self.weights = plain_variables(encoder, captioner)  # where converters look for them
        self.image_size, self.max_length = encoder.input_shape[1], max_length

        def pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            ids, log_prob = fixed_greedy(*captioner.begin(encoder(pixels, training=False)), max_length)
            return {"ids": ids, "log_prob": log_prob}

        spec = tf.TensorSpec([None, self.image_size, self.image_size, 3], tf.float32, name="pixels")
        self.pixels = tf.function(pixels, input_signature=[spec], autograph=False)
