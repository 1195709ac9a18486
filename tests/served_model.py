"""A small exported model, good and bad images for it, and the outside programs that serve it."""

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from spidercap.export.saved_model import export
from spidercap.models.images import decode_image, resize_image
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END, SPECIAL_TOKENS

SIDE, T = 32, 5
WORDS = (*SPECIAL_TOKENS, "ein", "rød", "二", "dog", "cat")
HERE = pathlib.Path(__file__).parent
LIBRARY = pathlib.Path(tf.__file__).parent / "libtensorflow_cc.so.2"


def image(seed: int, height: int = 40, width: int = 48, encode=tf.io.encode_jpeg) -> bytes:
    """Returns an encoded image of large squares."""
    squares = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3))
    return encode(tf.constant(np.repeat(np.repeat(squares, 8, 0), 8, 1), tf.uint8)).numpy()


def bad_images() -> dict[bytes, str]:
    """Returns what is no whole image, and the reason with which each is refused."""
    png = image(1, 80, 96, tf.io.encode_png)
    middle = len(png) // 2
    damaged = png[:middle] + bytes(255 - byte for byte in png[middle : middle + 20]) + png[middle + 20 :]
    huge = png[:16] + (12000).to_bytes(4, "big") * 2 + png[24:]
    return {
        b"": "is empty",
        b"<html>502 Bad Gateway</html>": "is no image",
        image(0)[:200]: "is cut off or damaged",
        damaged: "is cut off or damaged",
        huge: "has 12000 x 12000 pixels, more than the 50000000 allowed",
    }


def make_model(folder: pathlib.Path) -> pathlib.Path:
    """Returns an exported model whose captions differ between images; its encoder averages pixels."""
    layers = keras.layers
    encoder = keras.Sequential([keras.Input([SIDE, SIDE, 3]), layers.AveragePooling2D(16), layers.Flatten()])
    keras.utils.set_random_seed(1)
    captioner = LstmCaptioner(len(WORDS), encoder.output_shape[1], units=6, embedding_size=5, dropout=0.0)
    captioner.adapt(encoder(np.stack([resize_image(decode_image(image(i)), SIDE) for i in range(8)])).numpy())
    rng = np.random.default_rng(4)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 2, weight.shape))
    captioner.words.bias.assign(np.where(np.arange(len(WORDS)) == END, -3, 0))  # or captions would be empty
    return export(encoder, captioner, WORDS, T, folder, [image(0), image(1)])


def asking(serve: Callable) -> Callable[[Sequence[bytes]], tuple[list[str], list[str]]]:
    """Returns the function encoded images -> (captions, errors) of the signature serving_default."""

    def ask(images: Sequence[bytes]) -> tuple[list[str], list[str]]:
        found = serve(image_bytes=tf.constant(images))
        captions, errors = ([text.decode() for text in found[name].numpy()] for name in ("caption", "error"))
        return captions, errors

    return ask


def tensors(model: pathlib.Path, names: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the names that `image_bytes` and these outputs of serving_default have in the graph."""
    signature = parse_saved_model(str(model)).meta_graphs[0].signature_def["serving_default"]
    return signature.inputs["image_bytes"].name, [signature.outputs[name].name for name in names]


def by_c_library(
    model: pathlib.Path, images: Sequence[bytes], names: Sequence[str], scratch: pathlib.Path
) -> dict[str, list]:
    """Returns outputs of serving_default by the C library in a process without TensorFlow's Python."""
    name, outputs = tensors(model, names)
    request = {"library": str(LIBRARY), "model": str(model), "input": name, "outputs": outputs}
    request["images"] = [str(path) for path in written(images, scratch)]
    (scratch / "request.json").write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-I", str(HERE / "c_library.py"), str(scratch / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(zip(names, json.loads(done.stdout.splitlines()[-1]), strict=True))


def by_first_version(model: pathlib.Path, images: Sequence[bytes]) -> list[str]:
    """Returns the captions by the loader of TensorFlow 1."""
    name, (caption,) = tensors(model, ["caption"])
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(model))
        return [one.decode() for one in session.run(caption, {name: list(images)})]


def java_path(version: str, native: str, scratch: pathlib.Path) -> str:
    """Returns the class path of TensorFlow Java of a version, downloaded by Maven if it is not in its repository.

    Args:
      version: of org.tensorflow:tensorflow-core-api.
      native: the artifact that has the libraries for linux-x86_64.
      scratch: a folder for the project file.

    Raises:
      RuntimeError: Maven is not there or does not answer.
    """
    if not shutil.which("mvn"):
        raise RuntimeError("the program mvn is missing")
    one = "<dependency><groupId>org.tensorflow</groupId><artifactId>{}</artifactId><version>{}</version>{}</dependency>"
    classifier = "<classifier>linux-x86_64</classifier>"
    needed = one.format("tensorflow-core-api", version, "") + one.format(native, version, classifier)
    (scratch / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>check</groupId><artifactId>check</artifactId>"
        f"<version>1</version><dependencies>{needed}</dependencies></project>",
        encoding="utf-8",
    )
    found = scratch / "class_path.txt"
    command = ["mvn", "-q", "-B", "-f", scratch / "pom.xml", "dependency:build-classpath"]
    done = subprocess.run([*command, f"-Dmdep.outputFile={found}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Maven: {(done.stdout or done.stderr).strip()[:300]}")
    return found.read_text(encoding="utf-8")


def by_java(model: pathlib.Path, images: Sequence[bytes], class_path: str, scratch: pathlib.Path) -> list[str]:
    """Returns the captions by TensorFlow Java."""
    name, (caption,) = tensors(model, ["caption"])
    subprocess.run(["javac", "-cp", class_path, "-d", scratch, HERE / "ServeCheck.java"], check=True)
    command = ["java", "-cp", f"{scratch}:{class_path}", "ServeCheck", model, name, caption]
    done = subprocess.run([*command, *written(images, scratch)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    said = [line for line in done.stdout.splitlines() if line.startswith("caption:")]
    return [line.removeprefix("caption:").removeprefix(" ") for line in said]


def written(images: Sequence[bytes], folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of new files with these contents."""
    paths = [folder / f"image_{i}" for i in range(len(images))]
    for path, content in zip(paths, images, strict=True):
        path.write_bytes(content)
    return paths
