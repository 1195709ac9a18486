"""Captions of the same pixels by other runtimes and by smaller weights, compared with those of the SavedModel.

  python -m benchmarks.portable_runtimes --workdir=runs/photographs --images=images --node_modules=node_modules

The run must have been exported with --export_format=litert,onnx. LiteRT files with float16 and int8 weights are made of
it. OpenVINO and ONNX Runtime for JavaScript (in node) read its ONNX file. What is not installed is named and left out.
"""

import argparse
import importlib.util
import itertools
import json
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from benchmarks.portable import photographs
from spidercap.export import litert_file, onnx_file
from spidercap.export.formats import PORTABLE
from spidercap.export.pixels_graph import PixelsGraph
from spidercap.export.portable import portable_folder
from spidercap.export.versions import versions
from spidercap.models.images import decode_image, resize_image
from spidercap.pipeline.portable_exports import load_exported
from spidercap.pipeline.settings.flags import parse

ORDER = ("ids", "log_prob")
SMALLER = ("float16", "int8")
SCRIPT = """
const fs = require("fs"), {createRequire} = require("module");
const [modules, model, pixels, count, size] = process.argv.slice(1);
const ort = createRequire(modules + "/")("onnxruntime-web");
ort.env.wasm.numThreads = 1;
(async () => {
  const session = await ort.InferenceSession.create(fs.readFileSync(model), {executionProviders: ["wasm"]});
  const all = new Float32Array(fs.readFileSync(pixels).buffer), one = size * size * 3, found = [], seconds = [];
  for (let i = 0; i < count; i++) {
    const image = new ort.Tensor("float32", all.slice(i * one, (i + 1) * one), [1, Number(size), Number(size), 3]);
    const begun = performance.now();
    const {ids, log_prob} = await session.run({pixels: image});
    seconds.push((performance.now() - begun) / 1000);
    found.push([Array.from(ids.data), log_prob.data[0]]);
  }
  console.log(JSON.stringify([found, seconds]));
})();
"""

Found = tuple[np.ndarray, np.ndarray, list[float]]  # ids [N, T], log_prob [N], seconds of each image


def main() -> None:
    """Prints a line per runtime."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, help="folder of a run")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of JPEG files")
    parser.add_argument("--count", type=int, default=200, help="photographs, spread over the folder by name")
    parser.add_argument("--node_modules", type=pathlib.Path, help="folder where npm has put onnxruntime-web")
    flags = parser.parse_args()
    config = parse(["portable_runtimes", "--mode=export", f"--workdir={flags.workdir}"])
    models = load_exported(config)
    graph = PixelsGraph(models.encoder, models.captioner, config.data.max_length)
    files = photographs(flags.images, flags.count)
    pixels = np.stack([resize_image(decode_image(file.read_bytes()), graph.image_size) for file in files])
    version = versions(config.export_path())[-1]
    serve = tf.saved_model.load(str(version)).signatures["pixels"]
    expected = one_by_one(lambda image: (serve(pixels=tf.constant(image))[name].numpy() for name in ORDER), pixels)
    different = len({tuple(row) for row in expected[0]})
    print(f"{len(files)} photographs, {different} different captions by {version}, {ms(expected)}", flush=True)
    litert, onnx = (
        portable_folder(config.export_path(), name, version.name) / PORTABLE[name].file for name in ("litert", "onnx")
    )
    with tempfile.TemporaryDirectory() as place:
        scratch = pathlib.Path(place)
        for name, path, found in itertools.chain(
            by_litert(graph, litert, pixels, scratch),
            by_onnx(onnx, pixels, scratch, flags.node_modules),
        ):
            print(f"{name:<16} {compared(found, expected)}, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def by_litert(graph: PixelsGraph, full: pathlib.Path, pixels: np.ndarray, scratch: pathlib.Path) -> Iterator:
    """Yields (name, file, what it returns) for the run's file and for smaller ones."""
    yield "LiteRT", full, one_by_one(litert_file.load(full), pixels)
    for kind in SMALLER:
        converter = litert_file.converter_of(graph)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]  # int8 weights, float32 activations
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        path = scratch / f"{kind}.tflite"
        path.write_bytes(converter.convert())
        yield f"LiteRT, {kind}", path, one_by_one(litert_file.load(path), pixels)


def by_onnx(path: pathlib.Path, pixels: np.ndarray, scratch: pathlib.Path, modules: pathlib.Path | None) -> Iterator:
    """Yields (name, file, what it returns) for the runtimes that read an ONNX file."""
    yield "ONNX Runtime", path, one_by_one(onnx_file.load(path), pixels)
    if importlib.util.find_spec("openvino"):
        import openvino

        run = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        yield "OpenVINO", path, one_by_one(lambda image: (run({"pixels": image})[name] for name in ORDER), pixels)
    else:
        print("OpenVINO: not installed")
    if modules:
        yield "onnxruntime-web", path, by_node(path, pixels, scratch, modules)
    else:
        print("onnxruntime-web: no --node_modules given")


def by_node(path: pathlib.Path, pixels: np.ndarray, scratch: pathlib.Path, modules: pathlib.Path) -> Found:
    """Returns what ONNX Runtime for JavaScript finds in node."""
    pixels.tofile(scratch / "pixels")
    numbers = [str(len(pixels)), str(pixels.shape[1])]
    command = ["node", "-e", SCRIPT, modules.resolve(), path.resolve(), scratch / "pixels", *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, seconds = json.loads(done.stdout.splitlines()[-1])
    return np.array([ids for ids, _ in found]), np.array([log_prob for _, log_prob in found]), seconds


def one_by_one(run: Callable, pixels: np.ndarray) -> Found:
    """Returns what `run` returns for each image, given alone as where captions are made for a person."""
    ids, log_probs, seconds = [], [], []
    for image in pixels:
        begun = time.perf_counter()
        of_image, log_prob = run(image[None])
        seconds.append(time.perf_counter() - begun)
        ids.append(of_image[0])
        log_probs.append(log_prob[0])
    return np.stack(ids), np.stack(log_probs), seconds


def compared(found: Found, expected: Found) -> str:
    """Returns how many captions are the same, how far the log-probabilities of these are apart, and the time."""
    same = (found[0] == expected[0]).all(axis=1)
    apart = np.abs(found[1] - expected[1])[same].max(initial=0)
    return f"{same.sum()} of {len(same)} the same, log-probabilities to {apart:.1e}, {ms(found)}"


def ms(found: Found) -> str:
    """Returns the median time of an image, in which the first counts little."""
    return f"{1000 * np.median(found[2]):.0f} ms an image"


if __name__ == "__main__":
    main()
