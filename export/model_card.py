"""The model card of an exported model: what it was made of, how well it scores, what it is for and not for."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PAGE, DATA = "model_card.md", "model_card.json"
UNKNOWN = "not known"

USE = (
    "Describing images like those of the training data, where a person can check the caption, or a wrong one does no "
    "harm.",
    "Research on captioning and on its metrics.",
)
NOT_FOR = ("Decisions about people, and anything where a wrong caption does harm.",)
SEEN = "In the stages mle and mixer an image counts once for each of its captions."
LICENCE = (
    "The code of spidercap: Apache-2.0. The weights: also what the licences of the training data and of the encoder's "
    f"weights allow, which is {UNKNOWN} to the program."
)


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a stage on a split."""

    split: str
    stage: str
    images: int
    date: str  # of the evaluation
    decoding: Mapping[str, Any] | None  # None: not known
    metrics: Mapping[str, float | None]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of what is learned in the metrics


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a model. What is None is not known, and the card says so."""

    name: str
    date: str  # of the export
    data_set: str
    splits: Mapping[str, Mapping[str, int | None]]  # by split: images, captions
    model: Mapping[str, Any]  # encoder, sizes
    recipe: Sequence[str]  # flags, as on the command line
    stages: Sequence[Mapping[str, Any]]  # name, steps, images_seen, seconds
    decoding: Mapping[str, Any]  # of the exported model
    scores: Sequence[Scores]
    notes: Sequence[str]  # on the scores
    limits: Sequence[str]
    versions: Mapping[str, str]  # of the packages


def model_card(facts: Facts) -> dict[str, str]:
    """Returns the card as a page and as JSON, by file name."""
    content = dataclasses.asdict(facts) | {"intended_use": USE, "not_intended_for": NOT_FOR, "licence": LICENCE}
    return {DATA: json.dumps(content, indent=1, ensure_ascii=False) + "\n", PAGE: page_of(facts)}


def page_of(facts: Facts) -> str:
    """Returns the card as Markdown."""
    splits = [[name, *(_known(of.get(key)) for key in ("images", "captions"))] for name, of in facts.splits.items()]
    stages = [
        [stage["name"], f"{stage['steps']:,}", f"{stage['images_seen']:,}", f"{stage['seconds'] / 60:,.1f}"]
        for stage in facts.stages
    ]
    sections = {
        "Intended use": _list(USE),
        "Not intended for": _list(NOT_FOR),
        "Model": _list(f"{name}: {_known(value)}" for name, value in facts.model.items()),
        "Decoding": _list(f"{name}: {value}" for name, value in facts.decoding.items()),
        "Training data": f"Data set: `{facts.data_set}`\n\n" + _table(["split", "images", "captions"], splits),
        "Recipe": "    " + "\n    ".join(facts.recipe or [UNKNOWN]),
        "Training": _table(["stage", "steps", "images seen", "minutes"], stages) + f"\n\n{SEEN}",
        "Scores": _scores(facts),
        "Limits": _list(facts.limits),
        "Licence": LICENCE,
        "Versions": _list(f"{name} {version}" for name, version in facts.versions.items()),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())
    return f"# {facts.name}\n\nAn image captioner, exported on {facts.date} by spidercap.\n\n{text}\n"


def _scores(facts: Facts) -> str:
    parts = [f"{note}\n" for note in facts.notes]
    for scores in facts.scores:
        decoding = scores.decoding
        how = f"decoding {UNKNOWN}" if decoding is None else ", ".join(f"{k}={v}" for k, v in decoding.items())
        parts.append(
            f"Split `{scores.split}`, {scores.images:,} images, stage `{scores.stage}`, {scores.date}, {how}:\n\n"
            + _table(["metric", "score"], [[name, _number(value)] for name, value in scores.metrics.items()])
            + "\n"
        )
    return "\n".join(parts).rstrip() if facts.scores else f"{UNKNOWN.capitalize()}: no results are stored in the run."


def _known(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return UNKNOWN if value is None else str(value)


def _number(value: float | None) -> str:
    """A score as tables show it; counts are whole."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
