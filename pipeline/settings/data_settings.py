"""Settings of the data set and its preparation.

Field, flag and function argument share one name.
"""

import dataclasses

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.datasets import ALIASES, DATASETS, kind_of
from spidercap.pipeline.settings.fields import Group, setting
from spidercap.pipeline.settings.modes import DATA, SCORING

MOST_TOKENS = 1000  # of a caption


@dataclasses.dataclass(frozen=True)
class DataSettings(Group):
    """The data set and its preparation."""

    dataset: str = setting(
        "scenes",
        "scenes: synthetic images of shapes, nothing to download; files: your own images or features, with captions in "
        "a file; coco: COCO 2014; tfds:NAME[/CONFIG][:VERSION]: any data set of TensorFlow Datasets.",
        spelling=lambda name: ALIASES.get(name, name),
    )
    images: str = setting(
        "",
        "files: folders of the images; mode=caption: files or folders; separated by commas; mode=compare: the folder "
        "of the images to show.",
        fixed=False,
        modes=(*DATA, "caption", "compare"),
    )
    features: str = setting(
        "",
        "files: features in place of images, in .npz, .h5, .npy or .tfrecord files, separated by commas; "
        "mode=caption: features to caption.",
        fixed=False,
        modes=(*DATA, "caption"),
        added=True,
    )
    captions: str = setting(
        "",
        "files: captions of all splits, in a file that names them (Karpathy's JSON, a column split) or with "
        "--val_fraction; mode=caption: file with the ids of the images.",
        fixed=False,
        modes=(*DATA, "caption"),
        added=True,
    )
    train_captions: str = setting("", "files: captions to train on.", fixed=False, modes=DATA)
    val_captions: str = setting("", "files: captions to validate on.", fixed=False, modes=DATA)
    test_captions: str = setting(
        "", "files: captions that choose nothing; the final scores are of these.", fixed=False, modes=DATA, added=True
    )
    val_fraction: float = setting(
        0.0,
        "files: share of the images of --captions or --train_captions that validate.",
        fixed=False,
        modes=DATA,
        added=True,
        least=0,
        most=0.9,
    )
    test_fraction: float = setting(
        0.0,
        "files: share of the images of --captions or --train_captions to test on.",
        fixed=False,
        modes=DATA,
        added=True,
        least=0,
        most=0.9,
    )
    split_seed: int = setting(
        0,
        "files: seed of the fractions. An image stays in its split when others are added.",
        fixed=False,
        modes=DATA,
        added=True,
        least=0,
    )
    data_dir: str = setting(
        "",
        "coco, tfds: folder of prepared data sets; default: TensorFlow Datasets' own.",
        fixed=False,
        modes=DATA,
        added=True,
    )
    download: bool = setting(
        False,
        "coco, tfds: download and prepare the data set if it is not in --data_dir (COCO: 40 GB).",
        fixed=False,
        modes=DATA,
        added=True,
    )
    coco_split: str = setting(
        "karpathy",
        "coco: karpathy (train and restval, 5,000 val, 5,000 test), or paper (all but 1,665 of the validation images "
        "train, as in Liu et al. 2017; no test).",
        fixed=False,
        modes=DATA,
        choices=("karpathy", "paper"),
        added=True,
    )
    tfds_splits: str = setting(
        "",
        "tfds: its splits for train, val and test, separated by semicolons, such as train[:90%];train[90%:]. Default: "
        "those of that name (val or validation).",
        fixed=False,
        modes=DATA,
        added=True,
    )
    tfds_image: str = setting(
        "image", "tfds: feature of the image; parts of a nested name by /.", fixed=False, modes=DATA, added=True
    )
    tfds_captions: str = setting(
        "captions", "tfds: feature of the captions, such as captions/text.", fixed=False, modes=DATA, added=True
    )
    tfds_id: str = setting(
        "", "tfds: feature of the image's id; default: its number.", fixed=False, modes=DATA, added=True
    )
    skip_bad_images: bool = setting(
        False,
        "files, coco, tfds, mode=caption: leave out images that cannot be read or do not exist.",
        fixed=False,
        modes=(*DATA, "caption"),
    )
    max_pixels: int = setting(
        50_000_000,
        "Images of more pixels (width x height) are rejected before they are decoded.",
        fixed=False,
        modes=(*DATA, "caption", "export"),
        added=True,
    )
    skip_bad_captions: bool = setting(
        False,
        "files, mode=score: leave out captions without words or of over 10,000 characters, rows that cannot be read, "
        "captions marked is_rejected or is_precanned, and images left without captions; in mode=score these are the "
        "references.",
        fixed=False,
        modes=SCORING,
        added=True,
    )
    scenes_train: int = setting(3000, "scenes: number of training images.")
    scenes_val: int = setting(500, "scenes: number of validation images.")
    scenes_test: int = setting(0, "scenes: number of test images; 0: no test split.", added=True, least=0)
    min_word_count: int = setting(5, "Words seen less often in training are not generated.")
    views: int = setting(
        1,
        "Augmented views per training image; every step draws one of them. The first view is the whole image. The "
        "others are crops, half of them mirrored.",
        added=True,
        most=100,
    )
    max_length: int = setting(
        20, "Maximum caption length in tokens, end token included (T).", least=2, most=MOST_TOKENS
    )
    workers: int = setting(
        1,
        "Processes that compute features. More help where decoding is slow or the encoder runs on many cores; one GPU "
        "wants 1.",
        fixed=False,
        modes=DATA,
        added=True,
        most=256,
    )
    beam_options: str = setting(
        "",
        "Options of an Apache Beam pipeline that computes features, such as '--runner=DirectRunner "
        "--direct_running_mode=multi_processing --direct_num_workers=2'; needs the extra beam.",
        fixed=False,
        modes=DATA,
        added=True,
    )
    cache_dir: str = setting(
        "", "Folder of prepared images and features; default: 'cache' beside the workdir.", fixed=False, modes=DATA
    )

    def check(self) -> None:
        """Raises UserError for an unknown data set."""
        try:
            kind_of(self.dataset)
        except KeyError:
            names = [f"{name}:{kind.parameter}" if kind.parameter else name for name, kind in DATASETS.items()]
            raise UserError(f"unknown --dataset={self.dataset}; allowed: {', '.join(names)}") from None

    def check_flags(self) -> None:
        """Raises UserError if the data set lacks flags or does not read a given one."""
        kind, _ = kind_of(self.dataset)
        default = {field.name: field.default for field in dataclasses.fields(self)}
        theirs = dict.fromkeys(flag for other in DATASETS.values() for flag in other.flags)
        given = [flag for flag in theirs if getattr(self, flag) != default[flag] and flag not in kind.flags]
        if given:
            owner = next(name for name, other in DATASETS.items() if given[0] in other.flags)
            raise UserError(
                f"--dataset={self.dataset} does not read --{given[0]}; add --dataset={owner}, or leave it out"
            )
        missing = [flags for flags in kind.needs if not any(getattr(self, flag) for flag in flags)]
        if missing:
            needed = ", ".join(" or ".join("--" + flag for flag in flags) for flags in missing)
            raise UserError(f"--dataset={self.dataset} needs {needed}; see --help")
        if self.images and self.features:
            raise UserError(f"--images={self.images} and --features={self.features} exclude each other; leave one out")
        if self.captions and self.train_captions:
            raise UserError(
                f"--captions={self.captions} holds the training captions already; leave out --train_captions"
            )
