"""The numbers of the tables are pycocoevalcap's, for any captions."""

import functools
import gzip
import json
import tracemalloc

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from spidercap.pipeline.metrics.from_words import score_tokens
from spidercap.pipeline.metrics.registry import parse_metrics
from spidercap.pipeline.metrics.words.bleu import SMALL, TINY
from spidercap.pipeline.text.tokenizer import tokenize
from tests.oracles import bleu, cider_d, ragged_corpus, rouge_l

TERMS = parse_metrics("bleu,rouge,cider")


def pycocoevalcap(references, candidates):
    """Returns what score_tokens returns."""
    truth = {i: [" ".join(caption) for caption in image] for i, image in enumerate(references)}
    said = {i: [" ".join(caption)] for i, caption in enumerate(candidates)}
    of_corpus, bleus = Bleu(4).compute_score(truth, said, verbose=0)
    rouge, rouges = Rouge().compute_score(truth, said)
    cider, ciders = Cider().compute_score(truth, said)
    corpus = dict(zip(TERMS, [*of_corpus, rouge, cider], strict=True))
    return corpus, dict(zip(TERMS, [*bleus, rouges, ciders], strict=True))


def assert_same(references, candidates, tolerance=1e-9):
    corpus, images = score_tokens(references, candidates, TERMS)
    expected, each = pycocoevalcap(references, candidates)
    assert list(corpus) == list(images) == list(TERMS)
    for term in TERMS:
        assert corpus[term] == pytest.approx(expected[term], abs=tolerance)
        np.testing.assert_allclose(images[term], each[term], atol=tolerance)
    return corpus


def words(captions):
    return [[str(word) for word in caption] for caption in captions]


@functools.cache
def real_captions(folder, images):
    """Returns 5 tokenised references of each of so many photographs."""
    with gzip.open(folder / "coco" / "captions_val2014_without_karpathy_test.json.gz") as file:
        annotations = json.load(file)["annotations"]
    captions = {}
    for annotation in annotations:
        if annotation["image_id"] in captions or len(captions) < images:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return [[tokenize(caption) for caption in image[:5]] for image in captions.values()]


@pytest.mark.parametrize("count", [1000, 5000])
def test_real_captions(data_folder, count):
    """One reference of each photograph against its others, in turn with a caption of another photograph."""
    captions = real_captions(data_folder, 5000)[:count]
    said = [(captions[-i - 1] if i % 3 == 0 else image)[0] for i, image in enumerate(captions)]
    assert len(said) == count
    corpus = assert_same([image[1:] for image in captions], said)
    assert corpus["cider"] > 0.5 and corpus["bleu4"] > 0.1


def test_demo_of_the_coco_evaluation(data_folder):
    """As published with the evaluation code, on its own tokens."""
    demo = json.loads((data_folder / "coco" / "demo_tokenized.json").read_text(encoding="utf-8"))
    references = [[r.split() for r in e["refs"]] for e in demo]
    corpus, images = score_tokens(references, [e["test"].split() for e in demo], TERMS)
    assert [round(corpus[t], 3) for t in TERMS] == [0.579, 0.404, 0.279, 0.191, 0.396, 0.600]
    assert all(each.shape == (1000,) for each in images.values())


def test_empty_captions_and_references():
    references, said = ragged_corpus(11, 200, 9, empty=True)
    assert_same([words(image) for image in references], words(said))


def test_captions_of_very_different_lengths():
    """Among short ones: a candidate and a reference of hundreds of words, and an image of many references."""
    references, said = ragged_corpus(12, 30, 9)
    said[3] = (references[3][0] + [7, 8]) * 40
    references[5][0] = (said[5] + [4, 5, 6]) * 30
    references[8] = references[8] * 20
    assert len(said[3]) > 100 and len(references[5][0]) > 100
    assert_same([words(image) for image in references], words(said))


def test_against_slow_versions():
    """Written from the equations; an image has one reference or several, some empty."""
    for seed in range(3):
        references, said = ragged_corpus(20 + seed, 40, 9, empty=True)
        corpus, images = score_tokens([words(image) for image in references], words(said), TERMS)
        for i, (caption, of_image) in enumerate(zip(said, references, strict=True)):
            one = [images[term][i] for term in TERMS]
            slow = [*bleu([caption], [of_image], TINY, SMALL), rouge_l(caption, of_image)]
            np.testing.assert_allclose(one, [*slow, cider_d(caption, of_image, references)], atol=1e-9)
        assert [corpus[term] for term in TERMS[:4]] == pytest.approx(bleu(said, references, TINY, SMALL), abs=1e-9)


@pytest.mark.parametrize("count", [1, 500])
def test_one_image_with_any_number_of_references(count):
    references, said = ragged_corpus(15, count, 9)
    every = [caption for image in references for caption in image][:count]
    assert_same([words(every)], words(said[:1]))


def test_captions_of_ten_thousand_words_among_short_ones():
    """None pads the others: in arrays as long as the longest, 2,000 images would take hundreds of megabytes."""
    rng = np.random.default_rng(16)
    references, said = ragged_corpus(16, 2000, 9)
    references[5][0], said[5], said[7] = (rng.integers(4, 3000, 10_000).tolist() for _ in range(3))
    tracemalloc.start()
    corpus, images = score_tokens([words(image) for image in references], words(said), TERMS)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100e6
    one = [images["bleu4"][5], corpus["bleu1"]]
    slow = [bleu([said[5]], [references[5]], TINY, SMALL)[3], bleu(said, references, TINY, SMALL)[0]]
    assert one == pytest.approx(slow, abs=1e-9)
    assert images["cider"][7] == pytest.approx(cider_d(said[7], references[7], references), abs=1e-9)


def test_the_longest_common_subsequence_of_long_captions():
    rng = np.random.default_rng(17)
    said, *references = (rng.integers(0, 40, size).tolist() for size in (300, 200, 64, 65, 1))
    _, images = score_tokens([words(references)], words([said]), ("rouge",))
    assert images["rouge"][0] == pytest.approx(rouge_l(said, references), abs=1e-12)


def test_no_images():
    corpus, images = score_tokens([], [], ("rouge", "cider"))
    assert corpus == {"rouge": 0, "cider": 0} and len(images["cider"]) == 0


def test_only_what_is_asked_for():
    references, said = ragged_corpus(13, 20, 9)
    references, said = [words(image) for image in references], words(said)
    corpus, images = score_tokens(references, said, ("cider", "bleu2"))
    every, _ = score_tokens(references, said, TERMS)
    assert corpus == {"cider": every["cider"], "bleu2": every["bleu2"]}
    assert list(images) == ["cider", "bleu2"]
    with pytest.raises(ValueError, match="meteor"):
        score_tokens(references, said, ("meteor",))
    with pytest.raises(ValueError, match="19 candidates for 20 images"):
        score_tokens(references, said[1:], TERMS)


def test_an_image_without_references_scores_nothing():
    corpus, images = score_tokens([[["a", "dog"]], []], [["a", "dog"], ["a", "dog"]], ("rouge", "bleu1"))
    assert images["rouge"].tolist() == [1, 0]
    assert corpus["rouge"] == 0.5
    assert images["bleu1"][1] < 1e-9
