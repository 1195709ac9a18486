"""Image captions trained on the metrics that captions are judged by."""

import pathlib

if not (pathlib.Path(__path__[0]) / "pipeline").is_dir():  # a checkout, in which the folders lie beside this one
    __path__.append(str(pathlib.Path(__path__[0]).parent))
