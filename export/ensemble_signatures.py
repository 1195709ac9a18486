"""Several captioners served as one in this process: signatures as those of an exported model, which are not written."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from spidercap.export.server import DEFAULT, SEEDED, Outputs, encoded_rows, finite_rows, outputs_of
from spidercap.models.captioner import Captioner, mean_of_parts
from spidercap.models.decoder import Decoder
from spidercap.models.ensemble import Ensemble
from spidercap.models.sampling import uniforms_of_each


class Member(NamedTuple):
    """A captioner and the encoder that it sees images by; None if it takes features."""

    encoder: keras.Model | None
    captioner: Captioner


def ensemble_signatures(
    members: Sequence[Member], words: Sequence[str], max_length: int, decoder: Decoder, max_pixels: int
) -> Mapping[str, tf.types.experimental.ConcreteFunction]:
    """Returns `serving_default`; `features` if the members take features; and `seeded` if the decoder draws.

    Their inputs and outputs are those of server.py. An encoder that several members share runs once.

    Args:
      members: all with an encoder, or none of them.
      words: the vocabulary, which is that of all members.
      max_length: T.
      decoder: how captions are decoded.
      max_pixels: images of more are not decoded.
    """
    ensemble = Ensemble([member.captioner for member in members])
    texts = tf.constant(list(words))
    from_features = members[0].encoder is None

    def captions(seed: tf.Tensor | None = None, **given: tf.Tensor) -> Outputs:
        features, error = _given(members, **given) if from_features else _encoded(members, max_pixels, **given)
        uniform = None if seed is None else uniforms_of_each(seed, decoder.n_best, max_length)
        return outputs_of(decoder.captions(ensemble, features, max_length, uniform), error, texts, decoder.n_best)

    spec = _features_spec(members) if from_features else tf.TensorSpec([None], tf.string, name="image_bytes")
    # By name, as those of a loaded model.
    function = tf.function(captions, autograph=False)
    found = {DEFAULT: function.get_concrete_function(**{spec.name: spec})}
    if from_features:
        found["features"] = found[DEFAULT]
    if decoder.draws:
        seeds = tf.TensorSpec([None], tf.int64, name="seed")
        by_seed = tf.function(lambda **given: captions(**given), autograph=False)
        found[SEEDED] = by_seed.get_concrete_function(**{spec.name: spec, "seed": seeds})
    return found


def _features_spec(members: Sequence[Member]) -> tf.TensorSpec:
    parts = [None] if any(member.captioner.takes_parts for member in members) else []
    size = members[0].captioner.feature_mean.shape[0]
    return tf.TensorSpec([None, *parts, size], tf.float32, name="features")


def _encoded(members: Sequence[Member], max_pixels: int, image_bytes: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The features of encoded images for each member, and why a row has none."""
    encoders = {id(member.encoder): member.encoder for member in members}
    rows = {key: encoded_rows(encoder, image_bytes, max_pixels) for key, encoder in encoders.items()}
    return [rows[id(member.encoder)].features for member in members], next(iter(rows.values())).error


def _given(members: Sequence[Member], features: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Given features for each member: the mean of parts `[N, P, F]` for those that take none."""
    rows = finite_rows(features)
    found = [
        mean_of_parts(rows.features) if features.shape.rank == 3 and not member.captioner.takes_parts else rows.features
        for member in members
    ]
    return found, rows.error
