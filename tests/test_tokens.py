"""The numbers of the tables are pycocoevalcap's, for any captions."""

import functools
import gzip
import json

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from spidercap.pipeline.metrics import from_words
from spidercap.pipeline.metrics.from_words import score_tokens
from spidercap.pipeline.metrics.registry import parse_metrics
from spidercap.pipeline.text.tokenizer import tokenize
from tests.oracles import ragged_corpus

TERMS = parse_metrics("bleu,rouge,cider")


def pycocoevalcap(references, candidates):
    """Returns what score_tokens returns."""
    truth = {i: [" ".join(caption) for caption in image] for i, image in enumerate(references)}
    said = {i: [" ".join(caption)] for i, caption in enumerate(candidates)}
    bleu, bleus = Bleu(4).compute_score(truth, said, verbose=0)
    rouge, rouges = Rouge().compute_score(truth, said)
    cider, ciders = Cider().compute_score(truth, said)
    corpus = dict(zip(TERMS, [*bleu, rouge, cider], strict=True))
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


def test_one_long_caption_does_not_pad_the_others(monkeypatch):
    references, said = ragged_corpus(14, 300, 9)
    references[5][0], said[7] = [4, 5] * 500, [4, 6] * 500
    elements = []

    def recorded(captions, made=from_words.reference_array):
        elements.append(made(captions)[0].size)
        return made(captions)

    monkeypatch.setattr(from_words, "reference_array", recorded)
    score_tokens([words(image) for image in references], words(said), ("bleu1",))
    assert len(elements) > 2
    assert sum(elements) < 300 * 5 * 9 + 300 * 9 + 5 * 1000 + 1000 + 100


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
