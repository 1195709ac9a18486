"""The data sets: one row each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DatasetKind:
    """What defines a data set."""

    help: str
    source: str  # 'module:function', (settings of the data, cache folder) -> data.records.Source
    needs: tuple[str, ...] = ()  # flags that must be given
    reads: tuple[str, ...] = ()  # optional flags that no other data set reads


DATASETS: dict[str, DatasetKind] = {
    "scenes": DatasetKind(
        help="synthetic images of shapes, nothing to download",
        source="spidercap.pipeline.data.scenes.dataset:scenes_source",
        reads=("scenes_train", "scenes_val"),
    ),
    "coco_json": DatasetKind(
        help="your own images with captions in COCO's format",
        source="spidercap.pipeline.data.coco_source:folder_source",
        needs=("images", "train_captions", "val_captions"),
        reads=("skip_bad_images", "skip_bad_captions"),
    ),
}

ALIASES = {"folder": "coco_json"}  # earlier name -> name
