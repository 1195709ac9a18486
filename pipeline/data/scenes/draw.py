"""Draws coloured shapes by signed distances, so that every edge is smooth at every size.

Coordinates are in units of the image's side, x to the right and y downwards, (0, 0) the upper left corner.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (214, 48, 49),
    "blue": (41, 98, 214),
    "green": (34, 150, 74),
    "yellow": (247, 206, 40),
    "orange": (243, 128, 26),
    "purple": (132, 60, 178),
    "black": (34, 34, 40),
    "pink": (244, 128, 180),
}
# The last one is a landscape: sky above, grass below.
BACKGROUNDS = {
    "white": (250, 249, 246),
    "grey": (178, 180, 184),
    "black": (24, 24, 30),
    "blue": (178, 212, 240),
    "pink": (250, 214, 224),
    "meadow": (172, 212, 244),
}
# Colours that would be almost invisible on the background.
HIDDEN = {
    "white": (),
    "grey": (),
    "black": ("black",),
    "blue": (),
    "pink": ("pink",),
    "meadow": ("green",),
}
_GRASS = (148, 196, 104)
_HORIZON = 0.66
_SHADOW = 0.03  # how far a shadow extends beyond its shape
# The largest extent of a shape from its centre, in radii, and the smallest slope of the distance beyond, per radius.
_REACH, _STEEPNESS = 1.25, 0.38


@dataclass(frozen=True)
class Thing:
    """One shape: its kind, colour and size by name, its centre, radius and rotation (radians)."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    turn: float


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _box(x, y, 0.86, 0.86)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.8) - 0.2


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x, y, 1.0, 0.34), _box(x, y, 0.34, 1.0))


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # An equilateral triangle is where three half-planes meet; it is moved down to look centred.
    low = y - 0.15
    return np.maximum(low, 0.866 * np.abs(x) - 0.5 * low) - 0.55


def _star(x: np.ndarray, y: np.ndarray, points: int = 5, inner: float = 0.45) -> np.ndarray:
    # Folding the plane into half a point leaves one straight edge, from the tip (1, 0) to the notch.
    half = np.pi / points
    angle = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    notch_x, notch_y = inner * np.cos(half), inner * np.sin(half)
    length = np.hypot(notch_y, 1 - notch_x)
    normal_x, normal_y = notch_y / length, (1 - notch_x) / length
    return normal_x * (radius * np.cos(angle) - 1) + normal_y * radius * np.sin(angle)


def _diamond(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (1.6 * np.abs(x) + np.abs(y) - 1.08) / np.hypot(1.6, 1.0)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A square on its tip with a half circle on each of its two upper edges.
    half, up = 0.6, y - 0.08
    tip = (np.abs(x) + np.abs(up)) / np.sqrt(2) - half
    lobe = half / np.sqrt(2)
    return np.minimum(tip, np.hypot(np.abs(x) - lobe, up + lobe) - half)


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 1, 0.82 - np.hypot(x - 0.5, y))


# Each takes x, y of any shape, in units of the radius, and returns the distance to the edge, negative inside.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: np.hypot(x, y) - 1,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "diamond": _diamond,
    "moon": _moon,
}


def signed_distance(thing: Thing, size: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """Returns float64 `[size, size]`, or a part of it: the distance of each pixel to the shape, negative inside it."""
    axis = (np.arange(size) + 0.5) / size
    x, y = (axis[None, columns] - thing.x) / thing.radius, (axis[rows, None] - thing.y) / thing.radius
    cos, sin = np.cos(thing.turn), np.sin(thing.turn)
    return SHAPES[thing.shape](cos * x + sin * y, cos * y - sin * x) * thing.radius * size


def render(things: tuple[Thing, ...], background: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the image, uint8 `[size, size, 3]`; later things cover earlier ones."""
    image = _backdrop(background, size, rng)
    for thing in things:
        rows, columns = window(thing, size)
        part = image[rows, columns]
        distance = signed_distance(thing, size, rows, columns)
        colour = np.array(COLOURS[thing.colour]) + rng.uniform(-10, 10, 3)
        shadow = np.clip(0.5 - distance / (2 * _SHADOW * size), 0, 1)[..., None]
        part *= 1 - 0.22 * shadow
        inside = np.clip(0.5 - distance, 0, 1)[..., None]
        # A slightly darker rim keeps yellow on white visible.
        rim = np.clip(1.2 + distance / (0.012 * size), 0, 1)[..., None]
        part += inside * (colour * (1 - 0.18 * rim) - part)
    image += rng.normal(0, rng.uniform(1, 4), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def window(thing: Thing, size: int) -> tuple[slice, slice]:
    """Returns the rows and columns of all pixels that a thing changes, with its shadow and smooth edge."""
    reach = _REACH * thing.radius + max(_SHADOW, 0.5 / size) / _STEEPNESS
    low, high = (np.array([thing.y, thing.x]) + sign * reach for sign in (-1, 1))
    first, last = np.floor(np.maximum(low, 0) * size).astype(int), np.ceil(high * size).astype(int)
    return slice(first[0], last[0]), slice(first[1], last[1])


def _backdrop(background: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns float64 `[size, size, 3]`: the background with a linear change of brightness."""
    image = np.empty((size, size, 3))
    image[:] = np.array(BACKGROUNDS[background]) + rng.uniform(-5, 5)
    axis = (np.arange(size) + 0.5) / size
    if background == "meadow":
        hill = _HORIZON + rng.uniform(-0.05, 0.05) + 0.03 * np.sin(rng.uniform(3, 7) * axis + rng.uniform(0, 6))
        grass = np.clip(0.5 + (axis[:, None] - hill[None, :]) * size, 0, 1)[..., None]
        image += grass * (np.array(_GRASS) + rng.uniform(-8, 8, 3) - image)
    slope_x, slope_y = rng.uniform(-12, 12, 2)
    image += (slope_x * (axis[None, :] - 0.5) + slope_y * (axis[:, None] - 0.5))[..., None]
    return image
