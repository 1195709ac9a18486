"""Trains image captioners on the metrics by which captions are judged.

    scores = spidercap.score(references, candidates, metrics="bleu,rouge,cider")
    captioner = spidercap.load("runs/quickstart")
    captions = captioner.caption(["photo.jpg"])

The public names are listed in `__all__`; each is loaded when it is first used.
"""

import pathlib
import pkgutil

if not (pathlib.Path(__path__[0]) / "pipeline").is_dir():  # a checkout, with the folders beside this one
    __path__.append(str(pathlib.Path(__path__[0]).parent))

_PUBLIC = {
    "score": "spidercap.pipeline.evaluation.scoring:score",
    "load": "spidercap.pipeline.api:load",
    "train": "spidercap.pipeline.api:train",
    "Bleu": "spidercap.pipeline.metrics.bleu:Bleu",
    "Rouge": "spidercap.pipeline.metrics.rouge:Rouge",
    "Cider": "spidercap.pipeline.metrics.cider:Cider",
    "count_document_frequencies": "spidercap.pipeline.metrics.document_frequencies:count_document_frequencies",
    "estimators": "spidercap.pipeline.training.estimators",
    "UserError": "spidercap.pipeline.errors:UserError",
    "Interrupted": "spidercap.pipeline.errors:Interrupted",
}
__all__ = tuple(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'spidercap' has no attribute {name!r}; public are {', '.join(_PUBLIC)}")
    return pkgutil.resolve_name(_PUBLIC[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
