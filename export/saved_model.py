"""The captioner as a SavedModel: image bytes in, captions out. Loading it needs TensorFlow alone."""

import json
import pathlib
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from spidercap.export.old_servers import make_readable
from spidercap.export.server import DEFAULT, SEEDED, Server
from spidercap.export.versions import numbered
from spidercap.export.vocabulary_file import VOCABULARY, vocabulary_text
from spidercap.export.warmup import FILE as WARMUP
from spidercap.export.warmup import write_warmup
from spidercap.models.captioner import Captioner
from spidercap.models.decoder import Decoder
from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import written_aside

CHECK = pathlib.Path(__file__).with_name("check.py")
# In a folder that model servers ignore.
EXTRA = pathlib.Path("assets.extra")
KEPT_DECODER, KEPT_SOURCE, KEPT_DIGESTS = EXTRA / "decoder.json", EXTRA / "source.txt", EXTRA / digests.NAME
KEPT_LIMIT, KEPT_VOCABULARY = EXTRA / "max_pixels.txt", EXTRA / VOCABULARY
MAX_PIXELS = 50_000_000  # of an image, width x height
TOLERANCE = 1e-4  # of log-probabilities, which are sums of up to T rounded numbers


class CheckFailed(Exception):
    """The written model has other outputs than the one in memory."""


def export(
    encoder: keras.Model | None,
    captioner: Captioner,
    words: Sequence[str],
    max_length: int,
    folder: pathlib.Path,
    examples: Sequence[bytes] | np.ndarray,
    decoder: Decoder | None = None,
    source: str = "",
    max_pixels: int = MAX_PIXELS,
    beside: Mapping[str, str] = types.MappingProxyType({}),
) -> pathlib.Path:
    """Returns the new folder `<folder>/<version>`: written under another name, checked in a fresh process, renamed.

    The fresh process captions the examples: encoded images, or features `[N, F]` if there is no encoder. Its captions
    must equal those of the model in memory; those of a decoder that draws are drawn by the same seeds. The default
    `decoder` is greedy; its settings are stored with the model, like `source`, which tells what it was made of.
    Of images of more than `max_pixels` the model says so in place of a caption. `beside` are texts by file name, to be
    kept where model servers ignore them.

    Raises:
      UserError: the model cannot be written.
      CheckFailed: the captions differ; no files are left.
    """
    decoder = decoder or Decoder()
    server = Server(encoder, captioner, words, max_length, decoder, max_pixels)
    path = folder / str(max([int(p.name) for p in numbered(folder)], default=0) + 1)
    with written_aside(path, sum(v.numpy().nbytes for v in server.weights)) as aside:
        tf.saved_model.save(server, str(aside), signatures=server.served())
        make_readable(aside / "saved_model.pb")
        (aside / EXTRA).mkdir()
        write_warmup(aside / EXTRA / WARMUP, "features" if encoder is None else "image_bytes", DEFAULT, examples)
        kept = {
            KEPT_VOCABULARY: vocabulary_text(words),
            KEPT_DECODER: decoder.to_json(),
            KEPT_SOURCE: source,
            KEPT_LIMIT: f"{max_pixels}\n",
            **{EXTRA / name: text for name, text in beside.items()},
        }
        for name, text in kept.items():
            (aside / name).write_text(text, encoding="utf-8")
        _check(aside, server, examples)
        (aside / KEPT_DIGESTS).write_text(digests.to_json(digests.tree(aside)), encoding="utf-8")
    return path


def kept_decoder(model: pathlib.Path) -> str:
    """Returns the `Decoder.to_json` of an exported model; without the file it is greedy."""
    path = model / KEPT_DECODER
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else Decoder().to_json()


def kept_source(model: pathlib.Path) -> str:
    """Returns the `source` that was given to `export`; '' without the file."""
    path = model / KEPT_SOURCE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def faults(model: pathlib.Path, needs_digests: bool = False) -> dict[str, str]:
    """Returns what is wrong with each file of an exported model, by its path.

    A model without digests, which earlier versions wrote, is sound unless it `needs_digests`.
    """
    if needs_digests and not (model / KEPT_DIGESTS).is_file():
        return {str(KEPT_DIGESTS): digests.LOST}
    try:
        return digests.faults(model, digests.recorded(model / EXTRA))
    except UserError:
        return {str(KEPT_DIGESTS): digests.DAMAGED}


def kept_max_pixels(model: pathlib.Path) -> int:
    """Returns the `max_pixels` that was given to `export`; 0 without the file, or if it holds no number."""
    path = model / KEPT_LIMIT
    text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else 0


def _check(folder: pathlib.Path, server: Server, examples: Sequence[bytes] | np.ndarray) -> None:
    """Compares a fresh process, which does not import this package, with the model in memory."""
    served, seeds = server.served(), tf.range(len(examples), dtype=tf.int64)
    found = served[SEEDED](tf.constant(examples), seeds) if SEEDED in served else served[DEFAULT](tf.constant(examples))
    expected = {name: value.numpy() for name, value in found.items()}
    expected = {k: np.char.decode(v.astype(bytes), "utf-8") if v.dtype == object else v for k, v in expected.items()}
    with tempfile.TemporaryDirectory() as scratch:
        seen, answers = pathlib.Path(scratch, "examples"), pathlib.Path(scratch, "answers.json")
        if isinstance(examples, np.ndarray):
            seen = seen.with_suffix(".npy")
            np.save(seen, examples)
        else:
            seen.mkdir()
            for i, image in enumerate(examples):
                (seen / f"{i:06d}").write_bytes(image)
        command = [sys.executable, "-P", str(CHECK), str(folder.resolve()), str(seen), str(answers)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, check=False)
        if done.returncode:
            raise CheckFailed(f"the exported model does not load:\n{done.stderr[-2000:]}")
        found = json.loads(answers.read_text(encoding="utf-8"))
    if found.keys() != expected.keys() or not all(_same(np.array(found[k]), v) for k, v in expected.items()):
        raise CheckFailed(f"the exported model returns {found}, the one in memory {expected}")


def _same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two outputs are equal, or floats that differ by rounding."""
    if found.shape != expected.shape:
        return False
    return np.allclose(found, expected, atol=TOLERANCE) if expected.dtype.kind == "f" else (found == expected).all()
