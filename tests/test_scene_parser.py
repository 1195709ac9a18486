"""The scene-graph parser: its network against plain loops, lemmas, alignment of tuples with words, tuples in places."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.scene_parser import FURTHEST, SceneParser, SceneParserSizes
from spidercap.pipeline.metrics.spice_fast.lemmas import Lemmas
from spidercap.pipeline.metrics.spice_fast.levels import LEVELS, THRESHOLDS
from spidercap.pipeline.metrics.spice_fast.lexicon import AFFIXES, affix_buckets, word_ids
from spidercap.pipeline.metrics.spice_fast.parser import PLACES, SceneGraphParser, likely
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser, save_parser
from spidercap.pipeline.metrics.spice_fast.places import in_places
from spidercap.pipeline.parser_training.alignment import OPEN, Aligner, learn_labels, learn_lemmas, tuples_of
from spidercap.pipeline.text.flat_tokens import flat_tokens
from tests.test_gpu_ready import host_only

CAPTIONS = np.array([[3, 1, 4, 1, 5], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0], [5, 4, 0, 0, 0]], np.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(gates, kernel):
    """Hidden states of one caption, a word at a time: `[T, 4H]` -> `[T, H]`."""
    hidden = cell = np.zeros(len(kernel))
    states = []
    for row in gates:
        enter, keep, candidate, leave = np.split(row + hidden @ kernel, 4)
        cell = sigmoid(keep) * cell + sigmoid(enter) * np.tanh(candidate)
        hidden = sigmoid(leave) * np.tanh(cell)
        states.append(hidden)
    return np.array(states)


def both_ways(gates, forward, backward):
    ahead, back = np.split(gates, 2, axis=1)
    return np.concatenate([lstm(ahead, forward), lstm(back[::-1], backward)[::-1]], axis=1)


@pytest.fixture(scope="module")
def network():
    """With weights that are not flat."""
    made = SceneParser(SceneParserSizes(words=6, affixes=8, labels=4, embedding=5, units=3, pair=4))
    rng = np.random.default_rng(0)
    for weight in made.trainable_variables:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    return made


@pytest.fixture(scope="module")
def gates(network):
    words = np.arange(6, dtype=np.int32)
    return network.word_gates(words, np.random.default_rng(1).integers(0, 8, [6, AFFIXES]))


class TestNetwork:
    def test_reads_as_a_plain_loop_does(self, network, gates):
        w = {v.name: v.numpy().astype(np.float64) for v in network.weights}
        kernels = [w[f"recurrent{k}"] for k in range(4)]
        captions = np.pad(CAPTIONS, [[0, 1], [0, FURTHEST]])
        captions[-1] = np.arange(captions.shape[1]) % 5 + 1  # a long one: words further apart than counts
        read = network.read(tf.constant(captions), gates)
        pair = network.sizes.pair
        for row, caption in enumerate(captions):
            words = caption[caption > 0]
            if not len(words):
                continue
            states = both_ways(np.concatenate(gates, axis=1).astype(np.float64)[words], *kernels[:2])
            states = both_ways(states @ w["second"] + w["second_bias"], *kernels[2:])
            *ends, rest = np.split(states @ w["roles"] + w["roles_bias"], np.arange(1, 5) * pair, axis=1)
            np.testing.assert_allclose(read.objects[row, : len(words)], rest[:, 0], atol=1e-5)
            np.testing.assert_allclose(read.forms[row, : len(words)], rest[:, 1:], atol=1e-5)
            for kind, logits in enumerate((read.attributes, read.relations)):
                for i in range(len(words)):
                    for j in range(len(words)):
                        near = w["distance"][FURTHEST + np.clip(j - i, -FURTHEST, FURTHEST), kind]
                        score = w["pair_scale"][kind] * ends[2 * kind][i] @ ends[2 * kind + 1][j] / pair**0.5 + near
                        assert float(logits[row, i, j]) == pytest.approx(score, abs=1e-5)

    def test_names_and_labels_of_relations(self, network, gates):
        w = {v.name: v.numpy().astype(np.float64) for v in network.weights}
        read = network.read(tf.constant(CAPTIONS), gates)
        pairs = np.array([[0, 2, 4], [3, 1, 0]], np.int32)
        pointers, ends = network.relations(read, tf.constant(pairs))
        labels = network.label_logits(read, tf.constant(pairs), ends, tf.constant([3, 0]))
        for k, (row, subject, other) in enumerate(pairs):
            states = np.asarray(tf.gather(read.states, read.place[row]), np.float64)
            end = np.concatenate([states[subject], states[other]]) @ w["ends"] + w["ends_bias"]
            asked = np.maximum(end, 0) @ w["pointer"]
            size = int((CAPTIONS[row] > 0).sum())
            names = [w["unnamed"][0] @ asked, *((states[:size] @ w["named"]) @ asked / len(asked) ** 0.5)]
            np.testing.assert_allclose(pointers[k, : 1 + size], names, rtol=1e-4, atol=1e-5)
            assert (pointers[k, 1 + size :].numpy() < -1e8).all()
            name = states[2] @ w["named"] if k == 0 else w["unnamed"][0]
            expected = np.maximum(end + name, 0) @ w["labels"] + w["labels_bias"]
            np.testing.assert_allclose(labels[k], expected, rtol=1e-4, atol=1e-5)

    def test_neither_padding_nor_neighbours_matter(self, network, gates):
        wide = np.pad(CAPTIONS, [[0, 3], [0, 4]])
        read, padded = network.read(tf.constant(CAPTIONS), gates), network.read(tf.constant(wide), gates)
        alone = network.read(tf.constant(CAPTIONS[3:, :2]), gates)
        np.testing.assert_allclose(padded.objects[0, :5], read.objects[0], atol=1e-6)
        np.testing.assert_allclose(padded.relations[0, :5, :5], read.relations[0], atol=1e-6)
        np.testing.assert_allclose(alone.attributes[0], read.attributes[3, :2, :2], atol=1e-6)

    def test_gradients_are_those_of_finite_differences(self, network, gates):
        def loss():
            read = network.read(tf.constant(CAPTIONS), gates)
            return tf.reduce_sum(tf.sin(read.relations) * tf.cast(read.there, tf.float32)[:, :, None])

        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, network.recurrent)
        for kernel, gradient in zip(network.recurrent, gradients, strict=True):
            before = kernel.numpy()
            step = np.zeros_like(before)
            step[1, 5] = 1e-2
            kernel.assign(before + step)
            above = float(loss())
            kernel.assign(before - step)
            below = float(loss())
            kernel.assign(before)
            assert float(gradient[1, 5]) == pytest.approx((above - below) / 2e-2, rel=0.05, abs=2e-3)


@pytest.mark.parametrize(
    ("word", "noun", "verb"),
    [
        ("dogs", "dog", "dog"),
        ("buses", "bus", "buse"),
        ("boxes", "box", "box"),
        ("horses", "horse", "horse"),
        ("benches", "bench", "bench"),
        ("babies", "baby", "baby"),
        ("knives", "knife", "knive"),
        ("grass", "grass", "grass"),
        ("bus", "bus", "bus"),
        ("is", "is", "is"),
        ("riding", "riding", "ride"),
        ("running", "running", "run"),
        ("standing", "standing", "stand"),
        ("carried", "carried", "carry"),
        ("stopped", "stopped", "stop"),
        ("rolling", "rolling", "roll"),
        ("string", "string", "string"),
        ("red", "red", "red"),
        ("men", "man", "men"),
        ("sat", "sat", "sit"),
    ],
)
def test_lemmas_by_rule_and_by_table(word, noun, verb):
    known = ["bus", "box", "horse", "bench", "knife", "ride", "run", "stand", "stop", "roll", "dog", "baby"]
    assert Lemmas({"men": "man"}, {"sat": "sit"}, known).forms(word) == (word, noun, verb)


SEEN = [
    ("two men sit on a bench", [["man", "bench", "sit on"], ["man", "two"], ["man"], ["bench"]]),
    ("a man sits on a red bench", [["man", "bench", "sit on"], ["bench", "red"], ["man"], ["bench"]]),
    ("men sat in front of a bus", [["man", "bus", "sit in front of"], ["man"], ["bus"]]),
    ("a dog near a bus", [["dog", "bus", "near"], ["dog"], ["bus"]]),
    ("a man with his dog", [["man", "dog", "have"], ["man", "dog", "with"], ["man"], ["dog"]]),
]


@pytest.fixture(scope="module")
def aligner():
    captions = [(text.split(), tuples) for text, tuples in SEEN * 25]
    lemmas = Lemmas({"men": "man"}, {"sat": "sit"}, ["man", "bench", "dog", "bus"])
    return Aligner(lemmas, learn_labels(captions, lemmas)), lemmas, learn_labels(captions, lemmas)


class TestAlignment:
    def test_lemmas_that_rules_do_not_give_are_learned(self):
        """Only where a word is there when the lemma is, and seldom else."""
        rng = np.random.default_rng(0)
        things = ["bench", "bus", "dog", "tree", "hat", "boat", "wall", "park"]
        captions = []
        for _ in range(200):
            one, other = rng.choice(things, 2, replace=False).tolist()
            who, lemma = [("men", "man"), ("women", "woman"), ("girls", "girl")][rng.integers(3)]
            does, verb = [("sat", "sit"), ("stood", "stand"), ("sleeps", "sleep")][rng.integers(3)]
            words = f"the {who} {does} on a {one} near a {other}".split()
            captions.append((words, [[lemma, one, f"{verb} on"], [one, other, "near"], [lemma], [one], [other]]))
        lemmas = learn_lemmas(captions)
        assert [lemmas.noun(word) for word in ("men", "women", "girls", "bench", "the")] == [
            "man",
            "woman",
            "girl",
            "bench",
            "the",
        ]
        assert [lemmas.verb(word) for word in ("sat", "stood", "near")] == ["sit", "stand", "near"]
        assert set(learn_labels(captions, lemmas)) == {"~", "~ on", "near"}

    def test_labels(self, aligner):
        assert set(aligner[2]) == {"~", "near", "with", "have", "~ on", "~ in front of"}

    @pytest.mark.parametrize(("text", "tuples"), [SEEN[0], SEEN[1], SEEN[2], SEEN[3]])
    def test_tuples_come_back_from_the_words(self, aligner, text, tuples):
        align, lemmas, labels = aligner
        example = align(text.split(), tuples)
        assert tuples_of(text.split(), example, lemmas, labels) == {tuple(one) for one in tuples}

    def test_places_and_names(self, aligner):
        align, _, labels = aligner
        example = align(["a", "man", "sits", "on", "a", "red", "bench"], SEEN[1][1])
        assert example.objects.tolist() == [0, 1, 0, 0, 0, 0, 1]
        assert np.argwhere(example.attributes == 1).tolist() == [[6, 5]]
        assert example.named.tolist() == [[1, 6, 1 + 2, labels.index("~ on")]]
        assert example.forms[2].all() and example.forms[1].tolist() == [True, True, True]

    def test_of_equal_words_the_nearest_is_to_be_found_and_the_others_are_left_open(self, aligner):
        align, _, _ = aligner
        words = ["a", "red", "bench", "near", "a", "bus", "and", "a", "bench"]
        example = align(words, [["bench", "red"], ["bench", "bus", "near"], ["bench"], ["bus"]])
        assert example.attributes[2, 1] == 1 and example.attributes[8, 1] == OPEN
        assert example.relations[2, 5] == 1 and example.relations[8, 5] == OPEN
        assert example.objects[2] == 1 and example.objects[8] == OPEN

    def test_of_equal_names_the_one_between_is_pointed_to(self, aligner):
        align, _, labels = aligner
        words = ["a", "dog", "sits", "and", "a", "man", "sits", "on", "a", "bench", "and", "sits"]
        example = align(words, [["man", "bench", "sit on"], ["man"], ["bench"], ["dog"]])
        assert example.named.tolist() == [[5, 9, 1 + 6, labels.index("~ on")]]

    def test_what_comes_from_no_word_is_left_out(self, aligner):
        align, lemmas, labels = aligner
        example = align(["a", "dog"], [["cat"], ["dog", "green"], ["dog", "cat", "near"], ["dog"]])
        assert tuples_of(["a", "dog"], example, lemmas, labels) == {("dog",)}


def test_words_share_their_endings():
    ids, affixes = word_ids(["dog", "hotdog", "zebra"], ["zebra", "dog"], 1000)
    assert ids.tolist() == [2, 0, 1] and affixes.shape == (3, AFFIXES)
    assert (affixes[0, :3] == affixes[1, :3]).all() and affixes[0, 4] != affixes[1, 4]
    assert affix_buckets("dog", 1000) == affixes[0].tolist()


class TestTuples:
    """With scores set by hand: every word an object, or none."""

    WORDS = ("", "dog", "men", "riding", "on", "horses")

    def parser(self, network, objects, pairs):
        """Biases alone decide."""
        made = SceneParser(network.sizes)
        for weight in made.weights:
            weight.assign(np.zeros(weight.shape))
        made.roles_bias[4 * network.sizes.pair].assign(objects)
        made.distance.assign(np.full(made.distance.shape, pairs))
        lemmas = Lemmas({"men": "man"}, {"riding": "ride"}, [])
        return SceneGraphParser(made, self.WORDS[1:], lemmas, ["near", "~", "~ on", "of"])

    def test_places(self, network):
        made = self.parser(network, 1.0, -3.0)
        lexicon = made.lexicon(self.WORDS)
        tuples = made(tf.constant([[1, 2, 0], [0, 0, 0], [5, 1, 2]]), lexicon.tables).numpy()
        assert tuples.shape == (3, PLACES, 4) and (tuples[1] == 0).all()
        said = [list(of) for of in made.texts(tuples, lexicon)]
        assert said == [[("dog",), ("men",)], [], [("horses",), ("dog",), ("men",)]]
        assert (tuples[:, :, 1:3] == 0).all() and (tuples[0, 2:] == 0).all()

    @pytest.mark.parametrize("objects", [-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5])
    @pytest.mark.parametrize("pairs", [-2.5, 0.5, 3.0])
    def test_the_level_is_the_number_of_thresholds_below_the_logit(self, network, objects, pairs):
        made = self.parser(network, objects, pairs)
        lexicon = made.lexicon(self.WORDS)
        caption = tf.constant([[1, 2, 1]])
        (said,) = made.texts(made(caption, lexicon.tables), lexicon)
        expected = {1: sum(objects > t for t in THRESHOLDS), 2: sum(pairs > t for t in THRESHOLDS)}
        levels = {1: said.get(("dog",), 0), 2: said.get(("dog", "men"), 0), 3: said.get(("men", "dog", "near"), 0)}
        assert levels == {**expected, 3: expected[2]} and set(said.values()) | {0} == set(levels.values()) | {0}
        assert (("dog",) in likely(said)) == (objects > 0) and (("dog", "men") in likely(said)) == (pairs > 0)

    def test_relations_come_first_and_what_has_no_place_is_cut_off(self, network):
        made = self.parser(network, 1.0, 1.0)
        lexicon = made.lexicon(self.WORDS)
        tuples = made(tf.constant([[1, 2, 0, 0, 0, 0], [1, 2, 3, 4, 5, 1]]), lexicon.tables).numpy()
        first = list(made.texts(tuples, lexicon)[0])
        assert first == [
            ("dog", "men", "near"),
            ("men", "dog", "near"),
            ("dog", "men"),
            ("men", "dog"),
            ("dog",),
            ("men",),
        ]
        assert (tuples[1, :, 0] > 0).all()  # 30 relations for PLACES places
        assert (tuples[1, :, 2] > 0).all()

    def test_of_too_many_the_surest_have_places_in_their_order(self):
        """Against plain Python: the surest `most` of a caption, of equal ones the first, in the order of kinds."""
        generator = np.random.default_rng(4)
        most = np.array([3, 5, 1, 4, 24], np.int32)
        kinds, all_of = [], [[] for _ in most]
        for kind in range(3):
            caption = np.sort(generator.choice([0, 1, 3, 4], 20)).astype(np.int32)
            levels = generator.integers(1, LEVELS + 1, 20).astype(np.int32)
            terms = [generator.integers(1, 99, 20).astype(np.int32) for _ in range(3 - kind)]
            kinds.append((tf.constant(caption), [tf.constant(of) for of in terms], tf.constant(levels)))
            for row in range(20):
                all_of[caption[row]].append([*(int(of[row]) for of in terms), *[0] * kind, int(levels[row])])
        table = in_places(kinds, tf.constant(most), 24).numpy()
        assert table.shape == (5, 24, 4) and all(len(of) > 5 for of in (all_of[0], all_of[1], all_of[3]))
        for found, given, places in zip(table.tolist(), all_of, most, strict=True):
            surest = sorted(range(len(given)), key=lambda k: -given[k][3])[:places]
            expected = [given[k] for k in sorted(surest)]
            assert found == expected + [[0] * 4] * (24 - len(expected))

    def test_a_caption_has_as_many_places_in_a_longer_batch(self, network):
        made = self.parser(network, 1.0, 1.0)
        lexicon = made.lexicon(self.WORDS)
        caption = np.array([[1, 2, 3, 4, 5, 1]])
        padded = np.pad(caption, [[0, 0], [0, 34]])
        short, long = (made(tf.constant(rows), lexicon.tables).numpy()[0] for rows in (caption, padded))
        np.testing.assert_array_equal(long[:24], short)
        assert short.all(axis=1)[:24].sum() == 24 and not long[24:].any()

    def test_long_captions_have_a_place_for_every_word(self, network):
        made = self.parser(network, 1.0, -3.0)
        words = ("", *(f"thing{k}" for k in range(40)))
        lexicon = made.lexicon(words)
        captions = [list(range(1, 41)), [3]]
        tuples = made.parse(flat_tokens([captions]), lexicon)
        assert [len(said) for said in made.texts(tuples, lexicon)] == [40, 1]
        block = tf.constant([captions[0]])
        np.testing.assert_array_equal(made(block, lexicon.tables)[0], tuples[0])

    def test_relations_are_named(self, network):
        """The label is chosen by bias; where nothing is pointed to, one that asks for a verb cannot be."""
        made = self.parser(network, -3.0, 1.0)
        lexicon = made.lexicon(self.WORDS)
        caption = tf.constant([[1, 3]])
        for bias, pointed, relation in (
            ([0, 0, 5, 0], 1.0, {"dog on", "ride on"}),
            ([0, 5, 0, 0], 1.0, {"dog", "ride"}),
            ([0, 0, 0, 5], 1.0, {"of"}),
            ([0, 0, 5, 1], 0.0, {"of"}),
        ):
            made.network.labels_bias.assign(bias)
            # Every word, or none, is asked for alike; of equal ones the first is pointed to.
            made.network.unnamed.assign(np.full(made.network.unnamed.shape, -pointed))
            made.network.pointer.assign(np.ones(made.network.pointer.shape))
            made.network.ends_bias.assign(np.ones(made.network.ends_bias.shape))
            said = list(made.texts(made(caption, lexicon.tables), lexicon)[0])
            assert {one[2] for one in said if len(one) == 3} <= relation and len(said[0]) == 3

    def test_a_relation_does_without_being(self, network):
        made = self.parser(network, -3.0, 1.0)
        made = SceneGraphParser(made.network, self.WORDS[1:], Lemmas({}, {"dog": "be"}, []), made.labels)
        made.network.labels_bias.assign([0, 0, 5, 0])
        made.network.unnamed.assign(np.full(made.network.unnamed.shape, -1.0))
        made.network.pointer.assign(np.ones(made.network.pointer.shape))
        made.network.ends_bias.assign(np.ones(made.network.ends_bias.shape))
        lexicon = made.lexicon(self.WORDS)
        said = made.texts(made(tf.constant([[1, 3]]), lexicon.tables), lexicon)[0]
        assert ("dog", "riding", "on") in said

    def test_blocks_of_captions_are_as_one_by_one(self, network, gates):
        lemmas = Lemmas({}, {}, [])
        made = SceneGraphParser(network, self.WORDS[1:], lemmas, ["near", "~", "~ on", "of"])
        lexicon = made.lexicon(self.WORDS)
        captions = np.random.default_rng(2).integers(1, 6, [1500, 4])
        captions[np.arange(4)[None, :] >= np.random.default_rng(3).integers(0, 5, [1500, 1])] = 0
        compiled = tf.function(made, autograph=False)(tf.constant(captions), lexicon.tables).numpy()
        for row in (0, 7, 749, 750, 1499):
            np.testing.assert_array_equal(compiled[row], made(tf.constant(captions[row : row + 1]), lexicon.tables)[0])
        rows = made.parse(flat_tokens([[[i for i in caption if i] for caption in captions.tolist()]]), lexicon)
        np.testing.assert_array_equal(rows, compiled)

    def test_stays_on_the_device(self, network):
        made = self.parser(network, 1.0, 1.0)
        lexicon = made.lexicon(self.WORDS)
        function = tf.function(lambda captions: made(captions, lexicon.tables), autograph=False)
        assert host_only(function.get_concrete_function(tf.TensorSpec([None, 5], tf.int32))) == set()

    def test_comes_back_from_its_file(self, network, tmp_path):
        lemmas = Lemmas({"men": "man"}, {}, ["dog"])
        made = SceneGraphParser(network, self.WORDS[1:], lemmas, ["near", "~", "~ on", "of"])
        save_parser(tmp_path / "parser.npz", made)
        again = load_parser(tmp_path / "parser.npz")
        assert (again.words, again.labels) == (made.words, made.labels)
        assert (again.lemmas.nouns, again.lemmas.verbs, again.lemmas.known) == ({"men": "man"}, {}, {"dog"})
        for one, other in zip(made.network.weights, again.network.weights, strict=True):
            np.testing.assert_array_equal(one.numpy().astype(np.float16), other.numpy())

    @pytest.mark.parametrize("words", [(), ("teeshirts",)])
    def test_without_a_word_and_with_lemmas_of_several(self, words, tmp_path):
        sizes = SceneParserSizes(words=1 + len(words), affixes=8, labels=1, embedding=5, units=3, pair=4)
        made = SceneGraphParser(SceneParser(sizes), words, Lemmas({word: "tee shirt" for word in words}, {}, []), ["~"])
        save_parser(tmp_path / "parser.npz", made)
        again = load_parser(tmp_path / "parser.npz")
        assert (again.words, again.lemmas.nouns) == (words, made.lemmas.nouns)
        assert again.parse(flat_tokens([[[1]]]), again.lexicon(["", "teeshirts"]))[0].shape == (PLACES, 4)
