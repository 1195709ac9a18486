"""What an exported model costs to serve: time by part, throughput by batch and by callers, cold start, size.

    python -m benchmarks.serving [--model=FOLDER] [--json=FILE] [--quick]

Without --model, it exports a random InceptionV3 with a decoder of 512 units and 9,487 tokens, whose captions have the
lengths of a trained one's (benchmarks.lifelike). Ratios are to the bare encoder and decoder, in calls that alternate in
one run. With --model, the time of the encoder is that of the signature `encode`, less that of decoding the images.
It needs an idle machine and minutes.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import Report, timed
from benchmarks.lifelike import lifelike
from benchmarks.speed_measure import settled
from spidercap.export.saved_model import export
from spidercap.models.decoder import Decoder
from spidercap.models.encoder import build_encoder
from spidercap.models.images import decode_or_fault, resize_image
from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner

COLD_PARTS = ("import of TensorFlow", "load", "first caption", "second caption")
PARTS = ("images decoded", "encoder", "decoder")
RATE = "images/s"
COLD = """
import sys, time
begin = time.perf_counter()
import tensorflow as tf
imported = time.perf_counter()
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
loaded = time.perf_counter()
image = tf.constant([open(sys.argv[2], "rb").read()])
serve(image_bytes=image)["caption"].numpy()
first = time.perf_counter()
serve(image_bytes=image)["caption"].numpy()
print(imported - begin, loaded - imported, first - loaded, time.perf_counter() - first)
"""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the model that is made, and of the measurements."""

    encoder: str = "InceptionV3"
    image_size: int = 299
    vocabulary: int = 9487
    units: int = 512
    length: int = 20
    height: int = 480  # of the images, which are wider by a third
    images: int = 32
    batches: tuple[int, ...] = (1, 8, 32)
    callers: tuple[int, ...] = (1, 2, 4, 8)
    single: int = 200  # calls with one image, whose 99th percentile is told
    calls: int = 7  # with larger batches
    requests: int = 64  # of all callers together
    starts: int = 3


QUICK = Sizes("VGG16", 32, 200, 16, 8, 48, 4, (1, 2), (1, 2), 5, 2, 8, 1)


@dataclasses.dataclass(frozen=True)
class Served:
    """An exported model and its parts: the whole and the decoding take encoded images `[N]`."""

    folder: pathlib.Path
    whole: Callable[[tf.Tensor], object]
    decode: Callable[[tf.Tensor], tf.Tensor]  # -> pixels
    encode: Callable[[tf.Tensor], tf.Tensor]  # pixels -> features; of a given model, encoded images -> features
    caption: Callable[[tf.Tensor], object]  # of features
    bare: bool  # whether `encode` is the encoder alone


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns 1 if the folder holds no model of images."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="", help="folder of one exported version; default: one is made")
    parser.add_argument("--json", default="", help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything runs")
    flags = parser.parse_args(arguments)
    sizes, report = QUICK if flags.quick else Sizes(), Report()
    images = [photograph(seed, sizes.height) for seed in range(sizes.images)]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            served = given(pathlib.Path(flags.model)) if flags.model else made(pathlib.Path(scratch), sizes, images)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        report.log(f"{served.folder}, images of {sizes.height * 4 // 3} x {sizes.height}, {os.cpu_count()} cores")
        measure_size(report, served.folder)
        measure_cold_start(report, served.folder, images[0], sizes.starts)
        for batch in sizes.batches:
            measure_batch(report, served, images[:batch], sizes.single if batch == 1 else sizes.calls)
        measure_callers(report, served, images, sizes)
    print(report.table())
    if flags.json:
        report.write(pathlib.Path(flags.json))
    return 0


def photograph(seed: int, height: int) -> bytes:
    """Returns a JPEG about as large as that of a photograph of these sizes: soft shapes and a little noise."""
    rng = np.random.default_rng(seed)
    soft = tf.image.resize(rng.uniform(0, 255, (12, 16, 3)), [height, height * 4 // 3], "bicubic")
    noisy = soft + rng.normal(0, 6, soft.shape)
    return tf.io.encode_jpeg(tf.cast(tf.clip_by_value(noisy, 0, 255), tf.uint8), quality=90).numpy()


def made(folder: pathlib.Path, sizes: Sizes, images: Sequence[bytes]) -> Served:
    """Returns an untrained model of these sizes, exported, and the encoder and captioner that it was made of."""
    encoder = build_encoder(sizes.encoder, "random", sizes.image_size)
    width = encoder.output_shape[1]
    captioner = lifelike(sizes.vocabulary, sizes.units, width, images=256, max_length=sizes.length).captioner
    decode = decoding(sizes.image_size)
    encode = tf.function(lambda pixels: encoder(pixels, training=False), autograph=False)
    captioner.adapt(encode(decode(tf.constant(images))).numpy())  # to the range that its lengths were made for
    words = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(len(SPECIAL_TOKENS), sizes.vocabulary))]
    path = export(encoder, captioner, words, sizes.length, folder, images[:2])
    caption = tf.function(lambda features: Decoder().captions(captioner, features, sizes.length), autograph=False)
    return Served(path, ExportedCaptioner(path).caption_bytes, decode, encode, caption, bare=True)


def given(folder: pathlib.Path) -> Served:
    """Returns the model of a folder with its parts, as far as its signatures tell them apart.

    Raises:
      UserError: it holds no model, or one that takes features.
    """
    captioner = ExportedCaptioner(folder)
    if captioner.takes_features:
        raise UserError(f"{folder} takes features; name a model of images")
    signatures = tf.saved_model.load(str(folder)).signatures
    # A model without the signature `pixels` does not tell the size of its images, which the time hardly depends on.
    size = Sizes.image_size
    if "pixels" in signatures:
        size = signatures["pixels"].structured_input_signature[1]["pixels"].shape[1]
    encode, caption = signatures["encode"], signatures["features"]
    return Served(
        folder,
        captioner.caption_bytes,
        decoding(size),
        lambda encoded: encode(image_bytes=encoded)["features"],
        lambda features: caption(features=features),
        bare=False,
    )


def decoding(image_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function encoded images `[N]` -> pixels, which exported models begin with."""
    spec = tf.TensorSpec([image_size, image_size, 3], tf.float32)

    def read(one: tf.Tensor) -> tf.Tensor:
        return resize_image(decode_or_fault(one)[0], image_size)

    return tf.function(lambda encoded: tf.map_fn(read, encoded, fn_output_signature=spec), autograph=False)


def measure_size(report: Report, folder: pathlib.Path) -> None:
    """The size of the folder, and of its weights alone."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    kept = [name for name in types if name.startswith("weights/")]  # as export.server.Server names them
    weights = sum(int(np.prod(shapes[name])) * types[name].size for name in kept)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    graph = (folder / "saved_model.pb").stat().st_size
    report.add("weights", weights / 1e6, "MB")
    report.add("exported model", size / 1e6, "MB", size / weights)
    report.add("of it the graph", graph / 1e6, "MB", graph / weights)


def measure_cold_start(report: Report, folder: pathlib.Path, image: bytes, starts: int) -> None:
    """From a fresh process to its first caption."""
    report.log("cold start")
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "image")
        path.write_bytes(image)
        command = [sys.executable, "-I", "-c", COLD, str(folder.resolve()), str(path)]
        done = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(starts)]
    parts = np.array([[float(seconds) for seconds in line.split()] for line in done])
    report.add("cold start to the first caption", float(np.median(parts[:, :3].sum(axis=1))), "s")
    for name, seconds in zip(COLD_PARTS, np.median(parts, axis=0), strict=True):
        report.add(f"  {name}", float(seconds), "s")


def measure_batch(report: Report, served: Served, images: Sequence[bytes], calls: int) -> None:
    """The whole and its parts on one batch, in turns, so that other load on the machine affects all."""
    size = len(images)
    report.log(f"batch {size}")
    encoded = tf.constant(images)
    pixels = served.decode(encoded)
    seen = pixels if served.bare else encoded
    features = served.encode(seen)
    turns = [
        lambda: served.whole(images),
        lambda: settled(served.decode(encoded)),
        lambda: settled(served.encode(seen)),
        lambda: settled(served.caption(features)),
    ]
    for call in turns * 2:
        call()
    seconds = np.array([[timed(call)[0] for call in turns] for _ in range(calls)])
    if not served.bare:
        seconds[:, 2] -= seconds[:, 1]
    medians = 1000 * np.median(seconds, axis=0)
    whole, parts = float(medians[0]), medians[1:]
    ratio = float(np.median(seconds[:, 0] / seconds[:, 2:].sum(axis=1)))
    if size == 1:
        report.add("batch 1, 99th percentile", 1000 * float(np.quantile(seconds[:, 0], 0.99)), "ms")
    report.add(f"batch {size}, median", whole, "ms", ratio)
    for name, milliseconds in zip(PARTS, parts, strict=True):
        report.add(f"  {name}", float(milliseconds), "ms", float(milliseconds / parts[1:].sum()))
    report.add(f"batch {size}, throughput", 1000 * size / whole, RATE)


def measure_callers(report: Report, served: Served, images: Sequence[bytes], sizes: Sizes) -> None:
    """Threads that each caption one image at a time."""
    alone = 0.0
    for callers in sizes.callers:
        report.log(f"{callers} callers")
        seconds, times = timed(lambda callers=callers: concurrent(served, images, callers, sizes.requests))
        rate = len(times) / seconds
        alone = alone or rate
        name = f"{callers} at once, batch 1"
        report.add(f"{name}, throughput", rate, RATE, rate / alone)
        report.add(f"{name}, 99th percentile", 1000 * float(np.quantile(times, 0.99)), "ms")


def concurrent(served: Served, images: Sequence[bytes], callers: int, requests: int) -> list[float]:
    """Returns the seconds of each request, of which so many callers send one after the other."""

    def ask(number: int) -> float:
        return timed(lambda: served.whole([images[number % len(images)]]))[0]

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(ask, range(requests)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
