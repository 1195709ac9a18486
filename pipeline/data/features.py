"""Features of the frozen encoder, computed once and stored in the cache folder.

Training images may have several views, to reduce overfitting. The first is the whole image, like validation images.
The others are crops, some of them mirrored.
"""

import hashlib
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from spidercap.models.encoder import build_encoder
from spidercap.models.image_headers import LARGE, read_header
from spidercap.models.images import decode_image, draw_view, resize_image
from spidercap.pipeline import digests
from spidercap.pipeline.data.prepare import Data, image_records, reading
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import written_aside
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
        raise UserError(
            f"cannot build {config.model.encoder} with --encoder_weights={weights} and "
            f"--image_size={config.model.image_size}: {first_line}; give weights made for this encoder "
            "without its top, 'random', or another size"
        ) from error


def split_features(config: Config, data: Data, encoder: keras.Model, split: str) -> np.ndarray:
    """Returns features float32 `[I, F]` of the whole images, in the order of the split's records."""
    return all_features(config, data, encoder, {split: 1})[split][:, 0]


def all_features(config: Config, data: Data, encoder: keras.Model, views: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns features float32 `[I, N, F]` by split, in the order of its records, with N = `views` of each image.

    Views in the cache are read. Others, and those whose file is damaged, are computed and stored.

    Raises:
      UserError: features are NaN or infinite.
    """
    folder = config.cache_path() / "features" / _key(config, data, encoder)
    # One function for all, because tracing a deep network takes seconds. It is traced only if something is computed.
    shape = [None, config.model.image_size, config.model.image_size, 3]
    encode = tf.function(lambda images: encoder(images, training=False), input_signature=[tf.TensorSpec(shape)])
    paths = {split: [folder / _file(split, view) for view in range(number)] for split, number in views.items()}
    for split, of_views in paths.items():
        for view, path in enumerate(of_views):
            wrong = digests.fault(path)
            if wrong and path.exists():
                print(f"warning: {path} {wrong}; its features are computed again", file=sys.stderr)
            if wrong:
                name = f"{split}, view {view + 1} of {len(of_views)}" if len(of_views) > 1 else split
                features = _compute(encode, data, split, config.model.image_size, view, name)
                with written_aside(path, features.nbytes) as aside:
                    np.save(aside, features)
                digests.record(path.parent, [path.name])
    return {split: _stacked(of_views) for split, of_views in paths.items()}


def pixels(records: tf.data.Dataset, image_size: int, view: int = 0) -> tf.data.Dataset:
    """Returns batches float32 `[<=BATCH, image_size, image_size, 3]` of encoded images, decoded in parallel.

    View 0 is the whole image; other views are drawn by their number and the image's.
    """

    def seen(number: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        image = decode_image(record)
        if view:
            image = draw_view(image, tf.stack([tf.constant(view, tf.int64), number]))
        return resize_image(image, image_size)

    def small(number: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Decodes an image, unless it is large."""
        large = read_header(record).pixels > LARGE
        none = lambda: tf.zeros([image_size, image_size, 3])  # noqa: E731
        return number, tf.where(large, record, ""), tf.cond(large, none, lambda: seen(number, record))

    def large(number: tf.Tensor, record: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        return tf.cond(record == "", lambda: image, lambda: seen(number, record))

    # Large images are decoded a few at a time, or the memory for them would grow with the number of cores.
    decoded = records.enumerate().map(small, num_parallel_calls=tf.data.AUTOTUNE).map(large, num_parallel_calls=2)
    return decoded.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def _file(split: str, view: int) -> str:
    return f"{split}-view{view}.npy" if view else f"{split}.npy"


def _stacked(paths: Sequence[pathlib.Path]) -> np.ndarray:
    """Float32 `[I, N, F]` of the files of N views."""
    # Memory-mapped, or all views would be in memory twice.
    views = [np.load(path, mmap_mode="r") for path in paths]
    images, size = views[0].shape
    return np.stack(views, axis=1, out=np.empty((images, len(views), size), np.float32))


def _compute(encode: Callable, data: Data, split: str, image_size: int, view: int, name: str) -> np.ndarray:
    records = image_records(data, split)
    count = int(records.cardinality())
    parts = []
    with tqdm(total=count, desc=f"features of {name}", unit="image", disable=None) as bar:
        if bar.disable:
            print(f"computing the features of {count} images ({name}), once for all runs with this cache", flush=True)
        for images in _read(data, pixels(records, image_size, view)):
            parts.append(encode(images).numpy())
            bar.update(len(parts[-1]))
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise UserError(f"features of {name} are NaN or infinite; check --encoder_weights")
    return features


def _read(data: Data, batches: tf.data.Dataset) -> Iterator[tf.Tensor]:
    # Errors of the encoder, such as a full memory, are not those of reading.
    with reading(data):
        yield from batches


def _key(config: Config, data: Data, encoder: keras.Model) -> str:
    """Changes with the encoder, its size, its weights and the data."""
    # Some networks have preprocessing layers with ImageNet weights only, so equal weights are not enough.
    imagenet = config.model.encoder_weights == "imagenet"
    digest = hashlib.sha256(
        json.dumps([config.model.encoder, imagenet, config.model.image_size, data.fingerprint]).encode()
    )
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())
    return f"{config.model.encoder}-{config.model.image_size}-{digest.hexdigest()[:12]}"
