"""Captions as flat arrays: the same words as the tokenizer's, read from the cache or made again if it is damaged."""

import gzip
import json
import random

import numpy as np
import pytest

from spidercap.models.special_tokens import END, UNKNOWN
from spidercap.pipeline.cached_arrays import cached_arrays, key_of
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.data.tokens import tokenize_split, training_arrays
from spidercap.pipeline.text import tokenizer
from spidercap.pipeline.text.flat_tokens import flat_tokens
from spidercap.pipeline.text.tokenizer import tokenize
from spidercap.pipeline.text.vocabulary import build_vocabulary

CAPTIONS = (("A dog runs.", "A dog, cannot\nrun"), ("The St. Bernard",), ("",), ("a Über-dog " * 30, "a", "b", "c d"))


def split_of(captions=CAPTIONS, cache=None):
    return tokenize_split(Split(tuple(range(len(captions))), ("",) * len(captions), captions, (), None), cache)


def test_plain_captions_read_as_by_the_rules_real_ones(data_folder):
    path = data_folder / "coco" / "captions_val2014_without_karpathy_test.json.gz"
    captions = [row["caption"] for row in json.loads(gzip.decompress(path.read_bytes()))["annotations"]][::20]
    assert sum(bool(tokenizer._PLAIN.fullmatch(caption)) for caption in captions) > 0.9 * len(captions) > 7000
    assert [tokenize(caption) for caption in captions] == [tokenizer._by_rules(caption) for caption in captions]


@pytest.mark.parametrize("caption", ["A dog runs .", "A dog, a cat  . ", "Dog.", "dog"])
def test_a_stop_of_its_own_is_plain_too(caption):
    """So Flickr8k's captions end."""
    assert tokenizer._PLAIN.fullmatch(caption) and tokenize(caption) == tokenizer._by_rules(caption)


def test_plain_captions_read_as_by_the_rules_hard_ones():
    generator = random.Random(1)
    parts = [*"aAbIpT", "dog", "cannot", "Cannot", "gonna", "wanna", "st", "No", "Mr", "ca", "fig", "ave", "in", "co"]
    between = [" ", ", ", ",", ". ", " .", "  ", " , ", ".", "\n", ""]
    for _ in range(20000):
        drawn = ((generator.choice(parts), generator.choice(between)) for _ in range(generator.randint(1, 5)))
        caption = "".join(part for pair in drawn for part in pair)
        assert tokenize(caption) == tokenizer._by_rules(caption), caption


def test_a_split_holds_the_words_of_the_tokenizer():
    split = split_of()
    assert list(split.tokens) == [[tokenize(caption) for caption in of_image] for of_image in CAPTIONS]
    assert split.texts()[1:] == [[" ".join(tokenize(c)) for c in of_image] for of_image in CAPTIONS[1:]]
    assert split.texts()[-1] == split.texts()[3] and len(split.texts()) == 4
    with pytest.raises(IndexError):
        split.texts()[4]
    assert split.words.counted()["dog"] == 2 and split.words.counted().total() == split.words.numbers.lengths.sum()


def test_arrays_are_those_of_lists():
    split = split_of()
    vocabulary = build_vocabulary(split.words.counted(), 2)
    arrays = training_arrays(split, vocabulary, np.zeros([4, 1, 1], np.float32), 5)
    ids = {word: i for i, word in enumerate(vocabulary.words + vocabulary.rare_words)}
    encoded = [[*(ids[word] for word in words), END] for of_image in split.tokens for words in of_image]
    known = [[i if i < len(vocabulary.words) else UNKNOWN for i in caption] for caption in encoded]
    assert arrays.tokens.tolist() == [(caption + [0] * 5)[:5] for caption in known]
    assert arrays.image_index.tolist() == [0, 0, 1, 2, 3, 3, 3, 3] and arrays.tokens.dtype == np.int32
    found = {int(image): rows for images, ids in arrays.references for image, rows in zip(images, ids, strict=True)}
    nested = iter(encoded)
    for image, of_image in enumerate(CAPTIONS):
        rows = [[i for i in row if i] for row in found[image].tolist()]
        assert [row for row in rows if row] == [next(nested) for _ in of_image]


def test_a_caption_longer_than_others_is_padded_alone():
    flat = flat_tokens([[[1, 2, 3], []], [], [[4]]])
    assert flat.padded(2).tolist() == [[1, 2], [0, 0], [4, 0]]
    assert flat.ended(9).padded(4).tolist() == [[1, 2, 3, 9], [9, 0, 0, 0], [4, 9, 0, 0]]
    assert flat.counts.tolist() == [2, 0, 1] and flat.lengths.tolist() == [3, 0, 1]


@pytest.mark.parametrize("captions", [(), ((),), (("",),)])
def test_no_words_at_all(captions, tmp_path):
    for _ in range(2):
        split = split_of(captions, tmp_path)
        assert list(split.texts()) == [list(of_image) for of_image in captions] and not split.words.counted()


def test_captions_are_tokenised_once(tmp_path, monkeypatch, capsys):
    whole = split_of(cache=tmp_path)
    monkeypatch.setattr("spidercap.pipeline.data.tokens.tokenize", lambda caption: pytest.fail("tokenised again"))
    again = split_of(cache=tmp_path)
    assert list(again.tokens) == list(whole.tokens) and not capsys.readouterr().err
    tokens = again.words.numbers.tokens
    assert isinstance(tokens, np.memmap)
    tokens[0] = 99  # in this process alone
    assert list(split_of(cache=tmp_path).tokens) == list(whole.tokens)
    with pytest.raises(pytest.fail.Exception):  # the same words, other captions
        split_of((CAPTIONS[0][:1], CAPTIONS[0][1:]), tmp_path) and split_of((("A dog runs.A dog,", ""),), tmp_path)


@pytest.mark.parametrize("damage", ["changed", "cut", "lost", "digests"])
def test_a_damaged_cache_is_made_again(tmp_path, damage, capsys):
    whole = list(split_of(cache=tmp_path).tokens)  # read now, as its files are damaged next
    (path,) = tmp_path.glob("tokens/*/numbers.npy")
    content = path.read_bytes()
    if damage == "lost":
        path.unlink()
    elif damage == "digests":
        path.with_name("digests.json").write_text("[1]")
    else:
        path.write_bytes(content[:-1] + (b"" if damage == "cut" else b"\x7f"))
    assert list(split_of(cache=tmp_path).tokens) == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path.parent}: ") and line.endswith("; computed again")
    assert path.read_bytes() == content
    assert list(split_of(cache=tmp_path).tokens) == whole and not capsys.readouterr().err


def test_keys_tell_everything_apart():
    arrays = [np.zeros(4, np.int32), np.zeros(2, np.int64), np.zeros([2, 2], np.int32), np.zeros(0, np.int32)]
    keys = {key_of(*parts) for parts in ([arrays[0]], [arrays[1]], [arrays[2]], [arrays[3]], ["a", "b"], ["ab"], [])}
    assert len(keys) == 7
    assert cached_arrays(None, ("x",), lambda: {"x": arrays[0]})["x"] is arrays[0]
