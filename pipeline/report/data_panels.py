"""Parts of the page of a data set: what comes twice, what was left out, and samples."""

import functools
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from spidercap.pipeline.data.image_files import in_threads
from spidercap.pipeline.data.records import TITLES, Split, read_images
from spidercap.pipeline.data.tokens import TokenizedSplit
from spidercap.pipeline.report.cards import GalleryItem, card
from spidercap.pipeline.report.charts import number
from spidercap.pipeline.report.data_facts import Shared, equal_images, repeated_captions, shared_images
from spidercap.pipeline.report.page import section
from spidercap.pipeline.report.results import thumbnail
from spidercap.pipeline.text.printable import printable

SAMPLES = 24  # images of each split
THUMBNAIL = 192  # pixels of the longer side
AHEAD = 2000  # images that samples are drawn from if those between two are read with them
FEW, LEFT_OUT = 5, 50  # duplicates and left out entries that are named
CAPTIONS, CHARACTERS = 30, 400  # of a sample and of a text that are shown, so that the page stays small
SEED = 0


def duplicates(splits: Mapping[str, Split], tokens: Mapping[str, TokenizedSplit]) -> str:
    """Returns the section of equal images and captions; '' if there are none."""
    panels = [_shared_panel(one) for one in shared_images(splits)]
    for name, split in splits.items():
        groups = equal_images(split)
        if groups:
            title = f"{TITLES[name]}: {_counted(sum(map(len, groups)) - len(groups), 'image')} with contents of another"
            panels.append(_panel(title, [_shown(" = ".join(_few(group))) for group in groups[:FEW]], len(groups)))
    for name, split in tokens.items():
        found = repeated_captions(split, FEW)
        if found.count:
            title = (
                f"{TITLES[name]}: {_counted(found.count, 'caption')} equal to another of the same image, in "
                f"{_counted(found.images, 'image')}"
            )
            lines = [f"{_shown(file)}: <q>{_shown(caption)}</q>" for file, caption in found.examples]
            panels.append(_panel(title, lines, found.images))
    hint = "Images are compared by their contents, between splits by their file names, too; captions by their words."
    return section("Duplicates", "charts", panels, hint)


def _shared_panel(one: Shared) -> str:
    title = f"{TITLES[one.name]}: {_counted(len(one.file_names), 'image')} of {number(one.of, 0)} in {one.other}, too"
    return _panel(title, [_shown(name) for name in one.file_names[:FEW]], len(one.file_names))


def left_out(splits: Mapping[str, Split]) -> str:
    """Returns the section of images, captions and rows that were left out, with the reasons; '' if there are none."""
    panels = []
    for name, split in splits.items():
        images, captions = split.images_left_out, split.captions_left_out
        if images:
            title = f"{TITLES[name]}: {_counted(len(images), 'image')} left out"
            panels.append(_panel(title, [_of_reason(*one) for one in images[:LEFT_OUT]], len(images)))
        if captions:
            title = f"{TITLES[name]}: {_counted(len(captions), 'caption')} left out"
            lines = [
                f"{_shown(of)}: <q>{_shown(caption)}</q> {_shown(why)}" for of, caption, why in captions[:LEFT_OUT]
            ]
            panels.append(_panel(title, lines, len(captions)))
    # Splits of one file share its rows: no one knows the split of a row that cannot be read.
    rows = list(dict.fromkeys(row for split in splits.values() for row in split.rows_left_out))
    if rows:
        title = f"{_counted(len(rows), 'row')} of the captions files left out"
        panels.append(_panel(title, [_of_reason(*one) for one in rows[:LEFT_OUT]], len(rows)))
    return section("Left out", "charts", panels)


def _of_reason(what: str, reason: str) -> str:
    return f"{_shown(what)}: {_shown(reason)}"


def samples(name: str, split: Split) -> str:
    """Returns images of a split, drawn by a fixed seed, with their captions; of features, names and captions alone."""
    among = len(split)
    if split.images is not None and split.images.in_sequence:
        among = min(among, AHEAD)
    rows = sorted(np.random.default_rng(SEED).permutation(among)[:SAMPLES].tolist())
    images = read_images(split, rows)
    shrink = functools.partial(thumbnail, most=THUMBNAIL)
    small = dict(zip(images, in_threads(shrink, list(images.values()), "thumbnails", 2), strict=True))
    cards = []
    for row in rows:
        captions = split.captions[row]
        references = [_cut(caption) for caption in captions[:CAPTIONS]]
        references += [f"and {len(captions) - CAPTIONS} more"] * (len(captions) > CAPTIONS)
        item = GalleryItem(
            small.get(row, b""), _cut(split.image_ids[row]), _cut(split.file_names[row]), references, {}, {}
        )
        cards.append(card(item, {}, "", {}))
    origin = f"the first {number(among, 0)} of {number(len(split), 0)}" if among < len(split) else number(among, 0)
    return section(
        f"Samples: {TITLES[name]}",
        "gallery",
        cards,
        f"{len(rows)} of {origin} images, drawn at random, with all their captions.",
    )


def word_list(title: str, words: Sequence[tuple[str, int]]) -> str:
    """Returns a panel of words with their counts."""
    listed = "".join(f"<li>{_shown(word)} <span>{number(count, 0)}</span></li>" for word, count in words)
    return f'<div class="chart">\n<h3>{escape(title)}</h3>\n<ul class="words">{listed}</ul>\n</div>'


def _panel(title: str, lines: Sequence[str], total: int) -> str:
    """A list of the first lines (HTML) of `total` ones."""
    if total > len(lines):
        lines = [*lines, f"and {number(total - len(lines), 0)} more"]
    listed = "".join(f"<li>{line}</li>" for line in lines)
    return f'<div class="chart">\n<h3>{escape(title)}</h3>\n<ul class="listed">{listed}</ul>\n</div>'


def _cut(text: object) -> str:
    """Text that may be shown, but not HTML: without control characters, and not too long."""
    shown = printable(str(text)[: CHARACTERS + 1])
    return shown if len(str(text)) <= CHARACTERS else shown[:CHARACTERS] + "…"


def _shown(text: object) -> str:
    return escape(_cut(text))


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:FEW], *["…"] * (len(names) > FEW)]


def _counted(count: int, what: str) -> str:
    return f"{number(count, 0)} {what}{'s' * (count != 1)}"
