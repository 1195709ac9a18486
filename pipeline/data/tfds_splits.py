"""A split of a TensorFlow data set as records: its captions, and what is known of its images, read once."""

import dataclasses
import functools
import json
import operator
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from spidercap.pipeline import digests
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.data.image_files import skip_or_reject
from spidercap.pipeline.data.image_index import check
from spidercap.pipeline.data.records import Split, digest_of, id_of
from spidercap.pipeline.data.streams import CALLS, untuned
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import write_text
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.annotations import WORDLESS
from spidercap.pipeline.text.coco_json import reject
from spidercap.pipeline.text.tokenizer import has_words


@dataclasses.dataclass(frozen=True)
class Columns:
    """The features of a data set that hold an image, its captions, its id and its file name; parts split by /."""

    image: str
    captions: str
    id: str = ""  # '': the number of the record
    name: str = ""  # '': the id


@dataclasses.dataclass(frozen=True)
class TfdsImages:
    """Images in the records of a TensorFlow data set."""

    in_sequence: ClassVar[bool] = True
    data_dir: str
    split: str
    column: str
    records: tuple[int, ...]  # [I], the record of each row, ascending

    def encoded(self, rows: Sequence[int]) -> tf.data.Dataset:
        """Returns the encoded images (scalar strings) of ascending rows of the split, in that order."""
        wanted = [self.records[row] for row in rows]
        first, end = min(wanted, default=0), max(wanted, default=0) + 1
        chosen = np.zeros(end - first, bool)
        chosen[np.array(wanted, int) - first] = True
        mask = tf.constant(chosen)
        builder = tfds.builder_from_directory(self.data_dir)
        numbered = records(builder, part_of_split(builder, self.split, first, end), self.column).enumerate()
        kept = numbered.filter(lambda number, record: mask[number])
        found = kept.map(lambda number, record: part_of(record, self.column))
        return found.apply(tf.data.experimental.assert_cardinality(len(rows)))

    def of(self, rows: Sequence[int]) -> "TfdsImages":
        """Returns the images of ascending rows alone."""
        return dataclasses.replace(self, records=tuple(self.records[row] for row in rows))

    def where(self) -> str:
        """Returns where the images are, and what to do if they cannot be read, as the end of a message."""
        return f"they are in {self.data_dir}; delete that folder and prepare the data set again"


def read_split(
    builder: tfds.core.DatasetBuilder, split: str, columns: Columns, settings: DataSettings, cache: pathlib.Path
) -> tuple[str, Split]:
    """Returns a key that changes with the contents of a split, and the split.

    All records are read and all images decoded once; what was found is kept in the cache folder.

    Raises:
      UserError: an image cannot be used, or has no captions.
    """
    key = _key(builder, split, columns, settings.max_pixels)
    path = cache / "data" / f"{key}.json"
    wrong = digests.fault(path)
    if wrong:
        if path.exists():
            print(f"warning: {path} {wrong}; the data set is read again", file=sys.stderr)
        rows = list(_rows(builder, split, columns, settings.max_pixels))
        write_text(path, json.dumps(rows) + "\n")
        digests.record(path.parent, [path.name])
    rows = json.loads(path.read_text(encoding="utf-8"))
    faults = {pathlib.Path(row["name"]): row["fault"] for row in rows if row["fault"]}
    skip_or_reject(faults, len(rows), settings.skip_bad_images)
    good = [(number, row) for number, row in enumerate(rows) if not row["fault"]]
    wordless = [row["name"] for _, row in good if not any(has_words(c) for c in row["captions"])]
    reject(f"{builder.info.full_name}, {split}", "images have no caption with words", wordless, "name another feature")
    return f"tfds-{key}", Split(
        tuple(row["id"] for _, row in good),
        tuple(row["name"] for _, row in good),
        tuple(tuple(c for c in row["captions"] if has_words(c)) for _, row in good),
        tuple(row["digest"] for _, row in good),
        TfdsImages(str(builder.data_dir), split, columns.image, tuple(number for number, _ in good)),
        tuple((row["name"], row["fault"]) for row in rows if row["fault"]),
        tuple((row["name"], c, WORDLESS) for _, row in good for c in row["captions"] if not has_words(c)),
    )


def part_of_split(builder: tfds.core.DatasetBuilder, split: str, first: int, end: int) -> tfds.typing.SplitArg:
    """Returns what reads the records from `first` up to `end` of a split alone, in its order.

    A split may join parts of others, such as train[1:]+restval. Files without such a record are not opened.
    """
    found, before = [], 0
    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits):
        start, stop = part.from_ or 0, part.to
        size = (builder.info.splits[part.splitname].num_examples if stop is None else stop) - start
        of_part = range(max(first - before, 0), min(end - before, size))
        if of_part:
            found.append(tfds.core.ReadInstruction(part.splitname, start + of_part.start, start + of_part.stop))
        before += max(size, 0)
    return functools.reduce(operator.add, found)


def records(builder: tfds.core.DatasetBuilder, split: tfds.typing.SplitArg, image: str) -> tf.data.Dataset:
    """Returns the records of a split, always in the same order, with images as they are encoded."""
    read = tfds.ReadConfig(
        interleave_cycle_length=1,  # one file at a time, or the order would differ
        num_parallel_calls_for_interleave_files=1,
        num_parallel_calls_for_decode=CALLS,
    )
    decoders: Any = tfds.decode.SkipDecoding()
    for part in reversed(image.split("/")):
        decoders = {part: decoders}
    return untuned(builder.as_dataset(split=split, decoders=decoders, read_config=read, shuffle_files=False))


def part_of(record: Any, name: str) -> Any:
    """Returns a feature of a record by its name, whose parts are joined by /; a key may hold one itself (image/id)."""
    if name in record:
        return record[name]
    cut = next(i for i, char in enumerate(name) if char == "/" and isinstance(record.get(name[:i]), dict))
    return part_of(record[name[:cut]], name[cut + 1 :])


def _rows(builder: tfds.core.DatasetBuilder, split: str, columns: Columns, max_pixels: int) -> Iterator[dict]:
    read = records(builder, split, columns.image)
    title = f"reading {builder.info.name} {split}"
    try:
        for number, record in enumerate(progress_bar(len(read), title, "image", iterable=tfds.as_numpy(read))):
            image_id = id_of(part_of(record, columns.id)) if columns.id else number
            name = part_of(record, columns.name).decode() if columns.name else str(image_id)
            checked = check(part_of(record, columns.image), max_pixels)
            captions = np.atleast_1d(part_of(record, columns.captions)).tolist()
            yield {
                "id": image_id,
                "name": name,
                "captions": [caption.decode("utf-8") for caption in captions],
                "digest": checked.digest,
                "fault": checked.fault,
            }
    except (tf.errors.OpError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{builder.info.full_name}: the split {split} cannot be read ({str(error).strip()[:200]}); name its "
            "features by --tfds_image and --tfds_captions, or prepare it again"
        ) from error


def _key(builder: tfds.core.DatasetBuilder, split: str, columns: Columns, max_pixels: int) -> str:
    """Changes with the prepared files, the split and the columns."""
    folder = pathlib.Path(builder.data_dir)
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return digest_of([builder.info.full_name, split, dataclasses.asdict(columns), max_pixels, files])
