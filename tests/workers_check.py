"""Features by several processes, and by Apache Beam if it is installed, one of them killed: `make workers-check`.

Both must end with the very shards of one process, from image files and from records of TensorFlow Datasets. Each
process needs some seconds to import TensorFlow.
"""

import dataclasses
import importlib.util
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from spidercap.pipeline.data import features, shard_work
from spidercap.pipeline.data.features import all_features, load_encoder
from spidercap.pipeline.data.files_source import ImageFiles
from spidercap.pipeline.data.image_index import check
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.data.tfds_splits import TfdsImages
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config

IMAGES, SHARD = 320, 64
BEAM = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"


def make_split(folder: pathlib.Path) -> Split:
    """Returns a split of made-up PNG files, which are written to the folder."""
    rng, paths, keys = np.random.default_rng(0), [], []
    for number in range(IMAGES):
        path = folder / f"{number:03d}.png"
        path.write_bytes(tf.io.encode_png(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)).numpy())
        keys.append(check(path.read_bytes(), 10**6).digest)
        paths.append(str(path))
    names = tuple(pathlib.Path(path).name for path in paths)
    return Split(tuple(range(IMAGES)), names, (("a dog",),) * IMAGES, tuple(keys), ImageFiles(tuple(paths)))


class Recorded(tfds.core.GeneratorBasedBuilder):
    """The images of a split as a prepared data set, some of them in a split of their own."""

    VERSION = tfds.core.Version("1.0.0")
    paths: tuple[str, ...] = ()

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        splits = {"train": range(250), "restval": range(250, IMAGES)}
        return {name: self._generate_examples(numbers) for name, numbers in splits.items()}

    def _generate_examples(self, numbers: range) -> Iterator[tuple[int, dict]]:
        return ((number, {"image": self.paths[number]}) for number in numbers)


def recorded(folder: pathlib.Path, split: Split) -> Split:
    """Returns the same split with its images in several record files, which are written to the folder."""
    builder = Recorded(data_dir=folder)
    builder.paths = split.images.paths
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=5))
    images = TfdsImages(str(builder.data_dir), "train+restval", "image", tuple(range(IMAGES)))
    return dataclasses.replace(split, images=images)


def shards_in(config: Config) -> dict[str, bytes]:
    """Returns the bytes of all shards by their path."""
    folder = config.cache_path() / "features"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/view*/*/features.npy")}


def compute(config: Config, split: Split) -> None:
    """Computes the features of the split."""
    all_features(config, {"train": split}, load_encoder(config), {"train": 1})


def is_worker(pid: str) -> bool:
    """Returns whether a process is one of --workers or of Beam's."""
    command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"spawn_main" in command or b"apache_beam" in command


def killed_once(config: Config, split: Split) -> None:
    """Computes with one worker killed after the first shard; then lets the same command finish."""
    script = "import sys; from tests.workers_check import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", script, str(config.cache_path()), str(split.images.paths[0])]
    command += [str(config.data.workers), config.data.beam_options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not shards_in(config):
        time.sleep(0.05)
    workers = [
        int(pid)
        for pid in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    ]
    victims = [pid for pid in workers if is_worker(pid)]
    if victims:
        subprocess.run(["kill", f"-{signal.SIGKILL}", str(victims[0])], check=True)
    _, error = process.communicate(timeout=300)
    print(f"  killed {victims[:1]}, exit code {process.returncode}: {error.strip().splitlines()[-1:]}")
    compute(config, split)


def child(cache: str, first: str, workers: str, beam_options: str) -> None:
    """Computes in a process of its own."""
    folder = pathlib.Path(first).parent
    features.SHARD = SHARD
    try:
        compute(config_of(folder, cache, int(workers), beam_options), make_split(folder))
    except UserError as error:
        sys.exit(f"error: {error}")


def config_of(folder: pathlib.Path, cache: str, workers: int = 1, beam_options: str = "") -> Config:
    """Returns the settings of a run with a small encoder."""
    return Config.of(
        workdir=str(folder / "run"),
        cache_dir=cache,
        encoder="MobileNetV2",
        encoder_weights="random",
        image_size=32,
        workers=workers,
        beam_options=beam_options,
    )


def main() -> None:
    """Compares the shards of one process with those of several."""
    features.SHARD = SHARD
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        split = make_split(folder)
        one = config_of(folder, str(folder / "one"))
        compute(one, split)
        alone = shards_in(one)
        assert len(alone) == IMAGES // SHARD
        records = recorded(folder, split)
        for workers in (1, 2):
            config = config_of(folder, str(folder / f"records {workers}"), workers)
            compute(config, records)
            assert shards_in(config) == alone, f"records of TFDS, --workers={workers}: other shards"
        print("equal shards from records of TFDS, by one process and by two", flush=True)
        kinds = {"--workers=2": {"workers": 2}}
        if importlib.util.find_spec("apache_beam"):
            kinds["Beam"] = {"beam_options": BEAM}
        else:
            print("Beam is not installed (pip install '.[beam]'): not checked")
        for name, more in kinds.items():
            print(name, flush=True)
            whole = config_of(folder, str(folder / f"whole {name}"), **more)
            compute(whole, split)
            assert shards_in(whole) == alone, f"{name}: other shards"
            killed = config_of(folder, str(folder / f"killed {name}"), **more)
            killed_once(killed, split)
            assert shards_in(killed) == alone, f"{name}: other shards after a kill"
            assert not multiprocessing.active_children(), f"{name}: processes are left"
            print("  equal shards, whole and after a kill", flush=True)


if __name__ == "__main__":
    assert shard_work.BATCH == SHARD
    main()
