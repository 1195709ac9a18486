"""Writes the captioner in formats that run without TensorFlow: `<export>/<format>/<version>/`.

Model servers take only folders that are numbers for versions, so they do not see these. A folder holds the model,
vocabulary.txt and captioner.json, which tells what a program needs to know to call it.
"""

import importlib
import json
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np

from spidercap.export.formats import PORTABLE
from spidercap.export.pixels_graph import PixelsGraph
from spidercap.export.saved_model import CheckFailed
from spidercap.export.vocabulary_file import VOCABULARY, vocabulary_text
from spidercap.models.captioner import Captioner
from spidercap.models.special_tokens import END, PAD, START, UNKNOWN
from spidercap.pipeline import digests
from spidercap.pipeline.files import written_aside

DESCRIPTION, SOURCE = "captioner.json", "source.txt"
TOLERANCE = 1e-4  # of log-probabilities, absolute and relative
CELLS = (1, 4, 16, 64)  # side in pixels of the squares of the images that are checked


def portable_folder(folder: pathlib.Path, name: str, version: str) -> pathlib.Path:
    """Returns the place of a version in the format `name`, below the folder of all exported models."""
    return folder / name / version


def write_portable(
    encoder: keras.Model,
    captioner: Captioner,
    words: Sequence[str],
    max_length: int,
    name: str,
    path: pathlib.Path,
    source: str = "",
) -> None:
    """Writes the model in the format `name` to the new folder `path`, after running it as written.

    Args:
      encoder: pixels to features.
      captioner: features to tokens.
      words: the vocabulary, by id.
      max_length: T.
      name: a key of PORTABLE.
      path: the folder.
      source: what the model is made of, for `kept_source`.

    Raises:
      UserError: the folder cannot be written.
      CheckFailed: the format cannot hold this model, or its captions differ; no files are left.
    """
    graph, kind = PixelsGraph(encoder, captioner, max_length), PORTABLE[name]
    with written_aside(path, sum(weight.numpy().nbytes for weight in graph.weights)) as aside:
        aside.mkdir()
        run = _converted(graph, name, aside / kind.file)
        _check(graph, name, run)
        (aside / VOCABULARY).write_text(vocabulary_text(words), encoding="utf-8")
        (aside / DESCRIPTION).write_text(json.dumps(_description(graph, name), indent=1) + "\n", encoding="utf-8")
        (aside / SOURCE).write_text(source, encoding="utf-8")
        (aside / digests.NAME).write_text(digests.to_json(digests.tree(aside)), encoding="utf-8")


def kept_source(path: pathlib.Path) -> str | None:
    """Returns the `source` that was given to `write_portable`; None if the folder is damaged or not there."""
    if not (path / digests.NAME).is_file() or digests.faults(path, digests.recorded(path)):
        return None
    return (path / SOURCE).read_text(encoding="utf-8")


def _converted(graph: PixelsGraph, name: str, path: pathlib.Path) -> Callable:
    module = importlib.import_module(PORTABLE[name].module)
    try:
        module.convert(graph, path)
        return module.load(path)
    except OSError:
        raise  # of the disk
    except Exception as error:  # converters raise anything for a layer that they do not know
        raise CheckFailed(f"{name} cannot hold this model ({type(error).__name__}: {str(error)[:500]})") from error


def _check(graph: PixelsGraph, name: str, run: Callable) -> None:
    """Compares what the written model returns with the graph in memory, for one image and for several."""
    pixels = _examples(graph.image_size)
    expected = {key: value.numpy() for key, value in graph.pixels(pixels).items()}
    for count in (1, len(pixels)):
        ids, log_prob = run(pixels[:count])
        wanted = expected["ids"][:count], expected["log_prob"][:count]
        near = np.allclose(log_prob, wanted[1], rtol=TOLERANCE, atol=TOLERANCE)
        if ids.dtype != np.int32 or not np.array_equal(ids, wanted[0]) or not near:
            found = f"{ids.tolist()}, {np.asarray(log_prob).tolist()}"
            raise CheckFailed(f"{name} returns {found}, the model in memory {wanted[0].tolist()}, {wanted[1].tolist()}")


def _examples(size: int) -> np.ndarray:
    """Images `[n, S, S, 3]` of coloured squares, from noise to large areas, so that their captions may differ."""
    rng = np.random.default_rng(0)
    squares = [rng.uniform(0, 255, (-(-size // cell), -(-size // cell), 3)) for cell in CELLS]
    large = [np.kron(image, np.ones((cell, cell, 1))) for image, cell in zip(squares, CELLS, strict=True)]
    return np.stack([image[:size, :size] for image in large]).astype(np.float32)


def _description(graph: PixelsGraph, name: str) -> dict[str, object]:
    size, steps = graph.image_size, graph.max_length
    return {
        "model": PORTABLE[name].file,
        "vocabulary": VOCABULARY,
        "image_size": size,
        "max_length": steps,
        "pixels": {
            "dtype": "float32",
            "shape": ["N", size, size, 3],
            "range": [0, 255],
            "channels": "RGB",
            "resize": "bilinear with antialiasing, squeezed to the square, not cropped",
        },
        "ids": {"dtype": "int32", "shape": ["N", steps]},
        "log_prob": {"dtype": "float32", "shape": ["N"], "logarithm": "natural"},
        "special_tokens": {"padding": PAD, "start": START, "end": END, "unknown": UNKNOWN},
        "decoder": "greedy",
    }
