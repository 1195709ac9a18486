"""n-grams as bits against counting by hand, and what all three compiled metrics promise."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END
from spidercap.pipeline.metrics import ngrams
from spidercap.pipeline.metrics.bleu import Bleu
from spidercap.pipeline.metrics.cider import Cider
from spidercap.pipeline.metrics.document_frequencies import count_document_frequencies
from spidercap.pipeline.metrics.key_table import KeyTable, settled
from spidercap.pipeline.metrics.ngrams import (
    BITS,
    counted,
    ends,
    in_chunks,
    repeats,
    without_end,
)
from spidercap.pipeline.metrics.references import ReferencePositions
from spidercap.pipeline.metrics.rouge import Rouge
from tests.oracles import padded, ragged_corpus, reference_array

BASE = 12


def cider(references):
    return Cider(references, count_document_frequencies(references, BASE))


METRICS = {"bleu": Bleu, "rouge": Rouge, "cider": cider}


@pytest.fixture(params=METRICS)
def metric(request):
    return METRICS[request.param]


def grams(caption, order):
    return [tuple(caption[i : i + order]) for i in range(len(caption) - order + 1)]


@pytest.mark.parametrize("longest", [1, 3, 9, BITS + 1, 2 * BITS + 7])
def test_places_and_repeats_by_hand(longest):
    """For captions and references within a limb, one position beyond it and over three limbs."""
    references, said = ragged_corpus(3, 6, longest)
    array, words = reference_array(references, longest), padded(said, longest).T.astype(np.int64)
    limbs = ReferencePositions(array)(tf.constant(words), tf.range(6, dtype=tf.int64))
    orders = zip(ends(limbs), repeats(tf.constant(words)), strict=True)
    for order, (places, earlier) in enumerate(orders, 1):
        counts, ranks = counted(places, 255).numpy(), counted(earlier, 256).numpy()
        assert counts.shape == (max(longest - order + 1, 0), 6, array.shape[1])
        for i, caption in enumerate(said):
            seen = Counter()
            for t, gram in enumerate(grams(caption, order)):
                assert [Counter(grams(r, order))[gram] for r in references[i]] == list(
                    counts[t, i, : len(references[i])]
                )
                assert ranks[t, i] == seen[gram]
                seen[gram] += 1


def test_counts_beyond_a_byte():
    limbs = [tf.constant([(1 << BITS) - 1], tf.int64)] * 5
    assert counted(limbs, 5 * BITS).numpy() == [5 * BITS]


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 60_000])
def test_key_table_finds_every_key_and_nothing_else(count):
    rng = np.random.default_rng(count)
    keys = rng.permutation(np.unique(rng.integers(0, 2**62, count) >> rng.integers(0, 50, count)))
    slots, factors, places = settled(keys)
    table = KeyTable(slots, factors)
    assert len(np.unique(places)) == len(keys)
    np.testing.assert_array_equal(table.find(tf.constant(keys)), places)
    others = np.setdiff1d(np.concatenate([keys + 1, keys - 1, [0, 2**62]]), keys)
    assert (table.find(tf.constant(others)).numpy() == table.size).all()


def test_chunks_are_few_equal_and_in_order(monkeypatch):
    monkeypatch.setattr(ngrams, "ROOM", 30)
    sizes = []

    def function(words, images):
        tf.py_function(lambda n: sizes.append(int(n)), [tf.shape(images)[0]], [])
        return tf.stack([tf.cast(tf.reduce_sum(words, 0) * 10 + images, tf.float32)] * 2, 1)

    candidates, images = np.arange(46).reshape(23, 2), np.arange(23) % 3
    result = in_chunks(function, 3, tf.constant(candidates), tf.constant(images), tf.float32)
    np.testing.assert_array_equal(result, np.stack([candidates.sum(1) * 10 + images] * 2, 1))
    assert sizes == [5] * 5


def scores_of(metric, references, said, image, longest):
    built = metric(reference_array(references, longest))
    return tf.function(built)(tf.constant(padded(said, longest)), tf.constant(image)).numpy()


def test_many_candidates_equal_one_by_one(metric, monkeypatch):
    """Over several chunks, with N known and not known when the graph is built, and each alone."""
    monkeypatch.setattr(ngrams, "ROOM", 2000)
    references, _ = ragged_corpus(1, 12, 9)
    _, said = ragged_corpus(2, 101, 9)
    image = np.arange(101, dtype=np.int32) % 12
    scores = scores_of(metric, references, said, image, 9)
    built = metric(reference_array(references, 9))
    signature = [tf.TensorSpec([None, 9], tf.int32), tf.TensorSpec([None], tf.int32)]
    unknown_count = tf.function(built, input_signature=signature)
    words = padded(said, 9)
    assert len(np.unique(scores)) > 30
    np.testing.assert_allclose(unknown_count(words, image), scores, atol=1e-6)
    alone = np.concatenate([unknown_count(words[i : i + 1], image[i : i + 1]) for i in range(101)])
    np.testing.assert_allclose(alone, scores, atol=1e-6)
    assert unknown_count(words[:0], image[:0]).shape == (0, *scores.shape[1:])


def test_padding_order_and_kind_of_integer_change_nothing(metric):
    references, _ = ragged_corpus(1, 12, 9)
    _, said = ragged_corpus(2, 40, 9)
    words, image = padded(said, 9), np.arange(40) % 12
    built = metric(reference_array(references, 9))
    scores = built(tf.constant(words), tf.constant(image)).numpy()
    wider = built(tf.constant(np.pad(words, [[0, 0], [0, 60]]), tf.int64), tf.constant(image, tf.int32))
    np.testing.assert_allclose(wider, scores, atol=1e-6)
    longer = metric(np.pad(reference_array(references, 9), [[0, 0], [0, 2], [0, 60]]))
    np.testing.assert_allclose(longer(tf.constant(words), tf.constant(image)), scores, atol=1e-6)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(built(tf.constant(words[order]), tf.constant(image[order])), scores[order], atol=1e-6)


def test_xla_gives_the_same(metric, monkeypatch):
    """In one go, in chunks, and with captions long enough for loops."""
    monkeypatch.setattr(ngrams, "ROOM", 4000)
    for longest in (9, 65):
        references, said = ragged_corpus(4, 30, longest)
        built, image = metric(reference_array(references, longest)), tf.range(30)
        words = tf.constant(padded(said, longest))
        expected = tf.function(built)(words, image)
        for n in (3, 30):
            compiled = tf.function(built, jit_compile=True)(words[:n], image[:n])
            np.testing.assert_allclose(compiled, expected[:n], atol=1e-6)


def test_edges_are_defined(metric):
    """No words, one word, images without references, and none anywhere: numbers, and 0 where nothing can match."""
    references = np.zeros([3, 2, 4], np.int32)
    references[0] = [[4, 5, 6, 7], [4, 0, 0, 0]]
    for built in (metric(references), metric(np.zeros_like(references)), metric(references[:, :, :1])):
        for steps in (0, 1, 2, 4):
            words = np.array([[4, 5, 6, 7], [0, 0, 0, 0], [11, 11, 11, 11]], np.int32)[:, :steps]
            for image in range(3):
                scores = built(tf.constant(words), tf.fill([3], image)).numpy()
                assert np.isfinite(scores).all()
                assert np.abs(scores[1:]).max() < 2e-4  # BLEU-4 without a match: small, not 0
                if image:
                    assert np.abs(scores).max() < 2e-4


def test_words_that_no_reference_has_do_not_meet(metric):
    """Ids far above the references' stay apart from them and from each other."""
    references = np.array([[[4, 5, 6, 7]], [[5, 5, 6, 11]]], np.int32)
    built = metric(references)
    for shift in (BASE, 8, 2**20, 2**31 - 20):
        strangers = np.array([[4, 5, 6, 7], [5, 5, 6, 11]], np.int64) + shift
        scores = built(tf.constant(np.concatenate([strangers, strangers])), tf.constant([0, 1, 1, 0]))
        assert np.abs(scores).max() < 2e-4


def test_end_token_is_a_word_only_if_asked():
    captions = np.array([[4, 5, END, 0]])
    np.testing.assert_array_equal(without_end(captions), [[4, 5, 0, 0]])
    np.testing.assert_array_equal(without_end(tf.constant(captions)), [[4, 5, 0, 0]])
