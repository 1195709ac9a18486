"""Features of the frozen encoder, computed once per image and stored in the cache folder.

Training images may have several views, to reduce overfitting. The first is the whole image, like validation images.
The others are crops, some of them mirrored.
"""

import hashlib
import itertools
import json
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spidercap.models.encoder import build_encoder
from spidercap.models.image_headers import LARGE, read_header
from spidercap.models.images import decode_image, draw_view, resize_image
from spidercap.pipeline.data.feature_store import SHARD, Features, FeatureStore
from spidercap.pipeline.data.records import Split, reading
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config

ENCODER_SEED = 0  # of random weights, so that runs with different --seed share features
BATCH = 64  # images; more is not faster, and may not fit into the memory of small GPUs


def load_encoder(config: Config) -> keras.Model:
    """Returns the frozen encoder that the settings name.

    Raises:
      UserError: the weights do not exist, or are those of another encoder.
    """
    weights = config.model.encoder_weights
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise UserError(f"--encoder_weights={weights} is not a file; allowed: imagenet, random, or a .weights.h5 file")
    try:
        with warnings.catch_warnings():  # Keras warns about each layer before it rejects weights of another network
            warnings.simplefilter("ignore")
            return build_encoder(config.model.encoder, weights, config.model.image_size, ENCODER_SEED)
    except Exception as error:  # Keras raises anything from ValueError to a bare Exception here
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "give weights made for this encoder without its top, 'random', or another size"
        if weights == "imagenet":
            remedy = (
                "ImageNet's weights are downloaded by Keras; without a network, bring the file "
                f"(keras.applications.{config.model.encoder}(include_top=False).save_weights('FILE.weights.h5') where "
                "there is one) and give --encoder_weights=FILE.weights.h5"
            )
        raise UserError(
            f"cannot build {config.model.encoder} with --encoder_weights={weights} and "
            f"--image_size={config.model.image_size}: {first_line}; {remedy}"
        ) from error


def all_features(
    config: Config, splits: Mapping[str, Split], encoder: keras.Model, views: Mapping[str, int]
) -> dict[str, Features]:
    """Returns features `[I, N, F]` by split, in the order of its records, with N = `views` of each image.

    Views in the cache are read. Others, and those whose shard is damaged, are computed and stored, a shard at a time.

    Raises:
      UserError: features are NaN or infinite.
    """
    folder = config.cache_path() / "features" / _key(config, encoder)
    # One function for all, because tracing a deep network takes seconds. It is traced only if something is computed.
    shape = [None, config.model.image_size, config.model.image_size, 3]
    encode = tf.function(lambda images: encoder(images, training=False), input_signature=[tf.TensorSpec(shape)])
    stores = [FeatureStore(folder / f"view{view}") for view in range(max(views.values(), default=0))]
    for name, split in splits.items():
        for view in range(views[name]):
            missing = stores[view].missing(split.keys)
            title = f"{name}, view {view + 1} of {views[name]}" if views[name] > 1 else name
            _fill(stores[view], encode, split, missing, config.model.image_size, view, title)
    return {name: _views(stores[: views[name]], split.keys) for name, split in splits.items()}


def pixels(records: tf.data.Dataset, keys: Sequence[str], image_size: int, view: int = 0) -> tf.data.Dataset:
    """Returns batches float32 `[<=BATCH, image_size, image_size, 3]` of encoded images, decoded in parallel.

    View 0 is the whole image; other views are drawn by their number and the image's key.
    """

    def seen(seed: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        image = decode_image(record)
        if view:
            image = draw_view(image, tf.stack([tf.constant(view, tf.int64), seed]))
        return resize_image(image, image_size)

    def small(seed: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Decodes an image, unless it is large."""
        large = read_header(record).pixels > LARGE
        none = lambda: tf.zeros([image_size, image_size, 3])  # noqa: E731
        return seed, tf.where(large, record, ""), tf.cond(large, none, lambda: seen(seed, record))

    def large(seed: tf.Tensor, record: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        return tf.cond(record == "", lambda: image, lambda: seen(seed, record))

    seeds = tf.data.Dataset.from_tensor_slices(np.array([view_seed(key) for key in keys], np.int64))
    # Large images are decoded a few at a time, or the memory for them would grow with the number of cores.
    decoded = tf.data.Dataset.zip(seeds, records).map(small, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.map(large, num_parallel_calls=2).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def view_seed(key: str) -> int:
    """Returns the seed of an image's views."""
    return int(key[:15], 16)


def _views(stores: Sequence[FeatureStore], keys: Sequence[str]) -> Features:
    """The features of N stores as N views."""
    shards, places = [], []
    for store in stores:
        of_view = store.places(keys)
        of_view[:, 0] += len(shards)
        places.append(of_view)
        shards += store.shards
    return Features(shards, np.stack(places, axis=1))


def _fill(
    store: FeatureStore, encode: Callable, split: Split, missing: Sequence[int], image_size: int, view: int, title: str
) -> None:
    """Computes and stores the features of the rows `missing`, a shard at a time."""
    with tqdm(total=len(missing), desc=f"features of {title}", unit="image", disable=None) as bar:
        if bar.disable and missing:
            print(f"computing the features of {len(missing)} images ({title}), once for all runs with this cache")
        for rows in shards_of(missing):
            keys, parts = [split.keys[row] for row in rows], []
            for images in _read(split, pixels(split.images.encoded(rows), keys, image_size, view)):
                parts.append(encode(images).numpy())
                bar.update(len(parts[-1]))
            store.add(keys, _finite(np.concatenate(parts), title))


def shards_of(rows: Sequence[int]) -> Iterator[list[int]]:
    """Yields ascending rows of a split in groups, one for each shard.

    A row's group depends on the row alone, so work that was stopped anywhere ends with the same shards.
    """
    for _, group in itertools.groupby(rows, lambda row: row // SHARD):
        yield list(group)


def _finite(features: np.ndarray, title: str) -> np.ndarray:
    if not np.isfinite(features).all():
        raise UserError(f"features of {title} are NaN or infinite; check --encoder_weights")
    return features


def _read(split: Split, batches: tf.data.Dataset) -> Iterator[tf.Tensor]:
    # Errors of the encoder, such as a full memory, are not those of reading.
    with reading(split):
        yield from batches


def _key(config: Config, encoder: keras.Model) -> str:
    """Changes with the encoder, its size and its weights."""
    # Some networks have preprocessing layers with ImageNet weights only, so equal weights are not enough.
    imagenet = config.model.encoder_weights == "imagenet"
    digest = hashlib.sha256(json.dumps([config.model.encoder, imagenet, config.model.image_size]).encode())
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())
    return f"{config.model.encoder}-{config.model.image_size}-{digest.hexdigest()[:12]}"
