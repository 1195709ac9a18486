"""Synthetic images of shapes with captions: a data set for a first run, with nothing to download.

A scene depends on (seed, index) alone, so the same two numbers give the same image on every machine.
"""

import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from spidercap.pipeline.data.records import Source, Split
from spidercap.pipeline.data.rendered import rendered
from spidercap.pipeline.data.scenes.captions import write_captions
from spidercap.pipeline.data.scenes.draw import Thing, render
from spidercap.pipeline.data.scenes.layout import plan_layout
from spidercap.pipeline.data.tfds_splits import Columns, read_split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.data_settings import DataSettings

SIZE = 64  # pixels; the input size of the quickstart's encoder
SEED = 0
FIRST_TEST = 10**9  # index
COLUMNS = Columns("image", "captions", "image_id", "file_name")
_SMALLEST_SIDE = 32
_COMPRESSION = 3  # of 9; half the time of the default, 14% more bytes


@dataclass(frozen=True)
class Scene:
    """An image, uint8 `[size, size, 3]`, its five captions, and the things drawn, from back to front."""

    image: np.ndarray
    captions: tuple[str, ...]
    things: tuple[Thing, ...]
    background: str


def draw_scene(seed: int, index: int, size: int = 64) -> Scene:
    """Returns scene number `index` of the infinite series `seed`, `size` pixels high and wide.

    Another size shows the same things with the same captions. Raises ValueError for a negative seed or index.
    """
    rng = np.random.default_rng((seed, index))
    layout = plan_layout(rng)
    captions = write_captions(layout, rng)
    return Scene(render(layout.things, layout.background, size, rng), captions, layout.things, layout.background)


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Scenes as a TFDS data set: the first `val_images` indices are "val", the next `train_images` "train".

    In that order, so that more training images do not change the validation images; those of "test" begin at
    FIRST_TEST. Each choice of the numbers has its own folder below `data_dir`. Raises UserError for numbers below their
    minimum.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, *, train_images: int, val_images: int, test_images: int = 0, size: int = 64, seed: int = 0, **kwargs
    ):
        for name, value, least in (
            ("train_images", train_images, 1),
            ("val_images", val_images, 1),
            ("test_images", test_images, 0),
            ("size", size, _SMALLEST_SIDE),
            ("seed", seed, 0),
        ):
            if value < least:
                raise UserError(f"scenes: {name} is {value}; it must be {least} or more; give a larger {name}")
        self._indices = {"val": range(val_images), "train": range(val_images, val_images + train_images)}
        if test_images:
            self._indices["test"] = range(FIRST_TEST, FIRST_TEST + test_images)
        self._size, self._seed = size, seed
        test = f"_test{test_images}" * bool(test_images)
        name = f"train{train_images}_val{val_images}{test}_size{size}_seed{seed}"
        super().__init__(config=tfds.core.BuilderConfig(name=name), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Synthetic images of one to four coloured shapes, five captions each.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image_id": tfds.features.Scalar(np.int64),
                    "file_name": tfds.features.Text(),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(self._indices[split]) for split in self._indices}

    def _generate_examples(self, indices: range) -> Iterator[tuple[int, dict]]:
        for index in indices:
            scene = draw_scene(self._seed, index, self._size)
            yield (
                index,
                {
                    "image": tf.io.encode_png(scene.image, compression=_COMPRESSION).numpy(),
                    "image_id": index,
                    "file_name": f"scene_{index:06d}.png",
                    "captions": list(scene.captions),
                },
            )


def scenes_source(settings: DataSettings, cache: pathlib.Path, wanted: Iterable[str]) -> Source:
    """Returns the scenes of the settings; runs with different --seed share them, so that they can be compared."""
    sizes = {"train": settings.scenes_train, "val": settings.scenes_val, "test": settings.scenes_test}
    name = "-".join(str(size) for size in ("scenes", Scenes.VERSION, *sizes.values()) if size)

    def build(root: pathlib.Path) -> Scenes:
        images = {f"{split}_images": size for split, size in sizes.items()}
        return Scenes(**images, size=SIZE, seed=SEED, data_dir=root)

    names = [split for split in wanted if sizes[split]]

    def load() -> dict[str, Split]:
        builder = rendered(cache / "data" / name, build)
        return {split: read_split(builder, split, COLUMNS, settings, cache)[1] for split in names}

    return Source({split: f"{name}-{split}" for split in names}, load)
