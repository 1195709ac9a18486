"""The formats of exported models: one row each. Without TensorFlow, as settings are checked by it."""

import dataclasses
import importlib.util

SAVED_MODEL = "saved_model"


@dataclasses.dataclass(frozen=True)
class Portable:
    """A format that needs no TensorFlow where it runs."""

    file: str  # of the model
    module: str  # has convert(graph, path), and load(path) -> run(pixels) -> (ids, log_prob)
    packages: tuple[str, ...]  # modules to import; the extra of setup.cfg that brings them has the format's name

    def missing(self) -> list[str]:
        """Returns those of `packages` that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


# Beside SAVED_MODEL, which is always written. The names are those of the flag --export_format.
PORTABLE: dict[str, Portable] = {
    "litert": Portable("captioner.tflite", "spidercap.export.litert_file", ("ai_edge_litert",)),
    "onnx": Portable("captioner.onnx", "spidercap.export.onnx_file", ("tf2onnx", "onnx", "onnxruntime")),
}


def spelled_formats(text: str) -> str:
    """Returns a list of formats in its one spelling: each name once, SAVED_MODEL first."""
    names = [name.strip().lower() for name in text.split(",")]
    return ",".join(dict.fromkeys([SAVED_MODEL, *filter(None, names)]))
