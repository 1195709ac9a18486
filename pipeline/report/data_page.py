"""The page of a data set: what its splits hold, what is wrong with them, and samples of them.

It is written before training, so that mistakes in the data are seen while they are cheap.
"""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from html import escape

from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline import digests
from spidercap.pipeline.data.records import TITLES, Split
from spidercap.pipeline.data.tokens import TokenizedSplit
from spidercap.pipeline.files import written_aside
from spidercap.pipeline.report.charts import number
from spidercap.pipeline.report.data_facts import (
    Captions,
    Coverage,
    caption_facts,
    coverage,
    most_frequent,
    word_counts,
)
from spidercap.pipeline.report.data_panels import duplicates, left_out, samples, word_list
from spidercap.pipeline.report.histogram import histogram
from spidercap.pipeline.report.page import class_names, head, page, section, table
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.text.printable import printable
from spidercap.pipeline.text.vocabulary import Vocabulary

WORDS, UNKNOWN_WORDS = 60, 20  # the most frequent ones that are listed


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
    mark = f"<!-- data {_key(splits, vocabulary, settings, notes)} -->"
    if not digests.fault(path) and mark in path.read_text(encoding="utf-8"):
        return False
    title = f"{path.absolute().parent.name}: data"
    body = data_body(title, splits, tokens, vocabulary, settings, notes)
    # Names that are not UTF-8 hold lone surrogates, which cannot be encoded.
    with written_aside(path) as aside:
        aside.write_bytes(page(title, f"{body}\n{mark}").encode("utf-8", errors="replace"))
    digests.record(path.parent, [path.name])
    return True


def _key(splits: Mapping[str, Split], vocabulary: Vocabulary, settings: DataSettings, notes: Sequence[str]) -> str:
    """Hex digits that change with what the page shows."""
    counted_by = (settings.max_length, settings.min_word_count)
    digest = hashlib.sha256(repr((vocabulary.words, counted_by, tuple(notes))).encode())
    for name, split in splits.items():
        shown = (split.image_ids, split.file_names, split.captions, split.keys)
        left = (split.images_left_out, split.captions_left_out, split.rows_left_out)
        digest.update(repr((name, *shown, *left)).encode())
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
        duplicates(splits, tokens),
        left_out(splits),
        *(samples(name, split) for name, split in splits.items()),
    ]
    return "\n".join(part for part in parts if part)


# ---- tables and charts ----


def _splits_table(splits: Mapping[str, Split], captions: Mapping[str, Captions], colours: Mapping[str, str]) -> str:
    columns = ("split", "images", "captions", "least per image", "mean", "most", "distinct captions", "captions cut")
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
    rows = [_heads(("split", "words", "of them known", "captions without unknown words"))]
    for name, of in covered.items():
        shares = (of.words, _share(of.known_words, of.words), _share(of.known_captions, of.captions))
        rows.append([_split_head(name, colours), *_cells(shares)])
    known = set(vocabulary.words)
    train = {word: count for word, count in word_counts(tokens["train"].tokens).items() if word in known}
    lists = [word_list("Most frequent words of training", most_frequent(train, WORDS))]
    lists += [word_list(f"Unknown words, {TITLES[name]}", of.unknown) for name, of in covered.items() if of.unknown]
    hint = (
        f"{number(size, 0)} words occur at least --min_word_count={min_word_count} times in the training captions. "
        f"{number(rare, 0)} are rarer and unknown to the model."
    )
    return [section("Vocabulary", "results", [table(rows)], hint), section("Words", "charts", lists)]


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
