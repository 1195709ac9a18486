"""The metrics: their names in flags and in tables, and what the mixes are made of."""

import math
from collections.abc import Collection

from spidercap.pipeline.errors import UserError, check_choice

# Term, as flags and logs name it -> column, as tables name it, in the order of every table.
COLUMNS = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "meteor": "METEOR",
    "rouge": "ROUGE-L",
    "cider": "CIDEr",
    "spice": "SPICE",
    "bcmr": "BCMR",
    "spider": "SPIDEr",
    "spice_fast": "SPICE-fast",
    "spider_fast": "SPIDEr-fast",
}
METRICS = tuple(COLUMNS.values())

# Liu et al. (2017): BCMR's weights; SPIDEr as it is reported, the mean of SPICE and CIDEr-D.
MIXES = {
    "bcmr": {"bleu1": 0.5, "bleu2": 0.5, "bleu3": 1.0, "bleu4": 1.0, "cider": 1.0, "meteor": 5.0, "rouge": 2.0},
    "spider": {"spice": 0.5, "cider": 0.5},
    "spider_fast": {"spice_fast": 0.5, "cider": 0.5},
}
GROUPS = {"bleu": ("bleu1", "bleu2", "bleu3", "bleu4")}
JAVA_TERMS = ("meteor", "spice")
# Approximations, rewards rather than judges: reported only where they are asked for by name.
FAST_TERMS = ("spice_fast", "spider_fast")
SPICE_PARTS = ("Object", "Attribute", "Relation", "Cardinality", "Color", "Size")


def parse_reward(text: str) -> dict[str, float]:
    """Returns the weight of each metric in a reward such as 'cider', 'spider' or 'cider:1,spice:2,bleu4:0.5'.

    A mix within a mix is taken apart: 'spider:2' is {'spice': 1, 'cider': 1}.

    Raises:
      UserError: an unknown metric, one that comes twice, or a weight that is no positive number.
    """
    weights: dict[str, float] = {}
    named: set[str] = set()
    for part in _parts(text):
        name, colon, number = part.partition(":")
        name = name.strip()
        check_choice("reward", name, COLUMNS)
        weight = _weight(number, part) if colon else 1.0
        if name in named:
            raise UserError(f"--reward: {name} comes twice ({text}); give it once")
        named.add(name)
        for term, share in MIXES.get(name, {name: 1.0}).items():
            weights[term] = weights.get(term, 0.0) + weight * share
    if not weights:
        raise UserError("--reward is empty; for example --reward=cider, --reward=spider or --reward=cider:1,spice:2")
    return weights


def parse_metrics(text: str) -> tuple[str, ...]:
    """Returns the terms named by 'all' (but FAST_TERMS) or a list such as 'cider,spice', in the order of the tables.

    Raises:
      UserError: an unknown metric, or none.
    """
    names = [name.strip() for name in _parts(text)]
    for name in names:
        check_choice("metrics", name, ["all", *GROUPS, *COLUMNS])
    if not names:
        raise UserError("--metrics is empty; for example --metrics=all or --metrics=cider,spice")
    exact = [term for term in COLUMNS if term not in FAST_TERMS]
    chosen = {term for name in names for term in (exact if name == "all" else GROUPS.get(name, (name,)))}
    return tuple(term for term in COLUMNS if term in chosen)


def single_terms(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the metrics that must be computed for `terms`: mixes taken apart, in the order of the tables."""
    needed = {single for term in terms for single in MIXES.get(term, {term: 1.0})}
    return tuple(term for term in COLUMNS if term in needed)


def remarks(columns: Collection[str]) -> list[str]:
    """Returns what is to be said below a table with these columns."""
    fast = any(COLUMNS[term] in columns for term in FAST_TERMS)
    return ["SPICE-fast is SPICE by a learned parser: an approximation. SPICE itself: --metrics=spice."] if fast else []


def term_of(column: str) -> str:
    """Returns the term of a table's column."""
    return next(term for term, name in COLUMNS.items() if name == column)


def _parts(text: str) -> list[str]:
    return [part for part in (p.strip() for p in text.split(",")) if part]


def _weight(number: str, part: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1e6:
        raise UserError(f"--reward: {part!r} is not metric:weight with a weight above 0, at most 1e6")
    return weight
