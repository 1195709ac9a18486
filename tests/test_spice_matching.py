"""SPICE's matching without Java: the paper's rule on toys, the compiled form, and Java's own counts."""

import functools
import gzip
import json
import random

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.metrics.spice_fast import term_tables
from spidercap.pipeline.metrics.spice_fast.levels import LEVELS
from spidercap.pipeline.metrics.spice_fast.matching import Matcher
from spidercap.pipeline.metrics.spice_fast.scene_graph import counts
from spidercap.pipeline.metrics.spice_fast.synonyms import DATA, Synonyms, wordnet_synonyms
from spidercap.pipeline.parser_training import make_synonyms
from tests.conftest import demo_tuples
from tests.test_gpu_ready import host_only

SYNSETS = ["a b", "b c", "c c2", "p q", "q r", "r s", "s t", "x_y z", "dog", "d dog"]
WORDS = ["", "a", "b", "c", "c2", "p", "q", "r", "s", "t", "dog", "dogs", "mice", "d", "x y", "z", "on", "be"]
WORDS += ["be on", "be z", "be at"]


@pytest.fixture(scope="module")
def wordnet():
    return functools.cache(wordnet_synonyms())


@pytest.fixture(scope="module")
def toy():
    return Synonyms([words.split() for words in SYNSETS], {"mice": ["dog"]})


def synonymous(synonyms, one, other):
    return one == other or bool(synonyms(one) & synonyms(other))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("couches", "sofa", True),
        ("geese", "goose", True),
        ("tee shirt", "jersey", True),
        ("baby carriages", "perambulator", True),
        ("glasses", "spectacles", True),
        ("glass", "spectacles", False),  # a base form has not the synsets of its inflected ones
        ("dress", "dres", False),
        ("locked", "locke", True),  # -ed gives -e first
        ("locked", "lock", False),
        ("poster", "post", False),  # an exception: poster of poster
        ("low", "catch", True),  # two synsets at one place of WordNet's files
        ("as", "a", False),
        ("t-shirt", "tshirt", False),
        ("on", "upon", False),
        ("DOG", "dogs", True),
    ],
)
def test_wordnet(wordnet, one, other, expected):
    assert synonymous(wordnet, one, other) == synonymous(wordnet, other, one) == expected


def test_file_of_synonyms_is_made_of_wordnets_own(tmp_path, capsys):
    files = {
        "index.noun": "  1 licence\nmouse n 2 1 @ 2 1 00000011 00000012  \nbird n 1 0 1 0 00000013  \n",
        "index.verb": "sneak v 1 0 1 0 00000012  \n",
        "noun.exc": "mice mouse\n",
    }
    names = [name.format(part) for part in ("noun", "verb", "adj", "adv") for name in ("index.{}", "{}.exc")]
    for name in names:
        (tmp_path / name).write_text(files.get(name, ""))
    arguments = [f"--wordnet={tmp_path}", f"--output={tmp_path}"]
    assert make_synonyms.main(arguments) == 0
    assert gzip.decompress((tmp_path / DATA).read_bytes()) == b"bird\nmouse\nmouse sneak\n\nmice mouse\n"
    assert make_synonyms.main([arguments[0], f"--output={tmp_path / 'none'}"]) == 1
    assert "none is not a folder" in capsys.readouterr().err
    (tmp_path / "verb.exc").unlink()
    assert make_synonyms.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} lacks verb.exc;")


CASES = [
    ([["a"]], [[["a"]]], [1, 1, 1]),
    ([["a"]], [[["b"]]], [1, 1, 1]),
    ([["a"]], [[["c"]]], [0, 1, 1]),
    ([["a"]], [[["b"], ["c"]]], [1, 1, 1]),  # merged: a, b and c are one reference object
    ([["a"]], [[["b"]], [["c"]]], [1, 1, 1]),  # across captions too
    ([["a"], ["a"], ["b"]], [[["a"]]], [1, 1, 1]),
    ([["a"], ["c"]], [[["b"]]], [2, 2, 1]),  # two of the candidate's match one
    ([["a", "p"], ["a"]], [[["b", "q"]]], [2, 2, 2]),
    ([["a", "p"], ["a", "p"], ["b", "q"]], [[["b", "r"]]], [2, 2, 2]),  # the attributes p and q are one, so like r
    ([["a", "p"]], [[["a", "r"]]], [1, 2, 2]),
    ([["a", "on"]], [[["a"], ["p"], ["a", "p", "on"]]], [1, 2, 3]),  # no attribute matches a relation
    ([["p", "a", "on"]], [[["p"], ["a"], ["a", "p", "on"]]], [2, 3, 3]),  # a relation has a direction
    ([["a", "p", "on"]], [[["a", "p", "be on"]]], [3, 3, 3]),
    ([["a", "on"]], [[["a", "be on"]]], [1, 2, 2]),  # "be" means something there
    ([["dogs"]], [[["mice"]]], [1, 1, 1]),
    ([["x y"]], [[["z"]]], [1, 1, 1]),
    ([["unknown"]], [[["unknown"]]], [1, 1, 1]),
    ([["unknown"]], [[["other"]]], [0, 1, 1]),
    # c shares one of three synsets with b, one of two with c2: it joins c2.
    ([["b"], ["c2"], ["c", "on"], ["c2", "on"]], [[["c2", "on"]]], [2, 3, 2]),
    ([["c2"], ["b"], ["c", "on"], ["c2", "on"]], [[["c2", "on"]]], [2, 3, 2]),
    # r is as like q as like s: it joins the newest.
    ([["q"], ["s"], ["r", "on"], ["s", "on"]], [[]], [0, 3, 0]),
    ([["s"], ["q"], ["r", "on"], ["s", "on"]], [[]], [0, 4, 0]),
    # An attribute joins the oldest one that it is like.
    ([["a", "p"], ["a", "r"], ["a", "q"]], [[["a", "p"]]], [2, 3, 2]),
    ([], [[["a"]]], [0, 0, 1]),
    ([["a"]], [], [0, 1, 0]),
    ([], [], [0, 0, 0]),
]


def of_level_one(candidate, references):
    of_candidate, *of_references = ({tuple(one): 1 for one in tuples} for tuples in (candidate, *references))
    return of_candidate, of_references


@pytest.mark.parametrize(("candidate", "references", "expected"), CASES)
def test_toys(toy, candidate, references, expected):
    assert counts(*of_level_one(candidate, references), toy) == expected


GRADED = [
    ({("a",): 3}, [{("a",): 5}], [3, 3, 5]),
    ({("a",): 5}, [{("b",): 2}], [2, 5, 2]),
    ({("a",): 4}, [{("a",): 1}, {("b",): 3}], [3, 4, 3]),  # one object, which is as sure as its surest term
    ({("a",): 2, ("b",): 4}, [{("a",): 5}], [4, 4, 5]),
    # A relation is as sure as itself; its ends are objects that are at least as sure.
    ({("a", "p", "on"): 2, ("a",): 4}, [{("a", "p", "on"): 5}], [4 + 2 + 2, 4 + 2 + 2, 15]),
    ({("a", "p"): 1, ("a", "q"): 3, ("a",): 5}, [{("a", "p"): 2, ("a",): 2}], [2 + 2, 5 + 3, 4]),
    ({("b",): 5}, [{("c2",): 2, ("a",): 4}], [4, 5, 6]),
    # Of several that match, the surest.
    ({("b", "q"): 5}, [{("a", "p"): 1, ("a", "r"): 3}], [3 + 3, 10, 3 + 3 + 1]),
]


@pytest.mark.parametrize(("candidate", "references", "expected"), GRADED)
def test_a_tuple_counts_by_its_level(toy, candidate, references, expected):
    assert counts(candidate, references, toy) == expected


def test_compiled_levels(toy):
    found = compiled(toy, WORDS, [case[:2] for case in GRADED], 6, random.Random(1))
    assert found.tolist() == [case[2] for case in GRADED]


def compiled(synonyms, terms, cases, steps, generator):
    """Returns int `[N, 3]` of the compiled matching, candidates' tuples strewn among rows of zeros."""
    numbers = {term: number for number, term in enumerate(terms)}

    def encoded(captions):
        rows = [
            [numbers.setdefault(t, len(numbers)) for t in one] + [0] * (3 - len(one)) + [level]
            for tuples in captions
            for one, level in tuples.items()
        ]
        return np.array(rows, np.int32).reshape(-1, 4)

    references = [encoded(of_image) for _, of_image in cases]
    tuples = np.zeros([len(cases), steps, 4], np.int32)
    for row, (candidate, _) in zip(tuples, cases, strict=True):
        row[sorted(generator.sample(range(steps), len(candidate)))] = encoded([candidate])
    matcher = tf.function(Matcher(terms, references, synonyms), autograph=False)
    order = np.array(generator.sample(range(len(cases)), len(cases)))
    found = np.empty([len(cases), 3], int)
    found[order] = matcher(tf.constant(tuples[order]), tf.constant(order))
    return found


def test_compiled_toys(toy):
    found = compiled(toy, WORDS, [of_level_one(*case[:2]) for case in CASES], 6, random.Random(1))
    assert found.tolist() == [case[2] for case in CASES]


def random_tuples(generator, words, most):
    def one():
        return tuple(generator.choice(words) for _ in range(generator.choice([1, 1, 2, 3])))

    return {one(): generator.randint(1, LEVELS) for _ in range(generator.randint(0, most))}


@pytest.mark.parametrize("parts", [(1000, 16), (3, 2)])  # 700 images in one part, and in many that are joined
@pytest.mark.parametrize("most", [4, 40])  # of one limb and of several
def test_compiled_equals_plain_on_random_tuples(toy, most, parts, monkeypatch):
    monkeypatch.setattr(term_tables, "PART", parts[0])
    monkeypatch.setattr(term_tables, "TOGETHER", parts[1])
    generator = random.Random(most)
    # One of each chain of synonyms at most is itself like two: then both rules of merging are the same.
    words = ["a", "b", "p", "q", "s", "dogs", "d", "x y", "z", "on", "be on", "be z", "be at", "be", "??", "!!"]
    words += [f"word{i}" for i in range(most)]
    cases = [
        (random_tuples(generator, words, 8), [random_tuples(generator, words, most) for _ in range(4)])
        for _ in range(700)
    ]
    found = compiled(toy, [word for word in WORDS if word != "be"], cases, 16, generator)
    assert found.tolist() == [counts(*case, toy) for case in cases]
    assert found[:, 0].max() > 4 * LEVELS and (most < 40 or found[:, 2].max() > 62 * LEVELS)


def test_candidates_in_chunks_are_as_one_by_one(toy):
    terms = [*WORDS]
    references = [np.array([[1, 0, 0, 1], [1, 5, 0, 1]], np.int32), np.zeros([0, 4], np.int32)]
    matcher = tf.function(
        Matcher(terms, references, toy),
        input_signature=[tf.TensorSpec([None, 24, 4], tf.int32), tf.TensorSpec([None], tf.int32)],
        autograph=False,
    )
    row = np.zeros([24, 4], np.int32)
    row[[3, 20]] = [2, 6, 0, 1], [9, 0, 0, 1]
    found = matcher(np.tile(row, [5000, 1, 1]), np.arange(5000, dtype=np.int32) % 2).numpy()
    assert (found[::2] == [2, 3, 2]).all() and (found[1::2] == [0, 3, 0]).all()
    assert matcher(np.zeros([0, 24, 4], np.int32), np.zeros([0], np.int32)).shape == (0, 3)


def test_matching_stays_on_the_device(toy):
    matcher = Matcher(WORDS, [np.array([[1, 0, 0, 1]], np.int32)], toy)
    signature = tf.TensorSpec([None, 24, 4], tf.int32), tf.TensorSpec([None], tf.int32)
    function = tf.function(matcher, autograph=False).get_concrete_function(*signature)
    assert host_only(function) == set()


def test_demo_has_the_published_counts(wordnet, data_folder):
    images = json.loads((data_folder / "coco" / "demo_tokenized.json").read_text("utf-8"))
    published = json.loads((data_folder / "coco" / "demo_spice_per_image.json").read_text("utf-8"))
    scores = {image["image_id"]: image["scores"]["All"] for image in published}
    parsed = demo_tuples()
    said = [(parsed[image["test"]], [parsed[caption] for caption in image["refs"]]) for image in images]
    cases = [of_level_one(*case) for case in said]
    expected = []
    for image in images:
        part = scores[image["image_id"]]
        expected.append([part["tp"], part["tp"] + part["fp"], part["tp"] + part["fn"]])
    assert [counts(*case, wordnet) for case in cases] == expected
    terms = sorted({term for case, of_image in said for one in [case, *of_image] for t in one for term in t})
    found = compiled(wordnet, ["", *terms], cases, 24, random.Random(4))
    assert found.tolist() == expected


def test_java_counts_the_same(spice, wordnet):
    """On captions' tuples with words changed for synonyms, and of other images, which real ones hardly are."""
    generator = random.Random(5)
    captions = sorted(demo_tuples().items())
    terms = sorted({term for _, tuples in captions for one in tuples for term in one})
    of_sense = {}
    for term in terms:
        for sense in wordnet(term):
            of_sense.setdefault(sense, []).append(term)
    alike = {term: [t for sense in wordnet(term) for t in of_sense[sense]] or [term] for term in terms}

    def changed(tuples):
        return [[generator.choice(alike[t]) if generator.random() < 0.5 else t for t in one] for one in tuples]

    def caption():
        return generator.choice(captions)[1]

    cases = []
    for _ in range(600):
        image = [caption() for _ in range(2)]
        cases.append((changed(image[0] + image[1]), [changed(one) for one in [*image, caption(), caption()]]))
    items = [{"candidates": [candidate], "references": references} for candidate, references in cases]
    answers = spice._matchers.map(items, names=["case"] * len(items), chunk=64)
    expected = [answer[0][0] for answer in answers]
    cases = [of_level_one(*case) for case in cases]
    assert [counts(*case, wordnet) for case in cases] == expected
    steps = max(len(candidate) for candidate, _ in cases)
    found = compiled(wordnet, ["", *terms], cases, steps, generator)
    assert (found != expected).any(1).sum() <= 1
