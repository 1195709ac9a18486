"""Chooses the content of a scene: groups of equal shapes, and their positions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spidercap.pipeline.data.scenes.draw import HIDDEN, Thing

# Skewed like words in human captions: the last of each are rare.
_SHAPE_ODDS = {
    "circle": 24,
    "square": 20,
    "triangle": 16,
    "star": 13,
    "ring": 9,
    "cross": 8,
    "heart": 6,
    "diamond": 3,
    "moon": 1.5,
}
_COLOUR_ODDS = {
    "red": 22,
    "blue": 20,
    "green": 16,
    "yellow": 14,
    "orange": 10,
    "purple": 9,
    "black": 7,
    "pink": 3,
}
_BACKGROUND_ODDS = {"white": 40, "grey": 18, "black": 12, "blue": 10, "pink": 6, "meadow": 14}
_LAYOUT_ODDS = {"single": 17, "many": 22, "pair": 26, "inside": 12, "many_and_one": 14, "trio": 9}
_RADII = {"small": (0.082, 0.1), "medium": (0.12, 0.14), "large": (0.17, 0.2)}
# So that a row of them fits into the image.
_MANY_SIZE_ODDS = {
    2: {"small": 4, "medium": 3, "large": 3},
    3: {"small": 4, "medium": 3},
    4: {"small": 1},
}
_MARGIN = 0.02


@dataclass(frozen=True)
class Group:
    """`count` equal shapes, arranged as "single", "row", "column" or "scattered"."""

    count: int
    shape: str
    colour: str
    size: str
    arrangement: str


@dataclass(frozen=True)
class Layout:
    """A scene before drawing: things in drawing order, and the facts that captions may state.

    `relation` is the position of the first group relative to the second: "left", "above" or "inside"; "row" or
    "column" for three groups in order; else "none". `place` is the position of a single shape, else "".
    """

    groups: tuple[Group, ...]
    things: tuple[Thing, ...]
    background: str
    relation: str
    place: str


def pick(rng: np.random.Generator, odds: Mapping[str, float]) -> str:
    """Returns one key of `odds`, drawn with probability proportional to its value."""
    left = rng.random() * sum(odds.values())
    for key, weight in odds.items():
        left -= weight
        if left < 0:
            return key
    return key


def plan_layout(rng: np.random.Generator) -> Layout:
    """Returns a random scene of one to four shapes in one to three groups."""
    background = pick(rng, _BACKGROUND_ODDS)
    plan = {
        "single": _single,
        "many": _many,
        "pair": _pair,
        "inside": _inside,
        "many_and_one": _many_and_one,
        "trio": _trio,
    }[pick(rng, _LAYOUT_ODDS)]
    return plan(rng, background)


def _kinds(rng: np.random.Generator, background: str, number: int) -> list[tuple[str, str]]:
    """Returns `number` different (shape, colour) pairs that can be seen on the background."""
    colours = {name: weight for name, weight in _COLOUR_ODDS.items() if name not in HIDDEN[background]}
    kinds: list[tuple[str, str]] = []
    while len(kinds) < number:
        kind = (pick(rng, _SHAPE_ODDS), pick(rng, colours))
        if kind not in kinds:
            kinds.append(kind)
    return kinds


def _things(rng: np.random.Generator, group: Group, centres: list[tuple[float, float]]) -> list[Thing]:
    """Returns one thing per centre, with nearly equal radii, all inside the image."""
    radius = rng.uniform(*_RADII[group.size])
    things = []
    for x, y in centres:
        each = radius * rng.uniform(0.95, 1.0)
        low, high = each + _MARGIN, 1 - each - _MARGIN
        x, y = (float(np.clip(value + rng.uniform(-0.008, 0.008), low, high)) for value in (x, y))
        things.append(Thing(group.shape, group.colour, group.size, x, y, each, rng.uniform(-0.2, 0.2)))
    return things


def _line(count: int, middle: float, step: float) -> list[float]:
    """Returns `count` coordinates `step` apart around `middle`, at least half a step from both edges."""
    reach = (count - 1) / 2 * step
    edge = reach + step / 2
    middle = float(np.clip(middle, edge, 1 - edge)) if edge < 0.5 else 0.5
    return [middle - reach + step * number for number in range(count)]


def _centres(rng: np.random.Generator, group: Group, x: float, y: float) -> list[tuple[float, float]]:
    """Returns the centres of the group's members, around (x, y)."""
    if group.arrangement == "single":
        return [(x, y)]
    step = 2 * _RADII[group.size][1] * rng.uniform(1.14, 1.22)
    if group.arrangement == "row":
        return [(along, y) for along in _line(group.count, x, step)]
    if group.arrangement == "column":
        return [(x, along) for along in _line(group.count, y, step)]
    return _scattered(rng, group.count, 2.3 * _RADII[group.size][1])


def _scattered(rng: np.random.Generator, count: int, apart: float) -> list[tuple[float, float]]:
    """Returns `count` random points at least `apart` from each other that form no row and no column."""
    while True:
        points = rng.uniform(apart / 2, 1 - apart / 2, (count, 2))
        gaps = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) + np.eye(count)
        if gaps.min() >= apart and np.ptp(points, axis=0).min() >= 0.22:
            return [(float(x), float(y)) for x, y in points]


def _single(rng: np.random.Generator, background: str) -> Layout:
    ((shape, colour),) = _kinds(rng, background, 1)
    group = Group(1, shape, colour, pick(rng, {"small": 3, "medium": 2, "large": 5}), "single")
    place = pick(rng, {"middle": 5, "left": 2, "right": 2, "top": 1.5, "bottom": 1.5, "corner": 2})
    near, far = rng.uniform(0.14, 0.24), rng.uniform(0.76, 0.86)
    x, y = rng.uniform(0.45, 0.55, 2)
    if place == "corner":
        place = pick(rng, {"upper left": 1, "upper right": 1, "lower left": 1, "lower right": 1})
    x = near if "left" in place else far if "right" in place else x
    y = near if place.startswith(("top", "upper")) else far if place.startswith(("bottom", "lower")) else y
    return Layout((group,), tuple(_things(rng, group, [(x, y)])), background, "none", place)


def _many(rng: np.random.Generator, background: str) -> Layout:
    ((shape, colour),) = _kinds(rng, background, 1)
    count = int(pick(rng, {"2": 4, "3": 4, "4": 3}))
    size = pick(rng, _MANY_SIZE_ODDS[count])
    arrangement = pick(rng, {"row": 4, "column": 2, "scattered": 4})
    group = Group(count, shape, colour, size, arrangement)
    x, y = rng.uniform(0.3, 0.7, 2)
    return Layout((group,), tuple(_things(rng, group, _centres(rng, group, x, y))), background, "none", "")


def _sides(rng: np.random.Generator, first: Group, second: Group, relation: str) -> tuple[Thing, ...]:
    """Returns the things of two groups, the first one left of or above the second."""
    near, far = rng.uniform(0.2, 0.28), rng.uniform(0.72, 0.8)
    across = 0.5 + rng.uniform(-0.14, 0.14, 2)
    things: list[Thing] = []
    for group, along, side in ((first, near, across[0]), (second, far, across[1])):
        x, y = (along, side) if relation == "left" else (side, along)
        things += _things(rng, group, _centres(rng, group, float(x), float(y)))
    return tuple(things)


def _pair(rng: np.random.Generator, background: str) -> Layout:
    sizes = {"small": 4, "medium": 3, "large": 3}
    groups = tuple(Group(1, *kind, pick(rng, sizes), "single") for kind in _kinds(rng, background, 2))
    relation = pick(rng, {"left": 1, "above": 1})
    return Layout(groups, _sides(rng, *groups, relation), background, relation, "")


def _many_and_one(rng: np.random.Generator, background: str) -> Layout:
    relation = pick(rng, {"left": 1, "above": 1})
    kinds = _kinds(rng, background, 2)
    count = int(pick(rng, {"2": 1, "3": 1}))
    line = "column" if relation == "left" else "row"
    many = Group(count, *kinds[0], pick(rng, {"small": 2, "medium": 1}), line)
    one = Group(1, *kinds[1], pick(rng, {"small": 1, "medium": 1, "large": 2}), "single")
    groups = (many, one) if rng.random() < 0.5 else (one, many)
    return Layout(groups, _sides(rng, *groups, relation), background, relation, "")


def _inside(rng: np.random.Generator, background: str) -> Layout:
    colours = {name: weight for name, weight in _COLOUR_ODDS.items() if name not in HIDDEN[background]}
    outer_colour = pick(rng, colours)
    colours.pop(outer_colour)
    inner = Group(1, pick(rng, _SHAPE_ODDS), pick(rng, colours), "small", "single")
    outer = Group(1, pick(rng, {"circle": 4, "square": 4, "ring": 3}), outer_colour, "large", "single")
    x, y = rng.uniform(0.42, 0.58, 2)
    around = Thing(outer.shape, outer.colour, outer.size, x, y, rng.uniform(0.3, 0.36), rng.uniform(-0.15, 0.15))
    return Layout((inner, outer), (around, *_things(rng, inner, [(x, y)])), background, "inside", "")


def _trio(rng: np.random.Generator, background: str) -> Layout:
    groups = tuple(
        Group(1, *kind, pick(rng, {"small": 1, "medium": 1}), "single") for kind in _kinds(rng, background, 3)
    )
    relation = pick(rng, {"row": 4, "column": 2, "none": 4})
    if relation == "none":
        centres = _scattered(rng, 3, 0.34)
    else:
        side = rng.uniform(0.3, 0.7)
        centres = [(along, side) if relation == "row" else (side, along) for along in _line(3, 0.5, 0.3)]
    things = [thing for group, at in zip(groups, centres, strict=True) for thing in _things(rng, group, [at])]
    return Layout(groups, tuple(things), background, relation, "")
