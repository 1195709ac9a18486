"""What the frozen encoder sees in every picture, computed once and kept in the cache folder."""

import hashlib
import json
import pathlib
import warnings
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from models.encoder import build_encoder, decode_image, resize_image
from pipeline.config import Config
from pipeline.datasets.prepare import Data, image_records
from pipeline.errors import UserError
from pipeline.files import written_aside

ENCODER_SEED = 0  # of random weights, so that runs with different --seed share their features
BATCH = 64  # pictures; more is no faster, and takes the memory of small GPUs


def load_encoder(config: Config) -> keras.Model:
    """Returns the frozen encoder that the settings name.

    Raises:
      UserError: weights that are not there, or of another encoder.
    """
    weights = config.encoder_weights
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise UserError(f"--encoder_weights={weights} is no file; allowed: imagenet, random, or a .weights.h5 file")
    try:
        with warnings.catch_warnings():  # Keras warns of each layer before it refuses weights of another network
            warnings.simplefilter("ignore")
            return build_encoder(config.encoder, weights, config.image_size, ENCODER_SEED)
    except Exception as error:  # Keras raises anything from ValueError to a bare Exception here
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot build {config.encoder} with --encoder_weights={weights} and --image_size={config.image_size}: "
            f"{first_line}; give weights made for this encoder without its top, 'random', or another size"
        ) from error


def split_features(config: Config, data: Data, encoder: keras.Model, split: str) -> np.ndarray:
    """Returns float32 `[I, F]`, in the order of the split's records; from the cache where they are there."""
    return all_features(config, data, encoder, [split])[split]


def all_features(config: Config, data: Data, encoder: keras.Model, splits: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns `split_features` of each split by name."""
    folder = config.cache_path() / "features" / _key(config, data, encoder)
    # One function for all: tracing a deep network takes seconds. Nothing is traced where all is in the cache.
    shape = [None, config.image_size, config.image_size, 3]
    encode = tf.function(lambda images: encoder(images, training=False), input_signature=[tf.TensorSpec(shape)])
    for split in splits:
        path = folder / f"{split}.npy"
        if not path.exists():
            features = _compute(encode, image_records(data, split), config.image_size, split)
            with written_aside(path) as aside:
                np.save(aside, features)
    return {split: np.load(folder / f"{split}.npy") for split in splits}


def pixels(records: tf.data.Dataset, image_size: int) -> tf.data.Dataset:
    """Returns batches float32 `[<=BATCH, image_size, image_size, 3]` of encoded pictures, decoded in parallel."""
    decoded = records.map(lambda b: resize_image(decode_image(b), image_size), num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def _compute(encode: Callable, records: tf.data.Dataset, image_size: int, split: str) -> np.ndarray:
    count = int(records.cardinality())
    parts = []
    with tqdm(total=count, desc=f"features of {split}", unit="image", disable=None) as bar:
        if bar.disable:
            print(f"computing the features of {count} {split} pictures, once for all runs with this cache", flush=True)
        for images in pixels(records, image_size):
            parts.append(encode(images).numpy())
            bar.update(len(parts[-1]))
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise UserError(f"the encoder gives features that are no numbers for {split}; check --encoder_weights")
    return features


def _key(config: Config, data: Data, encoder: keras.Model) -> str:
    """Encoder, size and data by name, the weights by their contents."""
    # ImageNet's weights come with further layers in some networks, so equal weights are not all.
    imagenet = config.encoder_weights == "imagenet"
    digest = hashlib.sha256(json.dumps([config.encoder, imagenet, config.image_size, data.fingerprint]).encode())
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())
    return f"{config.encoder}-{config.image_size}-{digest.hexdigest()[:12]}"
