"""Captions what --mode=caption names, whatever model captions it."""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from spidercap.pipeline.data.feature_store import as_stored
from spidercap.pipeline.data.given_features import GivenFeatures, open_features
from spidercap.pipeline.data.image_files import readable_files
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import as_traced, caption_files, ids_by_name, ids_of_names
from spidercap.pipeline.evaluation.evaluate import all_captions
from spidercap.pipeline.evaluation.image_paths import image_files
from spidercap.pipeline.evaluation.served_captioner import BATCH, ServedCaptioner
from spidercap.pipeline.files import check_output, write_text
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.coco_json import ImageId
from spidercap.pipeline.text.printable import printable

Captions = list[tuple[str, float]]  # (caption, log-probability) of an image, best first
PART = 256  # features that are captioned together


def caption_given(
    config: Config,
    feature_size: int,
    captioner: Callable[[], ServedCaptioner],
    max_pixels: int = 0,
    images: Sequence[pathlib.Path] | None = None,
) -> None:
    """Prints one line per caption. With --output, the best captions are written as a COCO results file, too.

    Args:
      config: the settings.
      feature_size: F of the features that the model takes; 0 if it takes images.
      captioner: returns the model. It is called when all that is given was found to be usable.
      max_pixels: the limit of the model, if it is there already; 0 if it has to be made.
      images: image files; by default those that --images names, or the features of --features.

    Raises:
      UserError: something that is given cannot be used, or does not fit the model.
    """
    # Mistakes are reported before anything is exported. At the end of training, the captions are those of the run.
    ids = ids_by_name(config.data.captions) if config.data.captions and config.run.mode == "caption" else {}
    if config.metrics.output:
        for path in (config.metrics.output, str(_beside(config.metrics.output))):
            check_output("output", path, read=(config.data.captions,))
    from_features = images is None and bool(config.data.features)
    if bool(feature_size) != from_features:
        wanted = "images" if from_features else "features"
        raise UserError(f"{config.run.workdir} was trained on {wanted}; give --{wanted}")
    skip, seed = config.data.skip_bad_images, config.decoding.decode_seed
    if from_features:
        with open_features(config.data.features) as given:
            _check_size(given, feature_size)
            image_ids = ids_of_names(given.names, ids)
            _show(_of_features(captioner(), given, seed), image_ids, config.metrics.output)
        return
    files = image_files(config.data.images, skip) if images is None else images
    limit = config.data.max_pixels
    # A few are checked by the model itself, in less time, if there is one with this limit.
    if len(files) > BATCH or not max_pixels or max_pixels > limit:
        files = readable_files(files, skip, limit)
    image_ids = ids_of_names([str(file) for file in files], ids)
    captions = caption_files(captioner(), files, skip, seed)
    with as_traced(len(files) <= BATCH):
        _show(captions, image_ids, config.metrics.output)


def _show(captions: Iterable[tuple[object, Captions]], image_ids: Mapping[str, ImageId], output: str) -> None:
    """Prints (name, its captions) and writes a COCO results file, unless `output` is ''.

    Where images have several captions, all of them are written beside it, as by evaluation.
    """
    results, n_best = [], []
    for name, of_image in captions:
        for caption, log_prob in of_image:
            print(printable(f"{name}: {caption} (log-probability {log_prob:.2f})"))
        results.append({"image_id": image_ids[str(name)], "caption": of_image[0][0]})
        n_best.append(all_captions(image_ids[str(name)], of_image))
    if output:
        beside = _beside(output)
        beside.unlink(missing_ok=True)  # those of an earlier command are outdated
        write_text(pathlib.Path(output), json.dumps(results, indent=1) + "\n")
        print(f"results: {output}")
        if any(len(one["captions"]) > 1 for one in n_best):
            write_text(beside, json.dumps(n_best, indent=1) + "\n")
            print(f"all captions: {beside}")


def _beside(output: str) -> pathlib.Path:
    """The file of all captions beside the results file."""
    return pathlib.Path(output.removesuffix(".json") + ".n_best.json")


def _check_size(given: GivenFeatures, feature_size: int) -> None:
    if given.size != feature_size:
        raise UserError(
            f"--features={given.files[0].path} holds features of size {given.size}, and the run was trained on those "
            f"of size {feature_size}; give features of the same encoder"
        )


def _of_features(captioner: ServedCaptioner, given: GivenFeatures, seed: int) -> Iterator[tuple[str, Captions]]:
    names = given.names
    for first in range(0, len(names), PART):
        part = names[first : first + PART]
        rows = as_stored(given.rows(part, captioner.takes_parts))
        yield from zip(part, captioner.caption_features(rows, seed), strict=True)
