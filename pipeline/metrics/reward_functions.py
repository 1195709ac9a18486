"""Reward functions of the user: Python functions on captions as text, from the files of --reward_functions.

A function takes (captions: list[str], references: list[list[str]], image_ids: list) and returns one number per
caption, as a list or an array. Captions and references are tokenised, words separated by one space. Image ids are
those of the data set, integers or text.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.registry import GROUPS, METRICS, spelled
from spidercap.pipeline.text.coco_json import ImageId

RewardFunction = Callable[[list[str], list[list[str]], list[ImageId]], Sequence[float]]

FORM = "name=file.py:function"
FROM_PYTHON = "python"  # in place of a file: the caller passes the function


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of a reward function."""

    path: str
    function: str


def parse_reward_functions(text: str) -> dict[str, Place]:
    """Returns the places in a text such as 'brevity=my_rewards.py:brevity,...' by name; reads no file.

    Raises:
      UserError: the text has another form, or a name is that of a metric or comes twice.
    """
    places: dict[str, Place] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(rf"([^=]*)=(.+\.py|{FROM_PYTHON}):([^:]*)", part)
        if not match:
            raise UserError(f"--reward_functions: {part!r} is not {FORM}; for example brevity=my_rewards.py:brevity")
        name, path, function = (piece.strip() for piece in match.groups())
        _check_name(name)
        if name in places:
            raise UserError(f"--reward_functions: {name} comes twice ({text}); give it once")
        places[name] = Place(path, function)
    return places


def load_reward_functions(text: str, given: Mapping[str, RewardFunction]) -> dict[str, RewardFunction]:
    """Returns the functions of --reward_functions by name; those of FROM_PYTHON are taken from `given`.

    A file is executed once per process.

    Raises:
      UserError: a file does not exist, fails or lacks the function, or a function of FROM_PYTHON is not given.
    """
    return {name: _function(name, place, given) for name, place in parse_reward_functions(text).items()}


def named_from_python(given: Mapping[str, RewardFunction]) -> str:
    """Returns the text of --reward_functions for functions that are passed from Python.

    Raises:
      UserError: one is not a function of three arguments.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"reward_functions is a {type(given).__name__}; needed: a dict of functions by name")
    for name, function in given.items():
        _check_name(str(name))
        if not callable(function):
            raise UserError(f"reward_functions: {name} is a {type(function).__name__}; needed: a function")
        _check_arguments(name, function)
    return ",".join(f"{name}={FROM_PYTHON}:{name}" for name in given)


def call_reward_function(
    name: str, function: RewardFunction, captions: list[str], references: list[list[str]], image_ids: list[ImageId]
) -> np.ndarray:
    """Returns float32 `[N]`, the function's rewards of N captions.

    Raises:
      UserError: the function raised, or did not return N finite numbers; the message names it, its file, and the line
        or the caption.
    """
    asked = list(zip(captions, image_ids, strict=True))  # copied, as the function may change its lists
    count = len(asked)
    path = _path(function)
    who = f"the reward function {name} ({path}:{getattr(function, '__name__', type(function).__name__)})"
    try:
        result = function(captions, references, image_ids)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the function raises: it is to be named
        raise UserError(f"{who} raised {_described(error, path)}; fix it, then the same command resumes") from error
    needed = f"needed: a list or an array of {count} numbers, one per caption"
    try:
        numbers = np.asarray(result)
        if np.ma.isMaskedArray(result):
            raise TypeError("some numbers may be masked")
    except Exception as error:  # lists of different lengths, or a symbolic tensor
        raise UserError(f"{who} did not return an array ({type(error).__name__}: {error}); {needed}") from error
    if numbers.ndim == 1 and len(numbers) != count:
        raise UserError(f"{who} returned {len(numbers)} numbers for {count} captions; {needed}")
    if numbers.ndim != 1 or numbers.dtype.kind not in "biuf":
        raise UserError(f"{who} returned {_short(result)}; {needed}")
    with np.errstate(over="ignore"):
        numbers = numbers.astype(np.float32)
    for (caption, image_id), number in zip(asked, numbers, strict=True):
        if not np.isfinite(number):
            raise UserError(
                f"{who} returned {number} for the caption {caption!r} of image {image_id}; needed: finite numbers"
            )
    return numbers


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise UserError(f"--reward_functions: {name!r} cannot be a name; allowed: letters, digits and _")
    if spelled(name) in (*METRICS, *GROUPS):
        raise UserError(f"--reward_functions: {name} is a metric; give the function another name")


def _function(name: str, place: Place, given: Mapping[str, RewardFunction]) -> RewardFunction:
    if place.path == FROM_PYTHON:
        if name not in given:
            raise UserError(f"--reward_functions: {name} was given from Python; run it from there, or give {FORM}")
        return given[name]
    path = pathlib.Path(os.path.expanduser(place.path))
    if not path.is_file():
        raise UserError(f"--reward_functions: {place.path} is not a file, so {name} cannot be loaded; needed: {FORM}")
    module = _module(path.resolve())
    function = vars(module).get(place.function)
    if not callable(function):
        missing = "is not a function" if place.function in vars(module) else "does not exist"
        here = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
        raise UserError(
            f"--reward_functions: {place.function!r} {missing} in {place.path}; "
            f"functions there: {', '.join(here) or 'none'}"
        )
    _check_arguments(f"{place.function} of {place.path}", function)
    return function


def _check_arguments(name: str, function: RewardFunction) -> None:
    try:
        inspect.signature(function).bind([], [], [])
    except TypeError as error:
        raise UserError(
            f"--reward_functions: {name} cannot be called ({error}); "
            "it takes three arguments: captions, references, image_ids"
        ) from error
    except ValueError:
        pass  # some built-in functions have no signature


def _module(path: pathlib.Path) -> ModuleType:
    """The file as a module with a unique name, so that it hides no other module."""
    name = f"spidercap_rewards_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    sys.modules[name] = module  # before it is executed, because dataclasses and pickle look there
    sys.path.insert(0, folder)  # for imports of files beside it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"--reward_functions: {path} cannot be imported: {_described(error, str(path))}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _path(function: RewardFunction) -> str:
    """The file that defines a function, or the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return inspect.getfile(inspect.unwrap(function))
    except (TypeError, ValueError):  # a callable object; a function that wraps itself
        module = sys.modules.get(type(function).__module__)
        return getattr(module, "__file__", None) or type(function).__module__


def _described(error: BaseException, path: str) -> str:
    """Type, message and line in the file at `path`; if that is not in the traceback, the file and line that raised."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{type(error).__name__}: {error.msg}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename == path]
    where = f"line {inside[-1].lineno}" if inside else f"{frames[-1].filename}, line {frames[-1].lineno}"
    return f"{type(error).__name__}: {' '.join(_text(error, str).split())}, {where}"


def _short(value: Any) -> str:
    text = _text(value, repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _text(value: Any, written: Callable[[Any], str]) -> str:
    """The value as text, also where the user's own class fails to give one."""
    try:
        return written(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be printed"
