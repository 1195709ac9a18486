"""The tables' numbers are the published ones, and those of pycocoevalcap."""

import json

import numpy as np
import pytest

from spidercap.pipeline.metrics import spice
from spidercap.pipeline.metrics.long_captions import LongCaptions
from spidercap.pipeline.metrics.registry import SPICE_PARTS, column_names, parse_metrics
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.text_metrics import Evaluated
from spidercap.pipeline.text.tokenizer import tokenize

WITHOUT_JAVA = parse_metrics("bleu,rouge,cider")
PUBLISHED = {"BLEU-1": 0.579, "BLEU-2": 0.404, "BLEU-3": 0.279, "BLEU-4": 0.191, "ROUGE-L": 0.396, "CIDEr": 0.600}


class Meteor:
    """Says 0.1 of the first caption, 0.3 of the second, 0.25 of the corpus."""

    def evaluate(self, candidates, references, bar):
        with bar("METEOR", len(candidates)) as shown:
            shown.update(len(candidates))
        return Evaluated(0.25, np.array([0.1, 0.3]))


class Spice(spice.Spice):
    """One caption with half of its propositions right and a colour; one without any, like its references."""

    def __init__(self):
        super().__init__(None, None, None, LongCaptions(None, None, 60.0))

    def to_parse(self, captions):
        return len(captions)

    def score(self, candidates, references, done):
        done(len(candidates))
        counts = np.zeros([2, 1 + len(SPICE_PARTS), 3], np.int64)
        counts[0, 0] = [1, 2, 2]
        counts[0, 1 + SPICE_PARTS.index("Color")] = [1, 1, 1]
        return counts


def test_demo_of_the_coco_evaluation(data_folder):
    """As published with the evaluation code, on its own tokens."""
    demo = _json(data_folder / "coco" / "demo_tokenized.json")
    scores = score_captions([e["refs"] for e in demo], [e["test"] for e in demo], WITHOUT_JAVA, {})
    assert {name: round(score, 3) for name, score in scores.corpus.items()} == PUBLISHED
    assert len(scores.images) == 1000
    assert np.mean([image["CIDEr"] for image in scores.images]) == pytest.approx(scores.corpus["CIDEr"], abs=1e-12)


def test_demo_from_raw_captions_by_our_tokenizer(data_folder):
    """The same numbers when our own tokenizer reads the captions as they were written."""
    said = {r["image_id"]: r["caption"] for r in _json(data_folder / "coco" / "demo_results.json")}
    references = {image_id: [] for image_id in said}
    for annotation in _json(data_folder / "coco" / "demo_references.json")["annotations"]:
        references[annotation["image_id"]].append(" ".join(tokenize(annotation["caption"])))
    captions = [" ".join(tokenize(c)) for c in said.values()]
    scores = score_captions([references[i] for i in said], captions, WITHOUT_JAVA, {})
    assert {name: round(score, 3) for name, score in scores.corpus.items()} == PUBLISHED


def _json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_small_case_by_hand():
    """BLEU-1 of 'a b c' against 'a b d': two of three words, no brevity penalty; an empty caption scores 0."""
    scores = score_captions([["a b d", "a x"], ["q r s"]], ["a b c", ""], WITHOUT_JAVA, {})
    assert scores.images[0]["BLEU-1"] == pytest.approx(2 / 3, abs=1e-6)
    # ROUGE-L: the longest common subsequence is 2 words; F with beta 1.2 of the best precision and recall.
    precision, recall = 2 / 3, 2 / 3
    f = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert scores.images[0]["ROUGE-L"] == pytest.approx(f, abs=1e-6)
    assert scores.images[1]["CIDEr"] == 0
    assert list(scores.corpus) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


def test_mixes_and_parts_of_all_metrics():
    """Mixes by their definitions from the other columns; SPICE without propositions is 0, its missing parts None."""
    java = {"meteor": Meteor(), "spice": Spice()}
    scores = score_captions([["a red dog", "the dog"], ["of"]], ["a red cat", "of"], parse_metrics("all"), java)
    assert (
        tuple(name for name in scores.corpus if not name.startswith("SPICE ")) == column_names()[:-2]
    )  # but the approximations
    for one in (scores.corpus, *scores.images):
        assert one["SPIDEr"] == pytest.approx((one["SPICE"] + one["CIDEr"]) / 2)
        low = 0.5 * one["BLEU-1"] + 0.5 * one["BLEU-2"] + one["BLEU-3"] + one["BLEU-4"]
        assert one["BCMR"] == pytest.approx(low + one["CIDEr"] + 5 * one["METEOR"] + 2 * one["ROUGE-L"])
    assert scores.corpus["METEOR"] == 0.25 and scores.images[1]["METEOR"] == 0.3
    assert [image["SPICE"] for image in scores.images] == [0.5, 0.0]
    assert scores.corpus["SPICE"] == 0.25
    assert [image["SPICE Color"] for image in scores.images] == [1.0, None]
    assert (scores.corpus["SPICE Color"], scores.corpus["SPICE Size"]) == (1.0, None)


def test_only_what_was_asked_for_is_shown():
    """SPIDEr needs SPICE and CIDEr, and shows neither."""
    scores = score_captions([["a b"], ["of"]], ["a b", "of"], ("spider",), {"spice": Spice()})
    assert list(scores.corpus) == ["SPIDEr"] and list(scores.images[0]) == ["SPIDEr"]
