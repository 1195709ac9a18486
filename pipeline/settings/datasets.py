"""The data sets: one row each."""

import dataclasses

_TFDS = "spidercap.pipeline.data.tfds_source"


@dataclasses.dataclass(frozen=True)
class DatasetKind:
    """What defines a data set."""

    help: str
    source: str  # 'module:function', (settings of the data, cache folder, splits) -> data.records.Source
    needs: tuple[tuple[str, ...], ...] = ()  # flags of which at least one must be given
    reads: tuple[str, ...] = ()  # further flags that only some data sets read
    parameter: str = ""  # what follows the name and a colon, for messages

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that it reads and some other data set does not."""
        return tuple(dict.fromkeys((*(flag for flags in self.needs for flag in flags), *self.reads)))


DATASETS: dict[str, DatasetKind] = {
    "scenes": DatasetKind(
        help="synthetic images of shapes, nothing to download",
        source="spidercap.pipeline.data.scenes.dataset:scenes_source",
        reads=("scenes_train", "scenes_val", "scenes_test"),
    ),
    "files": DatasetKind(
        help="your own images or features, with captions in a JSON, CSV, TSV or JSON lines file",
        source="spidercap.pipeline.data.files_source:files_source",
        needs=(
            ("captions", "train_captions"),
            ("captions", "val_captions", "val_fraction"),
            ("images", "features"),
        ),
        reads=("test_captions", "test_fraction", "split_seed", "skip_bad_images", "skip_bad_captions"),
    ),
    "coco": DatasetKind(
        help="COCO 2014, prepared by TensorFlow Datasets",
        source=f"{_TFDS}:coco_source",
        reads=("data_dir", "download", "coco_split", "skip_bad_images"),
    ),
    "tfds": DatasetKind(
        help="any data set of TensorFlow Datasets that has images and captions",
        source=f"{_TFDS}:tfds_source",
        reads=(
            *("data_dir", "download", "tfds_splits", "tfds_image", "tfds_captions", "tfds_id"),
            "skip_bad_images",
        ),
        parameter="NAME[/CONFIG][:VERSION]",
    ),
}

ALIASES = {"folder": "files", "coco_json": "files"}  # earlier name -> name


def kind_of(dataset: str) -> tuple[DatasetKind, str]:
    """Returns the row of a data set such as 'files' or 'tfds:NAME', and what follows the colon; raises KeyError."""
    name, _, parameter = dataset.partition(":")
    kind = DATASETS[name]
    if bool(parameter) != bool(kind.parameter):
        raise KeyError(dataset)
    return kind, parameter
