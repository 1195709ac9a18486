"""Compiled CIDEr-D against the equation and against pycocoevalcap; document frequencies and their file."""

import numpy as np
import pytest
import tensorflow as tf
from pycocoevalcap.cider.cider_scorer import CiderScorer

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.cider import Cider, InverseFrequencies
from spidercap.pipeline.metrics.document_frequencies import (
    count_document_frequencies,
    load_document_frequencies,
    save_document_frequencies,
)
from spidercap.pipeline.metrics.references import References
from tests.oracles import cider_d, padded, ragged_corpus, reference_array

IMAGES, LONGEST, BASE = 12, 9, 12


@pytest.fixture
def corpus():
    """Ragged references of a small vocabulary, so that n-grams repeat and meet."""
    references, _ = ragged_corpus(1, IMAGES, LONGEST)
    references[0] = [[4, 5, 4, 5, 4, 5, 4, 5, 6]] * 2  # a repeated n-gram, and a repeated reference
    return references


def candidates(count):
    return ragged_corpus(2, count, LONGEST)[1]


def same_call(references, longest=LONGEST, dtype=tf.float64, counts=None):
    """With document frequencies of the very references, as pycocoevalcap's Cider class computes them."""
    array = reference_array(references, longest)
    return Cider(References(array, counts), count_document_frequencies(array, BASE), dtype)


@pytest.mark.parametrize("longest", [LONGEST, 70])
def test_equals_the_equation(longest):
    """Also where captions and references take more than one limb."""
    references, said = ragged_corpus(9, 20, longest)
    references[0], said[0] = [[4, 5, 4, 5, 4, 5, 4, 5, 6]] * 2, [4, 5, 4, 5, 4, 5, 4, 5, 6]
    said[1] = [4] * longest
    scores = tf.function(same_call(references, longest))(tf.constant(padded(said, longest)), tf.range(20))
    expected = [cider_d(c, r, references) for c, r in zip(said, references, strict=True)]
    assert max(expected) > 1
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-5), (tf.float64, 1e-9)])
def test_equals_pycocoevalcap(dtype, tolerance):
    """Repeated words, unknown words, empty captions and empty references, which count as references."""
    references, said = ragged_corpus(10, 300, LONGEST, empty=True)
    assert [] in said and any([] in r for r in references)
    scorer = CiderScorer(n=4, sigma=6.0)
    for caption, image in zip(said, references, strict=True):
        scorer += (" ".join(map(str, caption)), [" ".join(map(str, r)) for r in image])
    mean, each = scorer.compute_score()
    assert mean > 0.1
    metric = same_call(references, dtype=dtype, counts=np.array([len(r) for r in references]))
    scores = tf.function(metric)(tf.constant(padded(said, LONGEST)), tf.range(300))
    assert scores.dtype == dtype
    np.testing.assert_allclose(scores, each, atol=tolerance)


def test_document_frequencies_of_another_corpus(corpus):
    """References that the corpus has never seen score by the corpus's frequencies, new n-grams as never seen."""
    train, others = corpus[:3], corpus[3:]
    others[0] = [[10, 11, 10, 11], [10, 11]]  # words that the corpus lacks
    cider = Cider(reference_array(others, LONGEST), count_document_frequencies(reference_array(train, LONGEST), 10))
    said = candidates(9)
    said[0] = [10, 11, 4, 5, 10 + 4, 11 + 5]  # ids that the corpus has no room for
    scores = cider(tf.constant(padded(said, LONGEST)), tf.range(9))
    expected = [cider_d(c, r, train) for c, r in zip(said, others, strict=True)]
    assert expected[0] > 0.4
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_document_frequencies_by_hand():
    """An n-gram counts once an image, however many of its references hold it, however often."""
    references = np.array([[[4, 5, 4, 5], [4, 5, 0, 0]], [[5, 4, 5, 0], [0, 0, 0, 0]]])
    frequencies = count_document_frequencies(references, 6)
    assert frequencies.images == 2
    assert [k.tolist() for k in frequencies.keys[:2]] == [[4, 5], [0 * 6 + 5, 1 * 6 + 4]]  # ranks of 4 and 5: 0, 1
    # 45 and 54; 454 and 545; 4545.
    assert [c.tolist() for c in frequencies.counts] == [[2, 2], [2, 2], [1, 2], [1]]


def test_highest_words_of_a_huge_vocabulary_stay_apart():
    """Neighbours of the highest ids are different n-grams; an id beyond the base is refused, not mistaken."""
    for base in (60_000, 2_000_000, 2**31 - 1):
        high = base - 1
        ngrams = [[high] * 4, [high, high, high, high - 1], [high - 1, high, high, high], [high, 4, high, high]]
        references = np.array(ngrams, np.int64)[:, None]
        frequencies = count_document_frequencies(references[:3], base)
        assert [len(k) for k in frequencies.keys] == [2, 3, 3, 3]
        assert all((k >= 0).all() and (np.diff(k) > 0).all() for k in frequencies.keys)
        with pytest.raises(ValueError, match=f"{base - 1}"):
            count_document_frequencies(references + 1, base)
    references = (np.array(ngrams, np.int64) - high + 59_999)[:, None].clip(4)
    ngrams = references[:, 0].tolist()
    cider = Cider(references, count_document_frequencies(references, 60_000), tf.float64)
    every = [(c, i) for c in ngrams for i in range(4)]
    scores = cider(tf.constant([c for c, _ in every]), tf.constant([i for _, i in every]))
    corpus = references.tolist()
    np.testing.assert_allclose(scores, [cider_d(c, corpus[i], corpus) for c, i in every], atol=1e-9)


def test_places_times_words_beyond_32_bits():
    """100,000 n-grams of 40,000 words: the place of a prefix times the number of words is no int32."""
    captions = np.random.default_rng(0).integers(4, 40_000, [20_000, 6])
    references = np.concatenate([captions, captions])[:, None]  # each n-gram is in two images
    idf = InverseFrequencies(count_document_frequencies(references, 40_000), tf.float64)
    of_order = list(idf(tf.constant(captions[::10].T)))
    assert len(of_order) == 4
    for each in of_order[1:]:
        np.testing.assert_allclose(each, np.log(20_000))


def test_what_the_cache_keeps_scores_the_same_and_is_not_made_again(corpus, tmp_path, monkeypatch, capsys):
    references = reference_array(corpus, LONGEST)
    frequencies = count_document_frequencies(references, BASE)
    words, image = tf.constant(padded(candidates(50), LONGEST)), tf.range(50) % IMAGES

    def scores(frequencies=frequencies, references=references, dtype=tf.float32):
        return Cider(References(references, cache=tmp_path), frequencies, dtype, tmp_path)(words, image).numpy()

    expected = Cider(references, frequencies)(words, image).numpy()
    np.testing.assert_array_equal(scores(), expected)
    with monkeypatch.context() as patch:
        for module in ("references", "document_frequencies"):
            patch.setattr(f"spidercap.pipeline.metrics.{module}.settled", lambda keys: pytest.fail("made again"))
        patch.setattr(Cider, "_reference_norms", lambda *args: pytest.fail("made again"))
        np.testing.assert_array_equal(scores(), expected)
    for path in sorted(tmp_path.rglob("*.npy")):
        path.write_bytes(path.read_bytes()[:-8])
        np.testing.assert_array_equal(scores(), expected)
        assert f"{path.name} is damaged or was changed; computed again" in capsys.readouterr().err
    # Other inputs have tables of their own.
    other = count_document_frequencies(references[:6], BASE)
    np.testing.assert_array_equal(scores(other), Cider(references, other)(words, image))
    np.testing.assert_array_equal(
        scores(references=references[::-1]), Cider(references[::-1], frequencies)(words, image)
    )
    assert scores(dtype=tf.float64).dtype == np.float64


def test_saved_document_frequencies_score_the_same(corpus, tmp_path):
    references = reference_array(corpus, LONGEST)
    frequencies = count_document_frequencies(references[:8], BASE)
    save_document_frequencies(tmp_path / "new" / "frequencies.npz", frequencies)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["frequencies.npz"]
    loaded = load_document_frequencies(tmp_path / "new" / "frequencies.npz")
    assert (loaded.base, loaded.images) == (BASE, 8)
    words, image = tf.constant(padded(candidates(50), LONGEST)), tf.range(50) % IMAGES
    before, after = (Cider(references, f)(words, image).numpy() for f in (frequencies, loaded))
    assert before.max() > 0.5
    np.testing.assert_array_equal(after, before)


def test_broken_files_of_document_frequencies_are_refused(corpus, tmp_path):
    path = tmp_path / "frequencies.npz"
    with pytest.raises(UserError, match=r"frequencies.npz"):
        load_document_frequencies(path)
    save_document_frequencies(path, count_document_frequencies(reference_array(corpus, LONGEST), BASE))
    whole = path.read_bytes()
    middle = len(whole) // 2
    for broken in (b"", b"words", whole[:middle], whole[:middle] + b"\xff" * 8 + whole[middle + 8 :]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="counted again"):
            load_document_frequencies(path)
    np.savez(path, base=3)
    with pytest.raises(UserError, match="counted again"):
        load_document_frequencies(path)
