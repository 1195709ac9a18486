"""Features of the frozen encoder, computed once per image and stored in the cache folder.

Where layers of the encoder are tuned, what is computed and stored is what these read: maps of the frozen layers before
them, or pixels.

Training images may have several views, to reduce overfitting. The first is the whole image, like validation images.
The others are crops, some of them mirrored.
"""

import difflib
import hashlib
import itertools
import json
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from spidercap.models.captioners import CAPTIONERS
from spidercap.models.encoder import build_encoder
from spidercap.models.encoder_cut import Cut, CutError, cut_encoder
from spidercap.pipeline import digests
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.data.feature_store import SHARD, Features, FeatureStore, stored_bytes
from spidercap.pipeline.data.records import Images, Split
from spidercap.pipeline.data.shard_work import Done, Encode, Shard, compute_shards, encode_by, in_processes
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import nearest_existing, written_aside
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.workers import ALONE, Workers

TOLD = 2**30  # bytes of features that are worth a line
NAMED = 20  # layers that a message names
ENCODER_SEED = 0  # of random weights, so that runs with different --seed share features


def load_encoder(config: Config) -> keras.Model:
    """Returns the frozen encoder that the settings name.

    Raises:
      UserError: the weights do not exist, or are those of another encoder; it cannot be cut at --finetune_from.
    """
    weights = config.model.encoder_weights
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise UserError(f"--encoder_weights={weights} is not a file; allowed: imagenet, random, or a .weights.h5 file")
    try:
        with warnings.catch_warnings():  # Keras warns about each layer before it rejects weights of another network
            warnings.simplefilter("ignore")
            grid = CAPTIONERS[config.model.decoder].takes_parts
            encoder = build_encoder(config.model.encoder, weights, config.model.image_size, ENCODER_SEED, grid)
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
    if config.model.finetune_encoder:
        cut_of(config, encoder)  # so that a layer that cannot be is reported before any work is done
    return encoder


def cut_of(config: Config, encoder: keras.Model) -> Cut:
    """Returns the frozen and the tuned part of the encoder of a run that tunes it; raises UserError for a bad layer."""
    try:
        return cut_encoder(encoder, config.model.finetune_from)
    except CutError as error:
        close = difflib.get_close_matches(config.model.finetune_from, error.allowed, n=3)
        named = [*close, *(name for name in reversed(error.allowed) if name not in close)]
        more = f", and {len(named) - NAMED} more" if len(named) > NAMED else ""
        allowed = f"allowed: {', '.join(named[:NAMED]) or 'no layer'}{more}; or leave it out, to train all layers"
        raise UserError(f"--finetune_from={config.model.finetune_from}: {error}; {allowed}") from error


def all_features(
    config: Config,
    splits: Mapping[str, Split],
    encoder: keras.Model,
    views: Mapping[str, int],
    workers: Workers = ALONE,
) -> dict[str, Features]:
    """Returns features `[I, N, F]`, or `[I, N, P, F]`, by split, in the order of its records; N = `views`.

    With --finetune_encoder it returns what the tuned layers read, `[I, N, h, w, C]`.

    Views in the cache are read. Others, and those whose shard is damaged, are computed and stored, a shard at a time:
    in this process, in those of --workers, or as --beam_options say. Several workers share the shards out.

    Raises:
      UserError: features are NaN or infinite, or the disk has no room for all of them.
    """
    if config.model.finetune_encoder:
        encoder = cut_of(config, encoder).frozen
    folder = config.cache_path() / "features" / _key(config, encoder)
    # One function for all, because tracing a deep network takes seconds. It is traced only if something is computed.
    encode = encode_by(encoder, config.model.image_size)
    stores = [FeatureStore(folder / f"view{view}") for view in range(max(views.values(), default=0))]
    if workers.number == 0:  # before any of them writes
        _check_room(config, encoder, stores, splits, views)
    for name, split in splits.items():
        for view in range(views[name]):
            title = f"{name}, view {view + 1} of {views[name]}" if views[name] > 1 else name
            missing = [
                row for row in stores[view].missing(split.keys) if row // SHARD % workers.count == workers.number
            ]
            if missing:
                shards = _shards(stores[view].folder, split, missing, view, config.model.image_size, title)
                work = _work(config, encoder, encode, split.images.of(missing), folder, shards)
                _compute(stores[view], work, shards)
            if workers.count > 1:
                workers.wait()
                stores[view] = FeatureStore(stores[view].folder)
    return {name: _views(stores[: views[name]], split.keys) for name, split in splits.items()}


def _check_room(
    config: Config,
    encoder: keras.Model,
    stores: Sequence[FeatureStore],
    splits: Mapping[str, Split],
    views: Mapping[str, int],
) -> None:
    """Raises UserError if the disk cannot hold what is to be computed; tells its size if that is large."""
    asked = (
        [key for name, split in splits.items() if views[name] > view for key in split.keys]
        for view in range(len(stores))
    )
    missing = sum(len(store.missing(keys)) for store, keys in zip(stores, asked, strict=True))
    if not missing:
        return
    stored = encoder.outputs[0]
    size = missing * stored_bytes(stored.shape[1:], stored.dtype)
    told = f"features of {missing:,} views of images take {size / 2**30:,.1f} GiB"
    free = shutil.disk_usage(nearest_existing(config.cache_path())).free
    if size > free:
        less = ", or give a smaller --views" if len(stores) > 1 else ""
        if config.model.finetune_encoder:
            less += ", or a --finetune_from nearer to the encoder's end"
        raise UserError(
            f"{told}, and {free / 2**30:,.1f} GiB are free in {config.cache_path()}; make room, or name another folder "
            f"by --cache_dir{less}"
        )
    if size >= TOLD:
        print(f"{told} in {config.cache_path()}", flush=True)


def _shards(
    folder: pathlib.Path, split: Split, missing: Sequence[int], view: int, image_size: int, title: str
) -> list[Shard]:
    """The shards of the rows of a split whose features are missing.

    The group of an image depends on its row alone, so work that was stopped anywhere ends with the same shards.
    """
    folder = folder.absolute()
    groups = [list(group) for _, group in itertools.groupby(missing, lambda row: row // SHARD)]
    return [
        Shard(folder, split.images.of(rows), tuple(split.keys[row] for row in rows), view, image_size, title)
        for rows in groups
    ]


def _work(
    config: Config, encoder: keras.Model, encode: Encode, images: Images, folder: pathlib.Path, shards: Sequence[Shard]
) -> Iterator[Done]:
    """Yields the shards as they are written; `images` are those of all shards."""
    if config.data.workers == 1 and not config.data.beam_options:
        return compute_shards(encode, images, shards)
    path = folder.absolute() / "encoder.keras"
    if digests.fault(path):
        with written_aside(path, sum(weight.nbytes for weight in encoder.get_weights())) as aside:
            encoder.save(aside)
        digests.record(folder, [path.name])
    if config.data.beam_options:
        from spidercap.pipeline.data.shard_beam import by_beam  # an extra that may not be installed

        return by_beam(path, shards, config.data.beam_options)
    return in_processes(path, shards, config.data.workers)


def _compute(store: FeatureStore, work: Iterator[Done], shards: Sequence[Shard]) -> None:
    """Does the work, with a progress bar, and opens what it writes."""
    title, total = shards[0].title, sum(len(shard.keys) for shard in shards)
    with progress_bar(total, f"features of {title}", "image") as bar:
        if bar.disable:
            print(f"computing the features of {total} images ({title}), once for all runs with this cache", flush=True)
        for done in work:
            if not store.open(done.path):
                raise UserError(f"{done.path} was damaged while it was written; run the same command again")
            bar.update(done.images)


def _views(stores: Sequence[FeatureStore], keys: Sequence[str]) -> Features:
    """The features of N stores as N views."""
    shards, places = [], []
    for store in stores:
        of_view = store.places(keys)
        of_view[:, 0] += len(shards)
        places.append(of_view)
        shards += store.shards
    return Features(shards, np.stack(places, axis=1))


def _key(config: Config, encoder: keras.Model) -> str:
    """Changes with the encoder, or its frozen part, its size and its weights."""
    parts = ["parts"] if CAPTIONERS[config.model.decoder].takes_parts else []
    if config.model.finetune_encoder:  # what is stored then is the same for all decoders
        parts = ["before", config.model.finetune_from]
    # Some networks have preprocessing layers with ImageNet weights only, so equal weights are not enough.
    imagenet = config.model.encoder_weights == "imagenet"
    digest = hashlib.sha256(json.dumps([config.model.encoder, imagenet, config.model.image_size, *parts]).encode())
    for weight in encoder.get_weights():
        digest.update(weight.tobytes())
    return f"{config.model.encoder}-{config.model.image_size}-{digest.hexdigest()[:12]}"
