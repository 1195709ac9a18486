"""The tokenizer against the Java tool's own answers, and against strings that no caption should be."""

import gzip
import importlib.util
import json
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from spidercap.pipeline.text.tokenizer import tokenize
from tests.golden.make_tokenizer import TABLE, java_tokens

DATA = Path(os.environ.get("SPIDERCAP_DATA", Path(__file__).parents[2] / "shared" / "data"))
CAPTION_FILES = (
    DATA / "coco" / "captions_val2014_without_karpathy_test.json.gz",
    DATA / "flickr8k" / "captions_train.json",
    DATA / "flickr8k" / "captions_val.json",
)

WHITE_SPACE = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]


@pytest.mark.parametrize("caption, expected", json.loads(TABLE.read_text("utf-8")))
def test_agrees_with_the_java_tool(caption: str, expected: list[str]) -> None:
    assert tokenize(caption) == expected


def test_white_space_of_any_kind_separates_words() -> None:
    for space in [*WHITE_SPACE, "\r\n", "\x00"]:
        assert tokenize(f"{space}A dog{space}runs.{space}Fast{space}") == ["a", "dog", "runs", "fast"], ascii(space)


def test_a_broken_line_reads_like_a_blank() -> None:
    assert tokenize("No.\n5, 1\r1/2-inch, a.\u2028The dog can't\u2029") == tokenize(
        "No. 5, 1 1/2-inch, a. The dog can't"
    )


@pytest.mark.parametrize("caption", ["", " ", "\n\r\t\u2028\x00", "...", "\ud83d", "\ud800\udc00\udfff", "\U0001f600"])
def test_a_caption_without_words_has_no_tokens(caption: str) -> None:
    assert tokenize(caption) == []


def test_any_character_is_accepted_and_no_token_holds_white_space() -> None:
    for code in (*range(0x10000), *range(0x10000, sys.maxunicode + 1, 257)):
        tokens = tokenize(f"a{chr(code)}b {chr(code)}. <b {chr(code)}> 5{chr(code)}1/2")
        assert all(token and token.split() == [token] for token in tokens), hex(code)


def test_every_word_of_a_long_caption_is_kept() -> None:
    words = [f"word{index}" for index in range(500)]
    assert tokenize(", ".join(words) + ".") == words


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "5",
        " ",
        "-",
        "'",
        "a.",
        "a.5",
        "a-",
        "a_",
        "a/",
        "A&",
        "<a",
        "&",
        "b. ",
        "no. ",
        "n't",
        "\u2028",
        "\xe9",
    ],
)
def test_time_is_proportional_to_length(unit: str) -> None:
    caption = unit * (200_000 // len(unit))
    start = time.perf_counter()
    tokenize(caption)
    # Thirty times what it takes; rules that look on to the end from every token take far longer.
    assert time.perf_counter() - start < 20


def sample_of_real_captions() -> list[str]:
    """Returns 3,000 captions, every other one with something else in it than words, commas and a last dot."""
    captions = []
    for path in CAPTION_FILES:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            captions += [annotation["caption"] for annotation in json.load(file)["annotations"]]
    chooser = random.Random(0)
    odd = [caption for caption in captions if not re.fullmatch(r"[A-Za-z,\s]*\.?\s*", caption)]
    return chooser.sample(odd, 1500) + chooser.sample(captions, 1500)


@pytest.mark.skipif(not all(path.exists() for path in CAPTION_FILES), reason=f"no real captions in {DATA}")
@pytest.mark.skipif(not shutil.which("java"), reason="no java on the path")
@pytest.mark.skipif(not importlib.util.find_spec("pycocoevalcap"), reason="pycocoevalcap is not installed")
def test_agrees_with_the_java_tool_on_real_captions() -> None:
    captions = sample_of_real_captions()
    expected = java_tokens([" ".join(caption.split()) for caption in captions])
    different = [
        (caption, theirs, ours)
        for caption, theirs, ours in zip(captions, expected, map(tokenize, captions), strict=True)
        if theirs != ours
    ]
    assert len(different) <= len(captions) // 1000, different
