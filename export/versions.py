"""The versions of an exported model: folders with numbers for names. Without TensorFlow."""

import pathlib


def versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the exported models in a folder, oldest first."""
    return [path for path in numbered(folder) if (path / "saved_model.pb").is_file()]


def numbered(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what has a version's name, whether a model or not: a new version may not take it."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
