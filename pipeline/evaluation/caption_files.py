"""Captions image files and arrays with an exported model, as a model server would."""

import collections
import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from spidercap.export.saved_model import faults, kept_max_pixels
from spidercap.export.versions import versions
from spidercap.pipeline import digests
from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.data.image_files import ANY_SIZE, readable_files
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.served_captioner import BATCH, ServedCaptioner
from spidercap.pipeline.text.coco_json import ImageId, reject
from spidercap.pipeline.text.listing import read_images


class ExportedCaptioner(ServedCaptioner):
    """An exported model, loaded."""

    def __init__(self, folder: str | os.PathLike):
        """Loads the model in the folder of one version.

        Raises:
          UserError: the folder holds no exported model, or it is damaged.
        """
        if not (pathlib.Path(folder) / "saved_model.pb").is_file():
            raise UserError(f"{folder} holds no exported model (no saved_model.pb); name the folder of a version")
        damaged = digests.listed(faults(pathlib.Path(folder)))
        if damaged:
            raise UserError(f"{folder} is not what was exported ({damaged}); export it again with --mode=export")
        try:
            self._model = tf.saved_model.load(os.fspath(folder))
            serve = self._model.signatures["serving_default"]
        except Exception as error:  # TensorFlow raises anything for a damaged file
            raise UserError(f"{folder} cannot be loaded ({type(error).__name__}: {error}); export it again") from error
        inputs = serve.structured_input_signature[1]
        if not {"image_bytes", "features"} & inputs.keys() or "error" not in serve.structured_outputs:
            raise UserError(f"{folder} is no model that this version of spidercap has exported; export it again")
        super().__init__(self._model.signatures, kept_max_pixels(pathlib.Path(folder)) or ANY_SIZE)


def exported_model(path: str | os.PathLike) -> pathlib.Path:
    """Returns the folder of the newest exported model of a workdir or export folder, or of that version itself.

    Raises:
      UserError: the folder holds no exported model.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.isdir(path):
        raise UserError(f"{str(path)[:200]!r} is no folder; name a workdir, its export folder or one version")
    folder = pathlib.Path(path)
    if (folder / "saved_model.pb").is_file():
        return folder
    found = versions(folder / "export") or versions(folder)
    if not found:
        raise UserError(
            f"{folder} holds no exported model; name a workdir, its export folder or one version; "
            f"--mode=export --workdir={folder} exports a trained run"
        )
    return found[-1]


def caption_files(
    captioner: ServedCaptioner,
    files: Sequence[pathlib.Path],
    skip_bad_images: bool = False,
    seed: int | None = None,
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
    """Yields (file, [(caption, log-probability), ...]) for every file, captioned by a model.

    The captions are all those of the model, best first. Of many files, those that cannot be read should be left out
    before (`readable_files`), or the error comes after the captions of others. `seed` is that of `caption`.

    Raises:
      UserError: files cannot be read, and `skip_bad_images` is False or they are a whole batch.
    """
    with progress_bar(len(files), "captions", "image", shown=len(files) > BATCH) as bar:
        for i in range(0, len(files), BATCH):
            yield from _of_batch(captioner, files[i : i + BATCH], skip_bad_images, seed)
            bar.update(min(BATCH, len(files) - i))


@contextlib.contextmanager
def as_traced(wanted: bool) -> Iterator[None]:
    """Runs models in the block without optimizing their graphs, if `wanted`.

    That takes two seconds at the first call, which a few images do not repay.
    """
    options = tf.config.optimizer
    before = options.get_experimental_options().get("disable_meta_optimizer", False)
    options.set_experimental_options({"disable_meta_optimizer": before or wanted})
    try:
        yield
    finally:
        options.set_experimental_options({"disable_meta_optimizer": before})


def ids_by_name(path: str) -> dict[str, ImageId]:
    """Returns the ids of the images of a captions file by file name, and by its last part where that is one image's.

    Raises:
      UserError: the file cannot be used, or names no files.
    """
    listed = [one for one in read_images(path) if one.file_name]
    if not listed:
        raise UserError(f"--captions={path} names no files; give a file with the ids and the names of images")
    last = collections.Counter(os.path.basename(one.file_name) for one in listed)
    short = {os.path.basename(one.file_name): one.image_id for one in listed}
    return {n: i for n, i in short.items() if last[n] == 1} | {one.file_name: one.image_id for one in listed}


def ids_of_names(names: Sequence[str], ids: Mapping[str, ImageId]) -> dict[str, ImageId]:
    """Returns the id of each image for a results file: as `ids` has it; without ids, the file's name.

    Where two files have one name, their paths are the ids.

    Raises:
      UserError: there are ids, but not of all images.
    """
    if not ids:
        last = {name: os.path.basename(name) for name in names}
        return last if len(set(last.values())) == len(last) else {name: name for name in names}
    found = {name: next((ids[tail] for tail in _tails(name) if tail in ids), None) for name in names}
    unknown = [name for name, image_id in found.items() if image_id is None]
    reject("--captions", "images are not in that file", unknown, "caption those of the file alone, or leave it out")
    return found


def _tails(name: str) -> Iterator[str]:
    """The path, then without its first folder, and so on."""
    parts = pathlib.PurePath(name).parts
    yield from (os.path.join(*parts[first:]) for first in range(len(parts)))


def _of_batch(
    captioner: ServedCaptioner, files: Sequence[pathlib.Path], skip_bad_images: bool, seed: int | None
) -> list[tuple[pathlib.Path, list[tuple[str, float]]]]:
    try:
        return list(zip(files, captioner.caption_bytes([file.read_bytes() for file in files], seed), strict=True))
    except (OSError, UserError):
        good = readable_files(files, skip_bad_images, captioner.max_pixels)  # names those that vanished or changed
        if len(good) == len(files):
            raise
    return _of_batch(captioner, good, skip_bad_images, seed)
