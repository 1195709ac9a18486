"""Files of images: which of them can be read, and why others cannot."""

import concurrent.futures
import contextlib
import os
import pathlib
import sys
import threading
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from spidercap.models.image_headers import ANY_SIZE, CUT_OFF, FORMATS, LARGE, OTHER, image_kind, read_header
from spidercap.models.images import decode_image
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.text.coco_json import first
from spidercap.pipeline.text.one_line import shown_name

MOST_NAMED = 100  # files that cannot be read, one per line
# Decoded at the same time, or the memory for images would grow with the number of cores.
_large_images = threading.Semaphore(2)


def has_image_format(beginning: bytes) -> bool:
    """Returns whether a file that begins so has a format that can be read."""
    return bool(image_kind(tf.constant(beginning)) != OTHER)


def image_fault(image: bytes, max_pixels: int = ANY_SIZE) -> str:
    """Returns why an encoded image cannot be read, as the end of a sentence about it; '' if it can.

    The image is decoded, unless its header shows that it has a fault, such as more than `max_pixels`.
    """
    image_bytes = tf.constant(image)
    header = read_header(image_bytes, max_pixels)
    if header.fault != "":
        return header.fault.numpy().decode()
    with _large_images if header.pixels > LARGE else contextlib.nullcontext():
        try:
            decode_image(image_bytes)
        except tf.errors.InvalidArgumentError:
            return CUT_OFF
    return ""


def readable_files(files: Sequence[pathlib.Path], skip_bad_images: bool, max_pixels: int) -> list[pathlib.Path]:
    """Returns the files that can be read; each is decoded once, with a progress bar if there are many.

    The others are named on stderr.

    Raises:
      UserError: none can be read, or some cannot and `skip_bad_images` is False.
    """
    if files:
        _file_fault(files[0], max_pixels)  # threads that trace at the same time take much longer than one
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = pool.map(lambda file: _file_fault(file, max_pixels), files)
        hidden = None if len(files) > MOST_NAMED else True
        wrong = list(tqdm(faults, "checking", total=len(files), unit="image", disable=hidden))
    good = [file for file, fault in zip(files, wrong, strict=True) if not fault]
    bad = [f"{shown_name(file)} {fault}" for file, fault in zip(files, wrong, strict=True) if fault]
    for line in bad[:MOST_NAMED]:
        print(f"warning: {line}", file=sys.stderr)
    if len(bad) > MOST_NAMED:
        print(f"warning: {len(bad) - MOST_NAMED} more images cannot be decoded", file=sys.stderr)
    if bad and not (skip_bad_images and good):
        remedy = "replace them" if skip_bad_images else "replace them, or leave them out with --skip_bad_images"
        raise UserError(
            f"{len(bad)} of {len(files)} images cannot be decoded ({first(bad)}); "
            f"allowed: whole {FORMATS} files of at most {max_pixels} pixels (--max_pixels); {remedy}"
        )
    if bad:
        print(f"skipping {len(bad)} of {len(files)} images that cannot be decoded: {first(bad)}", file=sys.stderr)
    return good


def _file_fault(file: pathlib.Path, max_pixels: int) -> str:
    try:
        return image_fault(file.read_bytes(), max_pixels)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
