"""The page of a data set: what its splits hold, what is wrong with them, and samples of them.

It is written before training, so that mistakes in the data are seen while they are cheap.
"""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline import digests
from spidercap.pipeline.data.batches import TokenizedSplit
from spidercap.pipeline.data.records import TITLES, Split, read_images
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.report.charts import number
from spidercap.pipeline.report.data_facts import (
    Captions,
    Coverage,
    Shared,
    caption_facts,
    coverage,
    equal_images,
    most_frequent,
    repeated_captions,
    shared_images,
    word_counts,
)
from spidercap.pipeline.report.histogram import histogram
from spidercap.pipeline.report.page import GalleryItem, card, class_names, head, page, section, table
from spidercap.pipeline.report.results import thumbnail
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.printable import printable
from spidercap.pipeline.text.vocabulary import Vocabulary

SAMPLES = 24  # images of each split
THUMBNAIL = 192  # pixels of the longer side
AHEAD = 2000  # images that samples are drawn from if all images before one must be read, too
WORDS, UNKNOWN_WORDS = 60, 20  # the most frequent ones that are listed
FEW, LEFT_OUT = 5, 50  # duplicates and left out entries that are named
CAPTIONS, CHARACTERS = (
    30,
    400,
)  # captions of a sample and characters of a text that are shown, so that the page is small
SEED = 0


def write_data_page(
    path: pathlib.Path,
    splits: Mapping[str, Split],
    tokens: Mapping[str, TokenizedSplit],
    vocabulary: Vocabulary,
    settings: DataSettings,
    notes: Sequence[str] = (),
) -> bool:
    """Writes the page to `path` unless it is there already, of the same data; returns whether it was written.

    Args:
      path: the page; its digest is recorded beside it.
      splits: the splits by name.
      tokens: their captions.
      vocabulary: of the training captions.
      settings: of the data set.
      notes: lines below the title.

    Raises:
      UserError: an image cannot be read any more, or the page cannot be written.
    """
    mark = f"<!-- data {_key(splits, vocabulary, settings.max_length, notes)} -->"
    if not digests.fault(path) and mark in path.read_text(encoding="utf-8"):
        return False
    title = f"{path.absolute().parent.name}: data"
    body = data_body(title, splits, tokens, vocabulary, settings, notes)
    # Names that are not UTF-8 hold lone surrogates, which cannot be encoded.
    with written_aside(path) as aside:
        aside.write_bytes(page(title, f"{body}\n{mark}").encode("utf-8", errors="replace"))
    digests.record(path.parent, [path.name])
    return True


def _key(splits: Mapping[str, Split], vocabulary: Vocabulary, max_length: int, notes: Sequence[str]) -> str:
    """Hex digits that change with what the page shows."""
    digest = hashlib.sha256(repr((vocabulary.words, max_length, tuple(notes))).encode())
    for name, split in splits.items():
        shown = (split.image_ids, split.file_names, split.captions, split.keys)
        digest.update(repr((name, *shown, split.images_left_out, split.captions_left_out)).encode())
    return digest.hexdigest()[:16]


def data_body(
    title: str,
    splits: Mapping[str, Split],
    tokens: Mapping[str, TokenizedSplit],
    vocabulary: Vocabulary,
    settings: DataSettings,
    notes: Sequence[str] = (),
) -> str:
    """Returns the content of the page as HTML."""
    colours = class_names(list(splits))
    captions = {name: caption_facts(split.tokens, settings.max_length) for name, split in tokens.items()}
    covered = {name: coverage(split.tokens, vocabulary, UNKNOWN_WORDS) for name, split in tokens.items()}
    parts = [
        head(title, [printable(note) for note in notes]),
        section("Splits", "results", [_splits_table(splits, captions, colours)]),
        section(
            "Words per caption",
            "charts",
            [_lengths(name, facts, settings.max_length, colours[name]) for name, facts in captions.items()],
            f"Captions of more than --max_length={settings.max_length} tokens are cut; the end token counts.",
        ),
        *_vocabulary(tokens, vocabulary, covered, settings.min_word_count, colours),
        *_duplicates(splits, tokens),
        section("Left out", "charts", _left_out(splits)),
        *(_samples(name, split) for name, split in splits.items()),
    ]
    return "\n".join(part for part in parts if part)


# ---- tables and charts ----


def _splits_table(splits: Mapping[str, Split], captions: Mapping[str, Captions], colours: Mapping[str, str]) -> str:
    columns = ("split", "images", "captions", "per image: least", "mean", "most", "distinct captions", "captions cut")
    rows = [_heads(columns)]
    for name, facts in captions.items():
        least, mean, most = facts.per_image
        counts = (
            len(splits[name]),
            facts.count,
            least,
            f"{mean:.2f}",
            most,
            facts.distinct,
            _of(facts.cut, facts.count),
        )
        rows.append([_split_head(name, colours), *_cells(counts)])
    return table(rows)


def _lengths(name: str, facts: Captions, max_length: int, colour: str) -> str:
    title = f"{TITLES[name]}: {number(facts.cut, 0)} of {number(facts.count, 0)} captions are cut"
    return histogram(title, facts.lengths, max_length, colour)


def _vocabulary(
    tokens: Mapping[str, TokenizedSplit],
    vocabulary: Vocabulary,
    covered: Mapping[str, Coverage],
    min_word_count: int,
    colours: Mapping[str, str],
) -> list[str]:
    size, rare = len(vocabulary.words) - len(SPECIAL_TOKENS), len(vocabulary.rare_words)
    rows = [_heads(("split", "words", "of them known", "captions of known words alone"))]
    for name, of in covered.items():
        shares = (of.words, _share(of.known_words, of.words), _share(of.known_captions, of.captions))
        rows.append([_split_head(name, colours), *_cells(shares)])
    known = set(vocabulary.words)
    train = {word: count for word, count in word_counts(tokens["train"].tokens).items() if word in known}
    lists = [_words("Most frequent words of training", most_frequent(train, WORDS))]
    lists += [_words(f"Unknown words, {TITLES[name]}", of.unknown) for name, of in covered.items() if of.unknown]
    hint = (
        f"{number(size, 0)} words occur at least --min_word_count={min_word_count} times in the training captions. "
        f"{number(rare, 0)} are rarer and unknown to the model."
    )
    return [section("Vocabulary", "results", [table(rows)], hint), section("Words", "charts", lists)]


def _words(title: str, words: Sequence[tuple[str, int]]) -> str:
    listed = "".join(f"<li>{_shown(word)} <span>{number(count, 0)}</span></li>" for word, count in words)
    return f'<div class="chart">\n<h3>{escape(title)}</h3>\n<ul class="words">{listed}</ul>\n</div>'


# ---- what comes twice, and what was left out ----


def _duplicates(splits: Mapping[str, Split], tokens: Mapping[str, TokenizedSplit]) -> list[str]:
    panels = [_shared_panel(one) for one in shared_images(splits)]
    for name, split in splits.items():
        groups = equal_images(split)
        if groups:
            count = sum(len(group) for group in groups)
            title = f"{TITLES[name]}: {number(count, 0)} images have only {number(len(groups), 0)} different contents"
            panels.append(_panel(title, [_shown(" = ".join(_few(group))) for group in groups[:FEW]], len(groups)))
    for name, split in tokens.items():
        found = repeated_captions(split, FEW)
        if found.count:
            title = (
                f"{TITLES[name]}: {number(found.count, 0)} captions of {number(found.images, 0)} images are equal to "
                "another one of the image"
            )
            lines = [f"{_shown(file)}: <q>{_shown(caption)}</q>" for file, caption in found.examples]
            panels.append(_panel(title, lines, found.images))
    hint = "Images are compared by their contents, between splits by their file names, too; captions by their words."
    return [section("Duplicates", "charts", panels, hint)]


def _shared_panel(one: Shared) -> str:
    title = f"{_of(len(one.file_names), one.of)} of the {TITLES[one.name]} images are {TITLES[one.other]} images, too"
    return _panel(title, [_shown(name) for name in one.file_names[:FEW]], len(one.file_names))


def _left_out(splits: Mapping[str, Split]) -> list[str]:
    panels = []
    for name, split in splits.items():
        for kind, entries in (("images", split.images_left_out), ("captions", split.captions_left_out)):
            if entries:
                lines = [f"{_shown(what)}: {_shown(reason)}" for what, reason in entries[:LEFT_OUT]]
                title = f"{TITLES[name]}: {number(len(entries), 0)} {kind} left out"
                panels.append(_panel(title, lines, len(entries)))
    return panels


def _panel(title: str, lines: Sequence[str], total: int) -> str:
    """A list of the first lines (HTML) of `total` ones."""
    if total > len(lines):
        lines = [*lines, f"and {number(total - len(lines), 0)} more"]
    listed = "".join(f"<li>{line}</li>" for line in lines)
    return f'<div class="chart">\n<h3>{escape(title)}</h3>\n<ul class="listed">{listed}</ul>\n</div>'


# ---- samples ----


def _samples(name: str, split: Split) -> str:
    among = len(split)
    if split.images is not None and split.images.in_sequence:
        among = min(among, AHEAD)
    rows = sorted(np.random.default_rng(SEED).permutation(among)[:SAMPLES].tolist())
    images = read_images(split, rows)
    cards = []
    for row in rows:
        captions = split.captions[row]
        references = [_cut(caption) for caption in captions[:CAPTIONS]]
        references += [f"and {len(captions) - CAPTIONS} more"] * (len(captions) > CAPTIONS)
        image = thumbnail(images[row], THUMBNAIL) if images else b""
        item = GalleryItem(image, _cut(split.image_ids[row]), _cut(split.file_names[row]), references, {}, {})
        cards.append(card(item, {}, "", {}))
    origin = f"the first {number(among, 0)} of {number(len(split), 0)}" if among < len(split) else number(among, 0)
    return section(f"Samples: {TITLES[name]}", "gallery", cards, f"{len(rows)} of {origin} images, drawn at random.")


# ---- texts ----


def _cut(text: object) -> str:
    """Text that may be shown, but not HTML: without control characters, and not too long."""
    shown = printable(str(text)[: CHARACTERS + 1])
    return shown if len(str(text)) <= CHARACTERS else shown[:CHARACTERS] + "…"


def _shown(text: object) -> str:
    return escape(_cut(text))


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:FEW], *["…"] * (len(names) > FEW)]


def _heads(names: Sequence[str]) -> list[str]:
    return [f"<th>{escape(name)}</th>" for name in names]


def _split_head(name: str, colours: Mapping[str, str]) -> str:
    return f'<th class="{colours[name]}"><i></i>{escape(TITLES[name])}</th>'


def _cells(values: Sequence[int | str]) -> list[str]:
    return [f"<td>{number(value, 0) if isinstance(value, int) else escape(value)}</td>" for value in values]


def _of(count: int, total: int) -> str:
    return f"{number(count, 0)} ({_share(count, total)})" if count else "0"


def _share(count: int, total: int) -> str:
    """The share in percent, rounded down, so that 100% means all; a dash of nothing."""
    return f"{1000 * count // total / 10:.1f}%" if total else "–"
