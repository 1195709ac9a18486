"""Serves an exported model by all that loads SavedModels here, then under a load of callers: `make serve-check`.

    python -m tests.serve_check [--model=FOLDER] [--seconds=60] [--callers=20]

The loaders are TensorFlow's C library without Python, the loader of TensorFlow 1, and TensorFlow Java of three
versions, which Maven downloads once (337 MB). All captions must equal those of this process. Loads go over HTTP
to LitServe and to Triton, which pip installs in temporary environments, and which put images of several callers in one
batch. What cannot run is named and skipped; what fails makes the exit code 1.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from tests import http_check, served_model, serving_load

# version -> artifact with its libraries
JAVA = {"1.1.0": "tensorflow-core-native", "0.4.2": "tensorflow-core-api", "0.3.3": "tensorflow-core-api"}
IMAGES = 12
HTTP_CALLERS, HTTP_SECONDS = 8, 20

Captions = Callable[[pathlib.Path], list[str]]  # of a folder for temporary files


def main(arguments: Sequence[str]) -> int:
    """Prints a line per check; returns 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.serve_check", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="", help="folder of one exported version; default: a small one is made")
    parser.add_argument("--seconds", type=float, default=60, help="of the load")
    parser.add_argument("--callers", type=int, default=20, help="of the load")
    flags = parser.parse_args(arguments)
    failed = []
    with tempfile.TemporaryDirectory() as place:
        model = pathlib.Path(flags.model or served_model.make_model(pathlib.Path(place, "export"))).resolve()
        serve = tf.saved_model.load(str(model)).signatures["serving_default"]
        images = [served_model.image(i, 240, 320) for i in range(IMAGES)]
        expected = captions(serve, images)
        print(f"{model}: {len(set(expected))} different captions of {IMAGES} images, such as {expected[0]!r}")
        for name, call in loaders(model, images).items():
            scratch = pathlib.Path(tempfile.mkdtemp(dir=place))
            failed += check(name, call, scratch, expected)
        good = dict(zip(images, expected, strict=True))
        for name in http_check.SERVERS:
            failed += check_http(name, model, good, pathlib.Path(tempfile.mkdtemp(dir=place)))
        load = serving_load.run(
            served_model.asking(serve), good, served_model.bad_images(), flags.callers, flags.seconds
        )
        before, after = load.memory_before_and_after()
        memory = f"memory {before:.0f} then {after:.0f} MiB"
        failed += told("load", load, flags.callers, load.faults(), memory)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


class Skipped(Exception):
    """A check that cannot run here, and why."""


def loaders(model: pathlib.Path, images: Sequence[bytes]) -> dict[str, Captions]:
    """Returns by name what captions the images, given a folder for temporary files."""

    def c_library(scratch: pathlib.Path) -> list[str]:
        if not served_model.LIBRARY.is_file():
            raise Skipped(f"this TensorFlow has no {served_model.LIBRARY.name}")
        return served_model.by_c_library(model, images, ["caption"], scratch)["caption"]

    def java(version: str, native: str) -> Captions:
        def call(scratch: pathlib.Path) -> list[str]:
            if not shutil.which("javac"):
                raise Skipped("the program javac is missing")
            try:
                class_path = served_model.java_path(version, native, scratch)
            except RuntimeError as error:
                raise Skipped(str(error)) from error
            return served_model.by_java(model, images, class_path, scratch)

        return call

    return {
        "C library, no Python": c_library,
        "loader of TensorFlow 1": lambda scratch: served_model.by_first_version(model, images),
        **{f"TensorFlow Java {version}": java(version, native) for version, native in JAVA.items()},
    }


def check(name: str, call: Captions, scratch: pathlib.Path, expected: Sequence[str]) -> list[str]:
    """Prints whether a loader returns the expected captions; returns its name if it does not."""
    try:
        found = call(scratch)
    except Skipped as reason:
        print(f"{name}: skipped, {reason}", flush=True)
        return []
    except RuntimeError as error:
        print(f"{name}: FAILED\n{error}", flush=True)
        return [name]
    equal = list(found) == list(expected)
    print(f"{name}: {'all captions are equal' if equal else f'FAILED, {found} instead of {expected}'}", flush=True)
    return [] if equal else [name]


def check_http(name: str, model: pathlib.Path, good: dict[bytes, str], scratch: pathlib.Path) -> list[str]:
    """Prints what callers got from a server of HTTP; returns its name if something went wrong."""
    server = http_check.SERVERS[name]
    try:
        python = http_check.environment(server, scratch / "environment")
        with http_check.serving(server, python, model, scratch) as client:
            bad = served_model.bad_images()
            load = serving_load.run(client.ask, good, bad, HTTP_CALLERS, HTTP_SECONDS)
    except http_check.NotInstalled as reason:
        print(f"{name}: skipped, {reason}", flush=True)
        return []
    except RuntimeError as error:
        print(f"{name}: FAILED\n{error}", flush=True)
        return [name]
    faults = load.faults()
    if not client.beside_bad:
        faults.append("no good image shared its batch with a bad one; the load says nothing")
    batches = f"up to {client.largest_batch} images in a batch, {client.beside_bad:,} good ones in one with a bad one"
    return told(name, load, HTTP_CALLERS, faults, batches)


def told(name: str, load: serving_load.Load, callers: int, faults: Sequence[str], more: str) -> list[str]:
    """Prints what a load of callers did; returns its name if something went wrong."""
    print(
        f"{name}: {callers} callers, {load.seconds:.0f} s, {load.requests:,} requests, {load.images:,} images, "
        f"{load.refused:,} refused, {load.images / load.seconds:.1f} images/s, {more}",
        flush=True,
    )
    for fault in faults:
        print(f"{name}: FAILED, {fault}")
    return [name] if faults else []


def captions(serve: Callable, images: Sequence[bytes]) -> list[str]:
    """Returns the captions by this process."""
    return [text.decode() for text in serve(image_bytes=tf.constant(images))["caption"].numpy()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
