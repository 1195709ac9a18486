"""The table of metrics: one row each, read by flags, tables, rewards and evaluation.

To add a metric, add a row.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping

from spidercap.pipeline.errors import UserError, check_choice


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric, or a weighted sum of others.

    An implementation is named 'module:name' and imported at first use, so that flags and tables need no TensorFlow.
    Rewards use `compiled`, else `text`. Tables use `text`, else `words`, else `compiled`.
    """

    column: str  # name in tables; also taken in flags, as are all names in other case and with other - and _
    mix: Mapping[str, float] = dataclasses.field(default_factory=dict)  # weights of other terms; empty: not a mix
    compiled: str = ""  # a compiled.Family, on token ids
    words: str = ""  # a words.captions.WordMetric, for the tables of a compiled metric without TensorFlow
    text: str = ""  # an opener (stack, settings) -> text_metrics.TextMetric, on captions as text
    java: bool = False  # whether `text` needs Java
    exact: bool = True  # False: an approximation, reported only on request by name
    remark: str = ""  # printed below tables that show it; {version} stands for that of what is learned
    learned: str = ""  # what of it is learned, and has a version: a key of results
    version: str = ""  # a function that returns the version in use
    aliases: tuple[str, ...] = ()  # further names in flags


_HERE = "spidercap.pipeline.metrics"
_BLEU = {"compiled": f"{_HERE}.bleu:BLEU", "words": f"{_HERE}.words.bleu:bleu"}

# Name in flags and logs -> row, in the order of all tables.
METRICS: dict[str, Metric] = {
    "bleu1": Metric("BLEU-1", **_BLEU),
    "bleu2": Metric("BLEU-2", **_BLEU),
    "bleu3": Metric("BLEU-3", **_BLEU),
    "bleu4": Metric("BLEU-4", **_BLEU),
    "meteor": Metric("METEOR", text=f"{_HERE}.meteor:open_meteor", java=True),
    "rouge": Metric("ROUGE-L", compiled=f"{_HERE}.rouge:ROUGE", words=f"{_HERE}.words.rouge:rouge"),
    "cider": Metric("CIDEr", compiled=f"{_HERE}.cider:CIDER", words=f"{_HERE}.words.cider:cider", aliases=("CIDEr-D",)),
    "spice": Metric("SPICE", text=f"{_HERE}.spice:open_spice", java=True),
    # Liu et al. (2017): the weights of BCMR; SPIDEr as reported, the mean of SPICE and CIDEr-D.
    "bcmr": Metric(
        "BCMR",
        mix={"bleu1": 0.5, "bleu2": 0.5, "bleu3": 1.0, "bleu4": 1.0, "cider": 1.0, "meteor": 5.0, "rouge": 2.0},
    ),
    "spider": Metric("SPIDEr", mix={"spice": 0.5, "cider": 0.5}),
    "spice_fast": Metric(
        "SPICE-fast",
        compiled=f"{_HERE}.spice_fast.metric:SPICE_FAST",
        text=f"{_HERE}.spice_fast.metric:open_spice_fast",
        exact=False,
        remark="SPICE-fast is an approximation of SPICE by a learned parser, {version}; --metrics=spice computes SPICE "
        "itself.",
        learned="SPICE-fast parser",
        version=f"{_HERE}.spice_fast.version:read_version",
    ),
    "spider_fast": Metric("SPIDEr-fast", mix={"spice_fast": 0.5, "cider": 0.5}, exact=False),
}
GROUPS = {"bleu": ("bleu1", "bleu2", "bleu3", "bleu4")}  # further names in --metrics
SPICE_PARTS = ("Object", "Attribute", "Relation", "Cardinality", "Color", "Size")


def spelled(name: str) -> str:
    """Returns the name in flags and logs of what is named by a metric's name, column or alias, or a group.

    Case, '-', '_' and blanks do not matter: 'CIDEr-D' is 'cider', 'Bleu_4' is 'bleu4'. Any other name is returned.
    """
    names = {_folded(group): group for group in GROUPS}
    for term, metric in METRICS.items():
        names |= {_folded(known): term for known in (metric.column, *metric.aliases, term)}
    return names.get(_folded(name), name)


def spelled_list(text: str) -> str:
    """Returns names separated by commas, each with or without ':weight', with every metric as in `spelled`."""
    parts = [part.partition(":") for part in _split(text)]
    return ",".join(spelled(name.strip()) + colon + number for name, colon, number in parts)


def spelled_column(name: str) -> str:
    """Returns the column of a metric named in any way; any other name unchanged."""
    return column_of(spelled(name)) if spelled(name) in METRICS else name


def column_names() -> tuple[str, ...]:
    """Returns the columns of the tables in order."""
    return tuple(metric.column for metric in METRICS.values())


def term_of(column: str) -> str:
    """Returns the term of a table's column."""
    return next(term for term, metric in METRICS.items() if metric.column == column)


def ordered(terms: Collection[str]) -> tuple[str, ...]:
    """Returns the metrics among `terms`, each once, in the order of the tables."""
    return tuple(term for term in METRICS if term in terms)


def single_terms(terms: Iterable[str]) -> tuple[str, ...]:
    """Returns the metrics to compute for `terms`: mixes are replaced by their parts; in the order of the tables."""
    return ordered({single for term in terms for single in _parts_of(term)})


def with_mixes(terms: Iterable[str]) -> tuple[str, ...]:
    """Returns `terms`, their parts, and every mix of these, in the order of the tables."""
    known = {*terms}
    known |= {*single_terms(known)}
    return ordered(known | {term for term, metric in METRICS.items() if metric.mix and known.issuperset(metric.mix)})


def exact_terms() -> tuple[str, ...]:
    """Returns all metrics but approximations."""
    return tuple(term for term, metric in METRICS.items() if metric.exact)


def terms_without_java() -> tuple[str, ...]:
    """Returns the exact single metrics that do not need Java."""
    return tuple(term for term in exact_terms() if not METRICS[term].mix and not METRICS[term].java)


def needs_tensorflow(terms: Iterable[str]) -> bool:
    """Returns whether tables of these metrics take TensorFlow."""
    rows = [METRICS[term] for term in single_terms(terms)]
    return any(row.compiled and not row.words for row in rows)


def single_rows(shown: Collection[str]) -> list[Metric]:
    """Returns the rows of the metrics that the columns of a table take."""
    return [METRICS[term] for term in single_terms(t for t, metric in METRICS.items() if metric.column in shown)]


def remarks(shown: Collection[str], *versions: Mapping[str, str]) -> list[str]:
    """Returns the remarks to print below a table with these columns.

    Args:
      shown: columns.
      versions: of what is learned in their metrics, by `Metric.learned`; those of each row, where rows may differ.
    """
    rows = [row for row in single_rows(shown) if row.remark]
    return list(dict.fromkeys(row.remark.replace("{version}", _told(row.learned, versions)) for row in rows))


def column_of(term: str) -> str:
    """Returns the name of a term in logs and tables; a reward function of the user keeps its name."""
    return METRICS[term].column if term in METRICS else term


def parse_reward(text: str, own: Collection[str] = ()) -> dict[str, float]:
    """Returns the weight of each metric in a reward such as 'cider', 'spider' or 'cider:1,spice:2,bleu4:0.5'.

    Mixes are replaced by their parts: 'spider:2' is {'spice': 1, 'cider': 1}.

    Args:
      own: names of the user's reward functions, each of which must be used.

    Raises:
      UserError: a metric is unknown or comes twice, a weight is not positive, or a reward function is not used.
    """
    weights: dict[str, float] = {}
    named: set[str] = set()
    for part in _split(text):
        name, colon, number = part.partition(":")
        name = spelled(name.strip())
        _check_reward_name(name, own)
        weight = _weight(number, part) if colon else 1.0
        if name in named:
            raise UserError(f"--reward: {name} comes twice ({text}); give it once")
        named.add(name)
        for term, share in _parts_of(name).items():
            weights[term] = weights.get(term, 0.0) + weight * share
    unused = [name for name in own if name not in weights]
    if unused:
        raise UserError(
            f"--reward={text} does not use {unused[0]} of --reward_functions; add {unused[0]}:1 to --reward"
        )
    if not weights:
        raise UserError("--reward is empty; for example --reward=cider, --reward=spider or --reward=cider:1,spice:2")
    return weights


def parse_metrics(text: str) -> tuple[str, ...]:
    """Returns the terms named by 'all' (`exact_terms`) or a list such as 'cider,spice', in the order of the tables.

    Raises:
      UserError: a metric is unknown, or the text names none.
    """
    names = ["all" if name.lower() == "all" else spelled(name) for name in _split(text)]
    for name in names:
        check_choice("metrics", name, ["all", *GROUPS, *METRICS])
    if not names:
        raise UserError("--metrics is empty; for example --metrics=all or --metrics=cider,spice")
    groups = {"all": exact_terms(), **GROUPS}
    return ordered({term for name in names for term in groups.get(name, (name,))})


def _told(learned: str, versions: Iterable[Mapping[str, str]]) -> str:
    """Such as 'version 3.1a2b3c'."""
    known = list(dict.fromkeys(of.get(learned, "") for of in versions)) or [""]
    if len(known) > 1:
        return f"versions {' and '.join(version or 'an unknown one' for version in known)}, which differ"
    return f"version {known[0] or 'not known'}"


def _check_reward_name(name: str, own: Collection[str]) -> None:
    try:
        check_choice("reward", name, [*METRICS, *own])
    except UserError as error:
        hint = f"; name your own function with --reward_functions={name}=file.py:function"
        raise UserError(f"{error}{hint if name.isidentifier() else ''}") from None


def _parts_of(term: str) -> Mapping[str, float]:
    return (METRICS[term].mix if term in METRICS else {}) or {term: 1.0}


def _folded(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()


def _split(text: str) -> list[str]:
    return [part for part in (p.strip() for p in text.split(",")) if part]


def _weight(number: str, part: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1e6:
        raise UserError(f"--reward: {part!r} is not metric:weight with a weight above 0, at most 1e6")
    return weight
