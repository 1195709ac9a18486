"""Describes a scene in five true captions of different patterns, as five people might.

A body ("two red circles above a star") is put into a frame ("There are ... in the picture."). The odds are skewed
on purpose: the captions of a scene share common words, and rare words are hard to predict.
"""

from collections.abc import Callable

import numpy as np

from spidercap.pipeline.data.scenes.layout import Group, Layout, pick

CAPTIONS = 5
WORDS = (4, 16)

_NUMBERS = ("no", "one", "two", "three", "four")
_SIZE_WORDS = {
    "small": {"small": 14, "little": 4, "tiny": 1},
    "medium": {"": 1},
    "large": {"large": 12, "big": 7, "huge": 1},
}
_PLURALS = {"cross": "crosses"}
_BACKGROUND_TAILS = {
    "white": {"on a white background": 1},
    "grey": {"on a grey background": 1},
    "black": {"on a black background": 3, "on a dark background": 1},
    "blue": {"on a light blue background": 2, "on a blue background": 2},
    "pink": {"on a pink background": 1},
    "meadow": {
        "in front of a green meadow": 3,
        "in front of grass and a blue sky": 3,
        "over the green grass": 2,
        "under a blue sky": 1,
    },
}
_RELATIONS = {
    "left": {"to the left of": 5, "left of": 2, "next to": 3, "beside": 1},
    "right": {"to the right of": 5, "right of": 2, "next to": 3, "beside": 1},
    "above": {"above": 6, "over": 2},
    "below": {"below": 5, "under": 3, "beneath": 0.5},
    "inside": {"inside": 5, "in": 2, "within": 0.5},
    "around": {"around": 3, "surrounding": 0.5},
}
_CONVERSE = {"left": "right", "above": "below", "inside": "around"}
_ACCOMPANIED = {
    "left": ("on its left", "on the left"),
    "right": ("on its right", "on the right"),
    "above": ("above it", "on top"),
    "below": ("below it", "under it"),
    "inside": ("inside it", "inside"),
    "around": ("around it", "around it"),
}
_ARRANGEMENTS = {
    "row": {"in a row": 4, "next to each other": 2, "side by side": 1},
    "column": {"in a column": 1, "above each other": 1},
}
_PLACES = {
    "middle": {"in the middle": 4, "in the center": 1},
    "left": {"on the left": 3, "on the left side": 1},
    "right": {"on the right": 3, "on the right side": 1},
    "top": {"at the top": 1},
    "bottom": {"at the bottom": 1},
    "upper left": {"in the upper left corner": 3, "in the corner": 1},
    "upper right": {"in the upper right corner": 3, "in the corner": 1},
    "lower left": {"in the lower left corner": 3, "in the corner": 1},
    "lower right": {"in the lower right corner": 3, "in the corner": 1},
}
_OF_PICTURE = " of the picture"
_FRAMES = {"plain": 6, "there": 3, "of": 2, "shows": 1}

# A body and whether "there are" goes with it.
Body = tuple[str, bool]


def write_captions(layout: Layout, rng: np.random.Generator) -> tuple[str, ...]:
    """Returns five different true captions of 4 to 16 words, each with a capital and a full stop.

    No two of them share both body pattern and frame.
    """
    patterns = {
        f"{body} {frame}": body_odds * frame_odds
        for body, body_odds in _body_odds(layout).items()
        for frame, frame_odds in _FRAMES.items()
    }
    captions: list[str] = []
    while len(captions) < CAPTIONS:
        pattern = pick(rng, patterns)
        body, frame = pattern.split()
        caption = _framed(layout, rng, _BODIES[body](layout, rng), frame)
        if caption not in captions and WORDS[0] <= len(caption.split()) <= WORDS[1]:
            captions.append(caption)
            del patterns[pattern]
    return tuple(captions)


def _body_odds(layout: Layout) -> dict[str, float]:
    """Returns the body patterns that are true of this layout, and the odds of each."""
    odds: dict[str, float] = {"all": 4.0, "main": 1.0}
    if layout.place:
        odds = {"main": 4.0, "place": 5.0}
    elif len(layout.groups) == 1:
        odds = {"main": 4.0, "arranged": 5.0 * (layout.groups[0].arrangement != "scattered"), "shapes": 0.5}
    elif layout.relation in _CONVERSE:
        odds |= {"relation": 6.0, "accompanied": 2.0, "shapes": 0.3}
    else:
        odds |= {"shapes": 0.7, "between": 3.0 * (layout.relation in ("row", "column"))}
        odds |= {"arranged_shapes": 1.0 * (layout.relation in ("row", "column"))}
    return {body: weight for body, weight in odds.items() if weight}


def _framed(layout: Layout, rng: np.random.Generator, body: Body, frame: str) -> str:
    text, plural = body
    if frame in ("of", "shows"):
        text = text.removesuffix(_OF_PICTURE)
    tail_odds = 0.25 if layout.background == "white" else 0.5
    tail = pick(rng, _BACKGROUND_TAILS[layout.background]) if rng.random() < tail_odds else ""
    if frame == "there":
        text = f"there {'are' if plural else 'is'} {text}"
        if "picture" not in text:
            tail = tail or pick(rng, {"": 2, "in the picture": 2, "in this image": 1})
    elif frame == "of":
        text = f"{pick(rng, {'a picture of': 4, 'a drawing of': 2, 'an image of': 1})} {text}"
    elif frame == "shows":
        text = f"{pick(rng, {'the picture shows': 3, 'this image shows': 1})} {text}"
    sentence = " ".join(part for part in (text, tail) if part)
    return sentence[0].upper() + sentence[1:] + "."


def _name(layout: Layout, group: Group, rng: np.random.Generator, sized: float = 0.45) -> str:
    """Returns the group in words, "three small red circles": its size with probability `sized`."""
    twins = sum(other.shape == group.shape for other in layout.groups) > 1
    size = pick(rng, _SIZE_WORDS[group.size]) if rng.random() < sized else ""
    colour = group.colour if twins or rng.random() < 0.9 else ""
    noun = group.shape if group.count == 1 else _PLURALS.get(group.shape, group.shape + "s")
    words = " ".join(word for word in (size, colour, noun) if word)
    if group.count > 1:
        return f"{_NUMBERS[group.count]} {words}"
    if rng.random() < 0.05:
        return f"one {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _main(layout: Layout, rng: np.random.Generator) -> Body:
    # People name what is large or many, and leave out the rest.
    group = max(layout.groups, key=lambda each: each.count * {"small": 1, "medium": 2, "large": 4}[each.size])
    return _name(layout, group, rng, sized=0.6), group.count > 1


def _place(layout: Layout, rng: np.random.Generator) -> Body:
    where = pick(rng, _PLACES[layout.place]) + pick(rng, {"": 1, _OF_PICTURE: 1})
    return f"{_name(layout, layout.groups[0], rng)} {where}", False


def _arranged(layout: Layout, rng: np.random.Generator) -> Body:
    (group,) = layout.groups
    name = _name(layout, group, rng)
    if group.count > 2 and rng.random() < 0.25:
        return f"a {group.arrangement} of {name}", False
    return f"{name} {pick(rng, _ARRANGEMENTS[group.arrangement])}", True


def _all(layout: Layout, rng: np.random.Generator) -> Body:
    groups = [layout.groups[number] for number in rng.permutation(len(layout.groups))]
    sized = 0.4 if len(groups) < 3 else 0.2
    *names, last = (_name(layout, group, rng, sized) for group in groups)
    return f"{', '.join(names)} and {last}", groups[0].count > 1


def _directed(layout: Layout, rng: np.random.Generator) -> tuple[Group, str, Group]:
    """Returns (subject, relation, object), with the relation read from either side."""
    first, second = layout.groups
    if rng.random() < 0.6:
        return first, layout.relation, second
    return second, _CONVERSE[layout.relation], first


def _relation(layout: Layout, rng: np.random.Generator) -> Body:
    subject, relation, other = _directed(layout, rng)
    words = pick(rng, _RELATIONS[relation])
    return f"{_name(layout, subject, rng, 0.35)} {words} {_name(layout, other, rng, 0.35)}", subject.count > 1


def _accompanied(layout: Layout, rng: np.random.Generator) -> Body:
    subject, relation, other = _directed(layout, rng)
    if other.count > 1:
        return _relation(layout, rng)
    where = _ACCOMPANIED[relation][int(rng.random() < 0.3)]
    return f"{_name(layout, other, rng, 0.35)} with {_name(layout, subject, rng, 0.35)} {where}", False


def _between(layout: Layout, rng: np.random.Generator) -> Body:
    first, middle, last = (_name(layout, group, rng, 0.15) for group in layout.groups)
    if rng.random() < 0.5:
        first, last = last, first
    return f"{middle} between {first} and {last}", False


def _shapes(layout: Layout, rng: np.random.Generator) -> Body:
    count = _NUMBERS[len(layout.things)]
    if len({group.colour for group in layout.groups}) == len(layout.things) and rng.random() < 0.3:
        return f"{count} different colored shapes", True
    if len({group.shape for group in layout.groups}) == len(layout.things):
        return f"{count} different shapes", True
    if len(layout.groups) == 1:
        return f"{count} {layout.groups[0].colour} shapes", True
    return f"{count} shapes", True


def _arranged_shapes(layout: Layout, rng: np.random.Generator) -> Body:
    text, plural = _shapes(layout, rng)
    return f"{text} in a {layout.relation}", plural


_BODIES: dict[str, Callable[[Layout, np.random.Generator], Body]] = {
    "main": _main,
    "place": _place,
    "arranged": _arranged,
    "all": _all,
    "relation": _relation,
    "accompanied": _accompanied,
    "between": _between,
    "shapes": _shapes,
    "arranged_shapes": _arranged_shapes,
}
