"""What an exported model does, as graphs: image bytes -> pixels -> features -> tokens -> text.

Every output has one row per image or caption of the request. A row that cannot be served says why in `error`, and its
other outputs are those of nothing: '' and 0. The other rows are the same with it and without it. All numbers are
finite, because servers write NaN and infinity as invalid JSON.

Shapes: N rows, F features, T tokens, n captions of an image.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from spidercap.export.pixels_graph import PixelsGraph, plain_variables
from spidercap.models.captioner import Captioner, present
from spidercap.models.decoder import BEAM, GREEDY, Captions, Decoder
from spidercap.models.decoding import lengths
from spidercap.models.images import decode_or_fault, resize_image
from spidercap.models.packing import pack
from spidercap.models.sampling import uniforms_of_each
from spidercap.models.special_tokens import END, PAD, SPECIAL_TOKENS
from spidercap.models.word_loss import log_probs

DEFAULT = "serving_default"
SEEDED = "seeded"  # of decoders that draw: as DEFAULT, but drawn by a seed of each row
BEAM_WIDTH = 5  # of the signature `beam`, if the model is not exported with beam search
MISSING = -1e9  # log-probability in place of a caption that beam search did not find
NOT_FINITE = "holds NaN or infinite numbers"
NO_PARTS = "has no part that is not all 0"
_ENCODED = tf.TensorSpec([None], tf.string, name="image_bytes")
PUNCTUATION = r'[.,!?;:"]'  # that `score` takes for a blank

Outputs = dict[str, tf.Tensor]
Served = Mapping[str, tf.types.experimental.ConcreteFunction]


class Rows(NamedTuple):
    """Features of N rows, and why a row has none."""

    features: tf.Tensor  # float32 [N, F] or [N, P, F]; finite also where there is an error
    error: tf.Tensor  # string [N]; '' if nothing is wrong


class Server(tf.Module):
    """The graphs and the variables that they read; `served` are the functions that are served."""

    def __init__(
        self,
        encoder: keras.Model | None,
        captioner: Captioner,
        words: Sequence[str],
        max_length: int,
        decoder: Decoder,
        max_pixels: int,
    ):
        """Without an encoder, it takes features alone."""
        super().__init__()
        # The plain variables, not the Keras objects. Variables that Keras tracks are restored in TensorFlow 2, but not
        # by the loader of model servers, which finds variables without a value.
        self.weights = plain_variables(encoder, captioner)
        self.words = tf.Variable(list(words), trainable=False)
        # In namespaces, which are not tracked. As attributes of the module, the weights of both would be saved twice,
        # and the functions, which are saved as signatures, would be traced and saved once more.
        self._models = types.SimpleNamespace(encoder=encoder, captioner=captioner)
        self._max_length, self._max_pixels = max_length, max_pixels
        known = range(len(SPECIAL_TOKENS), len(words))  # a special token is no word, however it is spelt
        table = tf.lookup.KeyValueTensorInitializer([words[i] for i in known], list(known), value_dtype=tf.int32)
        self.ids = tf.lookup.StaticHashTable(table, PAD)
        beam = decoder if decoder.decode == BEAM else Decoder(BEAM, BEAM_WIDTH)
        self._decoders = {
            DEFAULT: decoder,
            GREEDY: Decoder(),
            BEAM: dataclasses.replace(beam, n_best=beam.beam_width),
        }
        self._graphs = types.SimpleNamespace()
        if encoder is not None:
            # One function for all signatures, so that the encoder's graph is in the file once.
            self._graphs.of_images = _function(self._rows, _ENCODED)
        self._graphs.served = self._functions()

    def served(self) -> Served:
        """Returns the functions that are served, by the name of their signature."""
        return self._graphs.served

    def _functions(self) -> Served:
        captioner = self._models.captioner
        shape = [None, None] if captioner.takes_parts else [None]
        features = tf.TensorSpec([*shape, captioner.feature_mean.shape[0]], tf.float32, name="features")
        caption = tf.TensorSpec([None], tf.string, name="caption")
        decoder = self._decoders[DEFAULT]
        from_features = _function(lambda features: self._captions(finite_rows(features), decoder), features)
        seeds = tf.TensorSpec([None], tf.int64, name="seed")
        if self._models.encoder is None:
            by_seed = _function(
                lambda features, seed: self._captions(finite_rows(features), decoder, seed), features, seeds
            )
            drawn = {SEEDED: by_seed} if decoder.draws else {}
            return drawn | {DEFAULT: from_features, "features": from_features}

        of_images, encoded = self._graphs.of_images, _ENCODED

        def captions_by(decoder: Decoder) -> Callable[[tf.Tensor], Outputs]:
            return lambda image_bytes: self._captions(of_images(image_bytes), decoder)

        # Equal decoders are one graph: each takes a part of a second to load.
        by_decoder = {d: _function(captions_by(d), encoded) for d in self._decoders.values()}
        found = {name: by_decoder[d] for name, d in self._decoders.items()}
        if decoder.draws:
            found[SEEDED] = _function(
                lambda image_bytes, seed: self._captions(of_images(image_bytes), decoder, seed), encoded, seeds
            )
        plain = PixelsGraph(self._models.encoder, self._models.captioner, self._max_length).pixels
        return found | {
            "features": from_features,
            "pixels": _function(lambda pixels: _never_empty(plain, pixels), *plain.input_signature),
            "encode": _function(lambda image_bytes: of_images(image_bytes)._asdict(), encoded),
            "score": _function(
                lambda image_bytes, caption: self._score(of_images(image_bytes), caption), encoded, caption
            ),
        }

    def _rows(self, image_bytes: tf.Tensor) -> Rows:
        return encoded_rows(self._models.encoder, image_bytes, self._max_pixels)

    def _captions(self, rows: Rows, decoder: Decoder, seeds: tf.Tensor | None = None) -> Outputs:
        """The captions of each row; those that are drawn, by its seed, or anew at each call."""
        length = self._max_length
        uniform = None if seeds is None else uniforms_of_each(seeds, decoder.n_best, length)
        found: Captions = decoder.captions(self._models.captioner, rows.features, length, uniform)
        return outputs_of(found, rows.error, self.words, decoder.n_best)

    def _score(self, rows: Rows, captions: tf.Tensor) -> Outputs:
        """The log-probability of each row's caption, the end token counted."""
        split = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(captions, "utf-8"), PUNCTUATION, " "))
        words = split.to_tensor("", shape=[None, self._max_length - 1])
        ids, count = self.ids.lookup(words), tf.cast(split.row_lengths(), tf.int32)
        unknown = (words != "") & (ids == PAD)
        first = tf.gather(words, tf.argmax(unknown, 1), batch_dims=1)
        error = _first(
            rows.error,
            tf.where(count >= self._max_length, f"the caption has more than {self._max_length - 1} words", ""),
            tf.where(tf.reduce_any(unknown, 1), tf.strings.join(['the captioner has no word "', first, '"']), ""),
        )
        fine = error == ""
        # Rows with an error are the empty caption.
        ids, count = tf.where(fine[:, None], ids, PAD), tf.where(fine, count, 0)
        tokens = tf.pad(ids, [[0, 0], [0, 1]]) + END * tf.one_hot(count, self._max_length, dtype=tf.int32)
        packing = pack(tokens)
        hidden = self._models.captioner.hidden(rows.features, tokens, packing)
        each = log_probs(self._models.captioner.projection(), hidden, packing.of(tokens))
        total = tf.math.unsorted_segment_sum(each, packing.index[:, 0], tf.shape(tokens)[0])
        return {
            "log_prob": tf.where(fine, _floored(total), 0.0),
            "length": tf.where(fine, count + 1, 0),
            "error": error,
        }


def encoded_rows(encoder: keras.Model, image_bytes: tf.Tensor, max_pixels: int) -> Rows:
    """Returns the features of encoded images, string `[N]`; images of more than `max_pixels` are not decoded."""
    size = encoder.input_shape[1]

    def read(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, fault = decode_or_fault(one, max_pixels)
        return resize_image(image, size), fault

    specs = tf.TensorSpec([size, size, 3], tf.float32), tf.TensorSpec([], tf.string)
    with tf.device("CPU"):
        pixels, error = tf.map_fn(read, image_bytes, fn_output_signature=specs)
    return Rows(_never_empty(lambda pixels: encoder(pixels, training=False), pixels), error)


def outputs_of(found: Captions, error: tf.Tensor, words: tf.Tensor | tf.Variable, n_best: int) -> Outputs:
    """Returns captions as texts, with what a signature tells of them.

    Args:
      found: captions of N images, n of each.
      error: string `[N]`; '' if nothing is wrong.
      words: string `[V]`.
      n_best: n.
    """
    fine = error == ""
    text = tf.where((found.tokens != PAD) & (found.tokens != END), tf.gather(words, found.tokens), "")
    captions = tf.strings.strip(tf.strings.reduce_join(text, axis=2, separator=" "))
    captions = tf.where(fine[:, None], captions, "")
    log_prob = tf.where(fine[:, None], _floored(found.log_prob), 0.0)
    length = tf.where(fine, lengths(found.tokens[:, 0]), 0)
    best = {"caption": captions[:, 0], "log_prob": log_prob[:, 0], "length": length, "error": error}
    return best if n_best == 1 else best | {"captions": captions, "log_probs": log_prob}


def _function(function: Callable, *arguments: tf.TensorSpec) -> tf.types.experimental.ConcreteFunction:
    return tf.function(function, input_signature=arguments, autograph=False).get_concrete_function()


def _never_empty(call: Callable, pixels: tf.Tensor) -> tf.Tensor | dict[str, tf.Tensor]:
    """call(pixels) of `[N, S, S, 3]`, which gets a black image if N is 0.

    Without images, optimised convolutions return the shape of their input, and the normalisation after them fails.
    """
    count = tf.shape(pixels)[0]
    padded = tf.pad(pixels, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
    return tf.nest.map_structure(lambda value: value[:count], call(tf.ensure_shape(padded, pixels.shape)))


def _floored(log_prob: tf.Tensor) -> tf.Tensor:
    """Log-probabilities of MISSING or more; NaN, as of features that are too large to compute with, is MISSING, too."""
    return tf.where(tf.math.is_nan(log_prob), MISSING, tf.maximum(log_prob, MISSING))


def finite_rows(features: tf.Tensor) -> Rows:
    """Returns given features `[N, F]` or `[N, P, F]`.

    Those of rows that are NaN or infinite are 0, with the reason; so have rows without a part, whose vectors are all 0.
    """
    fine = tf.reduce_all(tf.math.is_finite(features), range(1, features.shape.rank))
    nothing = tf.reshape(~fine, [-1] + [1] * (features.shape.rank - 1))
    error = tf.where(fine, "", NOT_FINITE)
    if features.shape.rank == 3:
        error = tf.where(tf.reduce_any(present(features), axis=1), error, NO_PARTS)
    return Rows(tf.where(nothing, 0.0, features), error)


def _first(*errors: tf.Tensor) -> tf.Tensor:
    """The first text of each row `[N]` that is not ''."""
    found = errors[0]
    for error in errors[1:]:
        found = tf.where(found == "", error, found)
    return found
