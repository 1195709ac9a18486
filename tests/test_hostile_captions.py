"""Captions that nobody would write: no tool trips over them, and none moves the scores of its neighbours."""

import contextlib
import functools
import random

import numpy as np
import pytest

from spidercap.pipeline.metrics.java.process import OutOfTime
from spidercap.pipeline.metrics.java.tokenizer import tokenize_with_java
from spidercap.pipeline.metrics.long_captions import LongCaptions
from spidercap.pipeline.metrics.registry import METRICS, column_names
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.spice import Spice, f_score
from spidercap.pipeline.metrics.spice_fast.metric import TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser
from spidercap.pipeline.metrics.tuple_store import TupleStore
from spidercap.pipeline.text.one_line import one_line
from spidercap.pipeline.text.tokenizer import tokenize

WORDS = ["a", "the", "two", "red", "dogs", "cat", "man", "riding", "on", "is", "children's", "can't", "T.V.", "x-ray"]
BREAKS = ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\v", "\f", "\t", "\0", "\x1c", "\x1e", "\n\n"]
BLANKS = ["  ", "\u00a0", "\u3000", "\u2003", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e"]
MARKS = ["\u202e", "\u200f", "\u2067", "\u2069", "\u202c", "\u0301", "\u0307\u0323", "\u20dd", "\ufe0f", "\u1ab0"]
HALVES = ["\ud800", "\udc00", "\udfff", "\udbff", "\udc00\ud800", "\udcff"]
PIECES = [
    *("|||", " ||| ", "||||", "|", "EVAL", "SCORE ||| a ||| b", "*NL*", "\\n", "\\", "%s", "%n", "{}", "$1"),
    *("\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\U0001d4d0"),
    *("שלום", "مرحبا", "中文", "日本語。", "ÅÄÖ", "İı", "ΑΣ", "ﬁ", "ß", "ǆ", "\ue000", "\uffff", "\U0010ffff"),
    *('"', "'", "``", "''", "“”", "’s", "'em", "n't", "'); DROP TABLE tuples; --", "' OR '1'='1", "?1", ":name"),
    *("<b>bold</b>", '<a href="x">', "&amp;", "&lt;b&gt;", "&#128512;", "<!-- -->", "<", ">", "]]>", "</s>"),
    *('{"image_id": 1, "caption": "a"}', "[]", "null", "NaN", "true", "{", "}", "-LRB-", "-RRB- ", "(", ")", "-lsb-"),
    *("1 1/2", "3.5-inch", "1,000.50", "-5", ":30", "½", "1e9", "٣", "²", "555-5555", "(555) 555-5555", "12:30"),
    *("!?", "...", "--", ";", ",", ":", "#tag", "@name", "http://a.b/c?d=e&f", "a@b.c", "C++", "_", "*", "~", "^"),
]


def hostile_caption(generator):
    """Returns a caption of any kind; it never ends in a dot, on which the tokenizer asks the next caption's word."""
    kind = generator.random()
    if kind < 0.04:
        return generator.choice(["", " ", *BREAKS, *BLANKS, *MARKS, *HALVES, "|||", "!", "? ! ,", "''"])
    if kind < 0.06:
        return " ".join(generator.choices(WORDS, k=generator.choice([60, 500])))
    if kind < 0.07:
        return generator.choice(["x", "ab-", "\u0301", "1", "\U0001f600", "א", "!"]) * generator.choice([300, 2_000])
    if kind < 0.12:  # whatever comes
        most = generator.choice([0x3000, 0x3000, 0x3000, 0x110000])
        return "".join(chr(generator.randrange(most)) for _ in range(12)) + "x"
    pools = [WORDS, WORDS, WORDS, BREAKS, BLANKS, MARKS, HALVES, PIECES, PIECES]
    said = [generator.choice(generator.choice(pools)) for _ in range(generator.randint(1, 14))]
    return "".join(piece + generator.choice(["", " ", " ", " "]) for piece in said) + generator.choice(["dog", "!", ""])


def one_of(generator):
    while True:
        caption = hostile_caption(generator)
        # An open tag, too, may go on in the next caption.
        if not one_line(caption).rstrip().endswith((".", "…")) and caption.count("<") == caption.count(">"):
            return caption


@functools.cache
def hostile(count):
    """Returns `count` captions, the same in every run."""
    generator = random.Random(7)
    return [one_of(generator) for _ in range(count)]


def in_lines(captions):
    """Returns captions as the tools get them, whose trade are words split by one blank."""
    return [" ".join(tokenize(caption)) for caption in captions]


def finite(scores, least=0.0, most=1.0):
    scores = np.asarray(scores, np.float64)
    return bool(np.isfinite(scores).all() and (scores >= least).all() and (scores <= most + 1e-9).all())


class NoTime:
    """Parses nothing, as longer captions take the parser seconds to hours."""

    def try_each(self, items, *, keep, **_):
        for place in range(len(items)):
            keep(place, [OutOfTime("no answer in time")])


def at_most_15_words(monkeypatch):
    """Returns what cuts all longer captions."""
    monkeypatch.setattr("spidercap.pipeline.metrics.long_captions.MOST_WORDS", 15)
    return LongCaptions(NoTime(), lambda: contextlib.nullcontext(NoTime()), 60.0)


class TestOwnTokenizer:
    def test_returns_words_without_white_space(self):
        for caption in hostile(10_000):
            assert all(word.split() == [word] for word in tokenize(caption))

    def test_what_breaks_lines_separates_words(self):
        for mark in BREAKS:
            assert tokenize(f"dog{mark}cat") == ["dog", "cat"]


class TestOneLine:
    def test_no_tool_sees_two_lines_or_half_a_character(self):
        for caption in hostile(10_000):
            line = one_line(caption)
            assert len(line) == len(caption) and len(line.splitlines()) <= 1 and "\0" not in line
            line.encode()

    def test_ordinary_captions_stay(self):
        for caption in ["a dog, running.", "הכלב רץ", "a 😀", "e\u0301", "a\u00a0b", "\u202ea"]:
            assert one_line(caption) == caption


class TestJavaTokenizer:
    @pytest.mark.long
    def test_many_at_once_are_as_each_alone(self, java):
        captions = hostile(2_000)
        together, *alone = tokenize_with_java(captions, *([caption] for caption in captions))
        assert len(together) == len(captions)
        different = [i for i, (line, [own]) in enumerate(zip(together, alone, strict=True)) if line != own]
        assert [captions[i] for i in different] == []


class TestMeteor:
    @pytest.mark.long
    def test_many_at_once_are_as_each_alone(self, meteor):
        captions = hostile(600)
        references = [[captions[i], captions[i - 1], "a dog on a surfboard"] for i in range(len(captions))]
        corpus, together, *_ = meteor.evaluate(captions, references)
        assert finite(corpus) and finite(together)
        alone = [
            meteor.rewards([caption], [of_image])[0] for caption, of_image in zip(captions, references, strict=True)
        ]
        assert list(together) == alone
        assert np.mean(together == 1) > 0.9  # each is among its own references


class TestSpice:
    @pytest.mark.long
    def test_many_at_once_are_as_each_alone(self, spice, monkeypatch, tmp_path):
        long = at_most_15_words(monkeypatch)
        captions = list(dict.fromkeys(hostile(250)))
        references = [[captions[i], captions[i - 1], "a dog on a surfboard"] for i in range(len(captions))]
        store = TupleStore(tmp_path)
        fresh = Spice(spice._parsers, spice._matchers, store, long)
        counts = fresh.score(captions, references)
        store.close()
        again = TupleStore(tmp_path)
        found = Spice(spice._parsers, spice._matchers, again, long)
        assert found.to_parse(captions) == 0
        for i in range(len(captions)):
            assert (found.score([captions[i]], [references[i]])[0] == counts[i]).all(), captions[i]
        again.close()
        # What a caption says, its own words among the references say too, but for the merging of its synonyms.
        assert np.mean(counts[:, 0, 0] == counts[:, 0, 1]) > 0.9
        assert finite(f_score(counts[:, 0])) and (counts[:, :, 0] <= counts[:, :, 1:].min(axis=-1)).all()


@pytest.mark.long
def test_all_scores_are_finite(meteor, spice, monkeypatch):
    monkeypatch.setattr(spice, "_long", at_most_15_words(monkeypatch))
    captions = in_lines(hostile(100))
    references = [captions[i - 3 : i] if i % 7 else [] for i in range(len(captions))]
    metrics = {"meteor": meteor, "spice": spice, "spice_fast": TextSpiceFast(load_parser())}
    scores = score_captions(references, captions, tuple(METRICS), metrics)
    assert len(scores.images) == len(captions)
    for column in column_names():
        most = {"CIDEr": 10, "SPIDEr": 5.5, "SPIDEr-fast": 5.5, "BCMR": 23}.get(column, 1)
        assert finite([scores.corpus[column], *(image[column] for image in scores.images)], most=most), column


def test_compiled_scores_are_finite():
    captions = in_lines(hostile(500))
    references = [captions[i - 3 : i] if i % 7 else [] for i in range(len(captions))]
    scores = score_captions(references, captions, ("bleu1", "bleu4", "rouge", "cider"), {})
    for column in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr"):
        most = 10 if column == "CIDEr" else 1
        assert finite([scores.corpus[column], *(image[column] for image in scores.images)], most=most), column
