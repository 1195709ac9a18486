"""The file of a parser: its weights and its lists of words."""

import pathlib
from collections.abc import Iterable

import numpy as np

from spidercap.models.scene_parser import SceneParser, SceneParserSizes
from spidercap.pipeline.files import UNREADABLE, written_aside
from spidercap.pipeline.metrics.spice_fast.lemmas import Lemmas
from spidercap.pipeline.metrics.spice_fast.parser import SceneGraphParser
from spidercap.pipeline.metrics.spice_fast.version import NUMBER, PACKAGED, unreadable, version_of

TEXTS = ("words", "labels", "nouns", "verbs", "lemmas")  # lists of strings in the file


def save_parser(path: pathlib.Path, parser: SceneGraphParser, number: int = 1) -> str:
    """Writes the .npz file that `load_parser` reads, whole or not at all; weights are float16.

    Args:
      path: of the file.
      parser: the parser.
      number: the first part of its version, which is returned.
    """
    lemmas = parser.lemmas
    texts = {
        "words": parser.words,
        "labels": parser.labels,
        "nouns": _pairs(lemmas.nouns.items()),
        "verbs": _pairs(lemmas.verbs.items()),
        "lemmas": sorted(lemmas.known),
    }
    arrays = {name: np.frombuffer("\n".join(lines).encode(), np.uint8) for name, lines in texts.items()}
    arrays |= {f"weight {v.path}": v.numpy().astype(np.float16) for v in parser.network.weights}
    arrays["sizes"] = np.array(parser.network.sizes, np.int64)
    arrays[NUMBER] = np.array(number, np.int64)
    with written_aside(path) as aside:
        np.savez_compressed(aside, **arrays)
    return version_of(arrays)


def load_parser(path: pathlib.Path = PACKAGED) -> SceneGraphParser:
    """Returns a saved parser, by default the packaged one.

    Raises:
      UserError: the file does not exist or has another format.
    """
    try:
        # Opened here: NumPy leaves a file open that turns out to be no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            saved = dict(archive)
            lists = {name: bytes(saved[name]).decode() for name in TEXTS}
            lists = {name: text.split("\n") if text else [] for name, text in lists.items()}
            nouns, verbs = (dict(pair.split(" ", 1) for pair in lists[name]) for name in ("nouns", "verbs"))
            network = SceneParser(SceneParserSizes(*(int(size) for size in saved["sizes"])))
            for variable in network.weights:
                variable.assign(saved[f"weight {variable.path}"].astype(np.float32))
        if (network.sizes.words, network.sizes.labels) != (1 + len(lists["words"]), len(lists["labels"])):
            raise ValueError("its numbers of words and labels do not match its weights")
        lemmas = Lemmas(nouns, verbs, lists["lemmas"])
        return SceneGraphParser(network, lists["words"], lemmas, lists["labels"], version_of(saved))
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{word} {lemma}" for word, lemma in sorted(pairs)]
