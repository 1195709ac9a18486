"""References in size classes score as in one array, and one long caption or one image with many pads no other."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END, PAD, SPECIAL_TOKENS
from spidercap.pipeline.metrics.document_frequencies import count_document_frequencies
from spidercap.pipeline.metrics.size_classes import by_class, reference_array, size_classes
from spidercap.pipeline.metrics.spice_fast.matching import Matcher
from spidercap.pipeline.text.flat_tokens import flat_tokens
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward, reward_frequencies
from tests.test_gpu_ready import host_only

WORDS = ("a", "red", "dog", "man", "on", "two", "horse", "rides", "with", "white", "hat", "street")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), ())
TERMS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge", "cider")


def toy():
    """Eight images: one has a caption of 150 words, one has 20 references, the others two or three short ones."""
    rng = np.random.default_rng(0)

    def caption(length):
        return [int(w) for w in rng.integers(4, 4 + len(WORDS), length)] + [END]

    references = [[caption(rng.integers(3, 9)) for _ in range(rng.integers(2, 4))] for _ in range(8)]
    references[2][0] = caption(150)
    references[5] = [caption(rng.integers(3, 9)) for _ in range(20)]
    captions = [of_image[-1] for of_image in references] + [caption(6) for _ in range(20)]
    return references, reference_array([[c] for c in captions])[0][:, 0], np.arange(len(captions)) % 8


def reward_of(references, made, end):
    texts = ReferenceTexts(VOCABULARY, [[VOCABULARY.decode(c) for c in of_image] for of_image in references])
    frequencies = reward_frequencies(made, VOCABULARY.reference_size, end)
    return build_reward(dict.fromkeys(TERMS, 1.0), made, frequencies, end, texts)


@pytest.mark.parametrize("end", [True, False])
def test_scores_are_those_of_one_array(end):
    references, captions, images = toy()
    classes = size_classes(flat_tokens(references))
    assert [c.images.tolist() for c in classes] == [[0, 1, 3, 4, 6, 7], [2], [5]]
    asked = tf.constant(captions), tf.constant(images)
    dense = reward_of(references, reference_array(references)[0], end).compiled_scores(*asked)
    reward = reward_of(references, classes, end)
    split = reward.compiled_scores(*asked)
    assert set(split) == set(TERMS)
    for term in TERMS:
        np.testing.assert_allclose(split[term], dense[term], rtol=1e-6, atol=1e-7, err_msg=term)
        assert np.ptp(split[term]) > 0
    # Also where a class, or every class, has no captions.
    for some in (slice(0, 2), slice(0, 0)):
        few = reward.compiled_scores(*(part[some] for part in asked))
        np.testing.assert_array_equal(few["cider"], split["cider"][some])


def test_ordinary_references_are_one_array():
    references = [[[5, 6, END], [7, END]], [[5] * 61 + [END]] * 8]
    (only,) = size_classes(flat_tokens(references))
    assert only.images.tolist() == [0, 1]
    np.testing.assert_array_equal(only.ids, reference_array(references)[0])
    assert only.ids.shape == (2, 8, 62)


def test_tables_grow_with_their_own_references_alone():
    """200 images of five short captions: what one caption of 3,000 words and one image of 500 references add."""
    short = [[[4 + k, 5, 6, END] for k in range(5)] for _ in range(200)]
    base = sum(c.ids.size for c in size_classes(flat_tokens(short)))
    classes = size_classes(flat_tokens([*short, [*short[0][1:], [7] * 3000], [[4, 5, END]] * 500]))
    assert sum(c.ids.size for c in classes) <= base + 5 * 3000 + 500 * 3


def test_document_frequencies_are_those_of_one_array():
    references, _, _ = toy()
    one = count_document_frequencies(reference_array(references)[0], 99)
    other = count_document_frequencies(size_classes(flat_tokens(references)), 99)
    assert one.images == other.images
    for a, b in zip(one.keys + one.counts, other.keys + other.counts, strict=True):
        np.testing.assert_array_equal(a, b)


def test_spice_fast_matches_an_image_of_many_tuples_in_a_class_of_its_own():
    terms = ["", *(f"thing{i}" for i in range(400))]
    many = np.array([[i, 0, 0, 1] for i in range(1, 400)])
    few = [np.array([[1, 0, 0, 1], [2, 3, 0, 2]]), np.array([[5, 0, 0, 5]])]
    tuples = tf.constant([[[1, 0, 0, 4], [399, 0, 0, 1]], [[2, 3, 0, 3], [1, 0, 0, 1]], [[5, 0, 0, 4], [300, 0, 0, 1]]])
    matcher = Matcher(terms, [few[0], many, few[1]], lambda term: frozenset())
    # An image's own words, those of the one with many, and the sizes of all, by their levels.
    assert matcher(tuples, tf.constant([1, 0, 2])).numpy().tolist() == [[2, 5, 399], [5, 7, 5], [4, 5, 5]]
    alone = Matcher(terms, few, lambda term: frozenset())
    np.testing.assert_array_equal(matcher(tuples, tf.constant([0, 2, 0])), alone(tuples, tf.constant([0, 1, 0])))


def test_rows_go_to_their_class_on_the_device():
    """A class gets the rows of its images, with their places in it; one without rows is not computed."""

    def doubled(rows, images):
        return 2 * rows + tf.cast(images, tf.float32)[:, None]

    def failing(rows, images):
        tf.debugging.assert_equal(tf.size(images), 0)
        return rows

    classes = [(np.array([1]), lambda rows, images: -rows), (np.array([0, 3]), doubled), (np.array([2]), failing)]
    compute = by_class(classes, 1, tf.float32)
    rows, images = tf.constant([[1.0], [2.0], [3.0]]), tf.constant([3, 1, 0])
    assert compute(rows, images).numpy().tolist() == [[3.0], [-2.0], [6.0]]
    whole = [*classes[:2], (np.array([2]), doubled)]
    function = tf.function(by_class(whole, 1, tf.float32), autograph=False).get_concrete_function(rows, images)
    assert host_only(function) == set()


def test_padding_is_no_word():
    assert (reference_array([[[5], []], []])[0] == [[[5], [PAD]], [[PAD], [PAD]]]).all()
