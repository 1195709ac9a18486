"""Maps of a captioner's attention on a page: one small copy of the image for each word of a caption."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from spidercap.pipeline.report.data_uris import data_uri

# The thirds of an image, from the top and from the left.
_NAMES = (("upper left", "top", "upper right"), ("left", "centre", "right"), ("lower left", "bottom", "lower right"))
# Red, green, blue and opacity, of no weight, half of the highest one, and the highest one. The image shines through.
_COLOURS = np.array([(20, 20, 90, 140), (200, 40, 90, 115), (255, 220, 40, 180)])
_LEAST_TOP = 3  # times the mean weight: attention that is almost even shall not look sharp
_EVEN = 1.25 / 9  # of the weights in the strongest ninth


@dataclass(frozen=True)
class WordMaps:
    """The attention before each word of a caption."""

    stage: str
    image: bytes  # JPEG or PNG, small
    ratio: float  # width / height of the image
    words: Sequence[str]
    weights: np.ndarray  # [W, R, R]: down the image, then to the right; those of a word sum to 1


def map_list(maps: WordMaps) -> str:
    """Returns the maps of a caption as HTML: for each word the image, the weights over it, and the word.

    The image is there once. The weights are a PNG of one pixel a cell, which the browser scales up.
    """
    top = max(float(maps.weights.max()), _LEAST_TOP / maps.weights[0].size)
    items = "\n".join(_item(word, weights, top) for word, weights in zip(maps.words, maps.weights, strict=True))
    style = f"--image:url({data_uri(maps.image)});--ratio:{maps.ratio:.3f}"
    heading = f"<h3>Where {escape(maps.stage)} looked before each word</h3>"
    return f'<div class="maps">\n{heading}\n<ol style="{style}">\n{items}\n</ol>\n</div>'


def _item(word: str, weights: np.ndarray, top: float) -> str:
    word, where = escape(word), strongest(weights)
    map_ = f'<img alt="looked at: {where}" title="{word}: {where}" src="{data_uri(heat(weights, top))}">'
    return f"<li><span>{word}</span><div>{map_}</div></li>"


def heat(weights: np.ndarray, top: float) -> bytes:
    """Returns a PNG of R x R pixels, one for each of the weights `[R, R]`: dark blue for 0, by red to yellow, `top`."""
    stops, shares = np.linspace(0, 1, len(_COLOURS)), np.clip(weights / top, 0, 1)
    channels = [np.interp(shares, stops, of_channel) for of_channel in _COLOURS.T]
    return _png(np.round(np.stack(channels, axis=-1)).astype(np.uint8))


def _png(pixels: np.ndarray) -> bytes:
    """Uint8 `[height, width, 4]` as a PNG; by hand, because pages of other modes are made without TensorFlow."""
    height, width, _ = pixels.shape
    header = struct.pack(">2I5B", width, height, 8, 6, 0, 0, 0)  # 8 bits a sample; red, green, blue and opacity
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: no filter
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def strongest(weights: np.ndarray) -> str:
    """Returns the ninth of the image with the most of the weights `[R, R]`, and how much: 'upper left 41%'.

    Of weights that are almost even it names none.
    """
    covered = _thirds(len(weights))
    sums = covered @ weights @ covered.T
    if sums.max() < _EVEN:
        return "all parts alike"
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    return f"{_NAMES[row][column]} {100 * sums[row, column]:.0f}%"


def _thirds(side: int) -> np.ndarray:
    """`[3, R]`: how much of each of R rows lies in each third of the image."""
    edges, cells = np.arange(4)[:, None] / 3, np.arange(side)
    below = np.clip(edges * side - cells, 0, 1)  # of each cell, what lies before each edge
    return np.diff(below, axis=0)
