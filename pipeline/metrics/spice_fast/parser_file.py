"""The file of a parser: its weights and its lists of words."""

import pathlib
from collections.abc import Iterable

import numpy as np

from spidercap.models.scene_parser import SceneParser, SceneParserSizes
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import UNREADABLE, written_aside
from spidercap.pipeline.metrics.spice_fast.lemmas import Lemmas
from spidercap.pipeline.metrics.spice_fast.parser import SceneGraphParser

PACKAGED = pathlib.Path(__file__).with_name("parser.npz")
TEXTS = ("words", "labels", "nouns", "verbs", "lemmas")  # lists of strings in the file


def save_parser(path: pathlib.Path, parser: SceneGraphParser) -> None:
    """Writes the .npz file that `load_parser` reads, whole or not at all; weights are float16."""
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
    with written_aside(path) as aside:
        np.savez_compressed(aside, **arrays)


def load_parser(path: pathlib.Path = PACKAGED) -> SceneGraphParser:
    """Returns a saved parser, by default the packaged one.

    Raises:
      UserError: the file does not exist or has another format.
    """
    try:
        # Opened here: NumPy leaves a file open that turns out to be no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            lists = {name: bytes(saved[name]).decode() for name in TEXTS}
            lists = {name: text.split("\n") if text else [] for name, text in lists.items()}
            nouns, verbs = (dict(pair.split(" ", 1) for pair in lists[name]) for name in ("nouns", "verbs"))
            network = SceneParser(SceneParserSizes(*(int(size) for size in saved["sizes"])))
            for variable in network.weights:
                variable.assign(saved[f"weight {variable.path}"].astype(np.float32))
        if (network.sizes.words, network.sizes.labels) != (1 + len(lists["words"]), len(lists["labels"])):
            raise ValueError("its numbers of words and labels do not match its weights")
        return SceneGraphParser(network, lists["words"], Lemmas(nouns, verbs, lists["lemmas"]), lists["labels"])
    except UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read as a parser ({error}); needed: a whole .npz file written by "
            "python -m pipeline.parser_training.main"
        ) from error


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{word} {lemma}" for word, lemma in sorted(pairs)]
