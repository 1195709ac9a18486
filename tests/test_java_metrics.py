"""METEOR and SPICE in real worker processes: the published numbers, whatever the order and whoever is killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import types

import numpy as np
import pytest
from pycocoevalcap.meteor.meteor import Meteor as ReferenceMeteor

from spidercap.pipeline.metrics.java.tokenizer import tokenize_with_java
from spidercap.pipeline.metrics.registry import SPICE_PARTS
from spidercap.pipeline.metrics.spice import Spice, f_score
from spidercap.pipeline.metrics.tuple_store import TupleStore
from tests.conftest import GOLDEN, demo_tuples

TIED = 191381  # an image whose SPICE depends on the order in which objects are merged


@pytest.fixture
def demo(data_folder):
    """(captions, references, image ids) of the COCO caption evaluation's demo, tokenised as there."""
    images = json.loads((data_folder / "coco" / "demo_tokenized.json").read_text("utf-8"))
    return [i["test"] for i in images], [i["refs"] for i in images], [i["image_id"] for i in images]


@pytest.fixture
def published(data_folder):
    """image id -> (SPICE, counts [1 + SPICE_PARTS, 3])"""
    images = json.loads((data_folder / "coco" / "demo_spice_per_image.json").read_text("utf-8"))

    def counts(part):
        return [part["tp"], part["tp"] + part["fp"], part["tp"] + part["fn"]]

    return {
        image["image_id"]: (image["scores"]["All"]["f"], [counts(image["scores"][p]) for p in ("All", *SPICE_PARTS)])
        for image in images
    }


class TestMeteor:
    def test_demo_has_the_published_score(self, meteor, demo):
        captions, references, _ = demo
        corpus, each, *_ = meteor.evaluate(captions, references)
        assert corpus == pytest.approx(0.195, abs=5e-4)
        assert corpus != pytest.approx(each.mean(), abs=1e-4)  # which is why it has a number of its own

    @pytest.mark.skipif(not shutil.which("java"), reason="pycocoevalcap needs the program java on PATH")
    def test_equals_pycocoevalcap(self, meteor):
        """On words that its normalisation takes apart, where another one gives other numbers."""
        pairs = [
            ("the dog 's bone is on st. john 's street", "a dog 's bones on a street"),
            ("a t-shirt and/or a well-kept jacket", "a t shirt and or a jacket , well kept"),
            ("1/2 of a no. 5 bus at 8:30 p.m. , u.s. mail", "half of the no 5 bus at 8.30 pm u.s mail"),
            ('the "sign" says : don\'t -- walk ...', "the sign says do n't walk"),
            ("a man riding horses quickly", "men ride a horse quick"),
            ("", "a cat"),
        ]
        truth = {i: [reference, "a thing"] for i, (_, reference) in enumerate(pairs)}
        reference = ReferenceMeteor()
        theirs = reference.compute_score(truth, {i: [said] for i, (said, _) in enumerate(pairs)})
        for pipe in (reference.meteor_p.stdout, reference.meteor_p.stderr):  # which it leaves open
            pipe.close()
        corpus, each, *_ = meteor.evaluate([said for said, _ in pairs], list(truth.values()))
        assert (corpus, list(each)) == (theirs[0], theirs[1])
        assert min(each[:5]) > 0.05

    def test_captions_do_not_depend_on_their_company(self, meteor, demo):
        captions, references, _ = (part[:150] for part in demo)
        together = meteor.rewards(captions, references)
        order = random.Random(1).sample(range(150), 150)
        assert (meteor.rewards([captions[i] for i in order], [references[i] for i in order]) == together[order]).all()
        assert [meteor.rewards([c], [r])[0] for c, r in zip(captions[:20], references, strict=False)] == list(
            together[:20]
        )

    def test_bounds(self, meteor):
        references = [["a dog runs", "the cat"], ["a dog"], ["a dog"], [""], []]
        scores = meteor.rewards(["a dog runs", "xyz", "", "a dog", "a dog"], references)
        assert list(scores) == [1, 0, 0, 0, 0]
        assert meteor.evaluate([], []).corpus == 0

    @pytest.mark.long
    def test_worker_killed_in_the_middle_changes_nothing(self, meteor, demo):
        captions, references, _ = (part[:400] for part in demo)
        expected = meteor.evaluate(captions, references)
        killed = []

        def kill_once(count):
            if count and not killed:
                killed.extend(meteor._pool.processes())
                os.kill(killed[0], signal.SIGKILL)

        found = meteor.evaluate(captions, references, calling(kill_once))
        assert found[0] == expected[0] and (found[1] == expected[1]).all()
        assert len(killed) == 1 and meteor._pool.processes() != killed

    def test_same_caption_is_sent_once(self, meteor, monkeypatch):
        sent = spy(meteor._pool, monkeypatch)
        finished = []
        said, references = ["a dog", "a cat", "a dog", "a dog"], [["a dog"]] * 3 + [["dog"]]
        scores = meteor.evaluate(said, references, calling(finished.append)).images
        assert sent == [3, 1] and sum(finished) == 4  # three captions, and the corpus
        assert scores[0] == scores[2] == 1 > scores[3]


def calling(update):
    """Returns a bar that calls `update` with the numbers of captions done."""
    return lambda name, captions: contextlib.nullcontext(types.SimpleNamespace(update=update))


def spy(pool, monkeypatch):
    """Returns the list of the numbers of items in every batch from now on."""
    sent, send = [], pool.map
    monkeypatch.setattr(pool, "map", lambda items, **options: sent.append(len(items)) or send(items, **options))
    return sent


class TestSpice:
    def test_demo_has_the_published_counts_of_every_image(self, spice, demo, published):
        captions, references, ids = demo
        counts = spice.score(captions, references)
        different = [i for i, c in zip(ids, counts, strict=True) if c.tolist() != published[i][1]]
        assert different == []
        scores = f_score(counts[:, 0])
        assert list(scores) == [published[i][0] for i in ids]
        assert scores.mean() == pytest.approx(0.133, abs=5e-4)

    def test_known_captions_are_not_parsed_again(self, spice, demo, java, corenlp, monkeypatch):
        captions, references, _ = (part[:30] for part in demo)
        with java(["spice"], 1, str(corenlp), str(spice._store.path.parent)) as metrics:
            assert metrics["spice"].to_parse([*captions, *(c for of_image in references for c in of_image)]) == 0
            assert metrics["spice"].to_parse([*captions, "never said", "never said"]) == 1
            finished = []
            first = metrics["spice"].score(captions, references, finished.append)
            assert (metrics["spice"].score(captions, references) == first).all()
            assert metrics["spice"]._parsers.processes() == [] and finished == []

    def test_order_and_company_change_nothing(self, spice, demo, published):
        captions, references, ids = demo
        tied = ids.index(TIED)
        generator = random.Random(2)
        for _ in range(5):
            others = generator.sample([i for i in range(1000) if i != tied], 40)
            images = [*others[:20], tied, *others[20:]]
            counts = spice.score([captions[i] for i in images], [references[i] for i in images])
            assert counts.tolist() == [published[ids[i]][1] for i in images]
            # The same references again, with other candidates beside it.
            counts = spice.score([captions[i] for i in images], [references[tied]] * len(images))
            assert counts[20].tolist() == published[TIED][1]

    def test_captions_are_parsed_as_once_before(self, spice, monkeypatch):
        golden = demo_tuples()
        sample = random.Random(3).sample(sorted(golden), 60)
        assert spice._parsers.map(sample, names=sample, chunk=16) == [golden[caption] for caption in sample]

    def test_captions_of_over_60_words_are_parsed_whole(self, spice):
        """Tuples and scores of SPICE's own classes; tests/golden/make_long_captions.py has the command."""
        golden = json.loads((GOLDEN / "long_captions.json").read_text())
        captions, references = [row["caption"] for row in golden], [[row["reference"]] for row in golden]
        assert min(len(caption.split()) for caption in captions) > 60
        assert spice.tuples(captions) == [row["tuples"] for row in golden]
        found = spice.evaluate(captions, references)
        assert list(found.images) == pytest.approx([row["spice"] for row in golden], abs=1e-9) and found.remark == ""

    @pytest.mark.long
    def test_killed_parsers_and_matchers_change_nothing(self, spice, demo, published, tmp_path, monkeypatch):
        images = [demo[2].index(TIED), *range(7)]
        captions, references = ([demo[part][i] for i in images] for part in (0, 1))
        store = TupleStore(tmp_path)
        monkeypatch.setattr("spidercap.pipeline.metrics.spice.MATCHED_CHUNK", 1)
        monkeypatch.setattr("spidercap.pipeline.metrics.spice.PARSED_CHUNK", 4)
        killed = []

        def kill_one(pool):
            if pool.processes() and pool not in killed:
                killed.append(pool)
                os.kill(pool.processes()[0], signal.SIGKILL)

        mapped = spice._matchers.map
        monkeypatch.setattr(
            spice._matchers, "map", lambda *a, **k: mapped(*a, **k, done=lambda count: kill_one(spice._matchers))
        )
        fresh = Spice(spice._parsers, spice._matchers, store, spice._long)
        counts = fresh.score(captions, references, lambda count: kill_one(spice._parsers))
        assert killed == [spice._parsers, spice._matchers]
        assert counts.tolist() == [published[demo[2][i]][1] for i in images]
        store.close()

    def test_same_caption_is_parsed_and_compared_once(self, spice, monkeypatch, tmp_path):
        parsed, matched = spy(spice._parsers, monkeypatch), spy(spice._matchers, monkeypatch)
        store = TupleStore(tmp_path)
        fresh = Spice(spice._parsers, spice._matchers, store, spice._long)
        references = [["a red ball", "a ball"]] * 4 + [["a ball", "a red ball"]]
        finished = []
        counts = fresh.score(["a ball", "a red ball", "a ball", "two dogs", "a ball"], references, finished.append)
        assert (parsed, matched, sum(finished)) == ([3], [2], 3)
        assert counts[:, 0].tolist() == [[1, 1, 2], [2, 2, 2], [1, 1, 2], [0, 2, 2], [1, 1, 2]]
        color = 1 + SPICE_PARTS.index("Color")
        assert counts[:, color].tolist() == [[0, 0, 1], [1, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
        store.close()

    def test_nothing_to_compare(self, spice, tmp_path):
        counts = spice.score(["", "a dog", "a dog", ""], [[""], [""], [], []])
        assert counts[:, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
        assert np.isnan(f_score(counts[:, 0])).tolist() == [True, False, False, True]
        assert spice.score([], []).shape == (0, 1 + len(SPICE_PARTS), 3)


class TestTokenizer:
    def test_collections_stay_apart(self, java):
        assert tokenize_with_java([], ["A dog, running.", ""], ["*NL*", "(It's 1 1/2 p.m.!)"]) == [
            [],
            ["a dog running", ""],
            ["* nl *", "-lrb- it 's 1\xa01/2 p.m. -rrb-"],
        ]

    def test_demo_is_tokenised_as_in_the_evaluation(self, java, data_folder, demo):
        captions, references, ids = demo
        raw = {
            kind: json.loads((data_folder / "coco" / f"demo_{kind}.json").read_text("utf-8"))
            for kind in ("results", "references")
        }
        said = {row["image_id"]: row["caption"] for row in raw["results"]}
        of_image = {i: [a["caption"] for a in raw["references"]["annotations"] if a["image_id"] == i] for i in ids}
        order = list(dict.fromkeys(a["image_id"] for a in raw["references"]["annotations"]))
        flat = [caption for i in order for caption in of_image[i]]
        tokenized, tokenized_flat = tokenize_with_java([said[i] for i in order], flat)
        assert dict(zip(order, tokenized, strict=True)) == dict(zip(ids, captions, strict=True))
        rest = iter(tokenized_flat)
        found = {i: [next(rest) for _ in of_image[i]] for i in order}
        different = [i for i, expected in zip(ids, references, strict=True) if sorted(found[i]) != sorted(expected)]
        assert len(different) <= 1
