"""Beam search: tables with known answers, a plain search over lists, and every caption enumerated."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.beam import Beams, beam_search, top_k
from spidercap.models.special_tokens import END, PAD, START
from tests import plain
from tests.enumeration import CAPTIONS, SAYABLE, distribution
from tests.oracles import padded
from tests.test_gpu_ready import host_only, operations

A, B, C, D = 3, 4, 5, 6
V = 7


def table(rows):
    """A step that knows the last word only: `rows` gives P(next word | word), what it does not name is impossible."""
    logits = np.full([V, V], -1e9, np.float32)
    for word, following in rows.items():
        for after, probability in following.items():
            logits[word, after] = np.log(probability)
    logits = tf.constant(logits)

    def step(state, token):
        return tuple(state), tf.gather(logits, token)

    return step, (tf.zeros([1, 1]), tf.zeros([1, 1]))


def captions(beams, image=0):
    """The captions of an image as lists of words, best first."""
    return [[int(w) for w in words if w != PAD] for words in beams.tokens[image]]


# Greedy goes to A (0.6), from which everything is unlikely; B (0.4) goes on surely.
LURE = {START: {A: 0.6, B: 0.4}, A: {C: 0.5, D: 0.5}, B: {END: 1.0}, C: {END: 1.0}, D: {END: 1.0}}


def test_beam_finds_what_greedy_misses():
    step, state = table(LURE)
    assert [int(w) for w in decoding.greedy(step, state, 4)[0][0]] == [A, C, END, PAD]
    assert captions(beam_search(step, state, 4, width=1))[0] == [A, C, END]
    beams = beam_search(step, state, 4, width=2)
    assert captions(beams)[0] == [B, END]
    assert float(beams.log_prob[0, 0]) == pytest.approx(np.log(0.4))


def test_length_penalty_flips_the_answer():
    """A END has log 0.36 = -1.02 over 2 words; B C D END log 0.3 = -1.20 over 4."""
    step, state = table(
        {START: {A: 0.6, B: 0.4}, A: {END: 0.6, A: 0.4}, B: {C: 1.0}, C: {D: 1.0}, D: {END: 0.75, D: 0.25}}
    )
    assert captions(beam_search(step, state, 5, width=3))[0] == [A, END]
    beams = beam_search(step, state, 5, width=3, length_penalty=1.0)
    assert captions(beams)[0] == [B, C, D, END]
    assert float(beams.score[0, 0]) == pytest.approx(np.log(0.3) / 4)
    assert float(beams.log_prob[0, 0]) == pytest.approx(np.log(0.3))


@pytest.mark.parametrize(
    "n, said", [(0, [A, B, A, B, A, B]), (3, [A, B, A, B, C, END]), (2, [A, B, A, C, END]), (1, [A, B, C, END])]
)
def test_no_ngram_comes_twice(n, said):
    step, state = table({START: {A: 1.0}, A: {B: 0.9, C: 0.1}, B: {A: 0.9, C: 0.1}, C: {END: 1.0}})
    beams = beam_search(step, state, 6, width=1, no_repeat_ngram=n)
    assert captions(beams)[0] == said


@pytest.mark.parametrize("n, said", [(1, [A, END]), (2, [A, A, END]), (3, [A, A, A, END]), (9, [A] * 5)])
def test_no_word_comes_twice_in_a_row(n, said):
    """The last n words and the next may overlap."""
    step, state = table({START: {A: 1.0}, A: {A: 0.9, END: 0.1}})
    assert captions(beam_search(step, state, 5, width=1, no_repeat_ngram=n))[0] == said


def test_no_caption_ends_badly():
    step, state = table({START: {A: 1.0}, A: {B: 1.0}, B: {END: 0.7, C: 0.3}, C: {END: 1.0}})
    assert captions(beam_search(step, state, 5, width=2))[0] == [A, B, END]
    beams = beam_search(step, state, 5, width=2, bad_endings=(B, D))
    assert captions(beams) == [[A, B, C, END], []]
    assert float(beams.log_prob[0, 0]) == pytest.approx(np.log(0.3))  # of the model, not of what is allowed
    assert captions(beam_search(step, state, 2, width=2, bad_endings=(B,)))[0] == [A, B]  # cut
    # Nothing but the end can be said.
    beams = beam_search(step, state, 5, width=2, bad_endings=(B, C))
    assert captions(beams)[0] == [A, B, C, END]


def test_equals_come_in_order():
    """The lower word first, and the continuations of the better hypothesis first."""
    even = {START: {D: 0.25, A: 0.25, C: 0.25, B: 0.25}}
    step, state = table(even | {w: {END: 0.5, C: 0.5} for w in (A, B, C, D)})
    beams = beam_search(step, state, 2, width=4, n_best=4)
    assert captions(beams) == [[A, END], [B, END], [A, C], [B, C]]  # those that ended were found first


def test_too_few_captions_leave_padding():
    step, state = table({START: {A: 0.5, END: 0.5}, A: {END: 1.0}})
    beams = beam_search(step, state, 3, width=6, n_best=6)
    assert captions(beams) == [[END], [A, END], [], [], [], []]
    assert np.isneginf(beams.log_prob[0, 2:]).all() and np.isneginf(beams.score[0, 2:]).all()


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_end_an_image_and_spare_the_others(spoilt):
    step, _ = table(LURE)

    def sometimes(state, token):
        state, logits = step(state, token)
        return state, tf.where(state[0] > 0, spoilt, logits)

    state = (tf.constant([[1.0], [0.0]]), tf.zeros([2, 1]))
    beams = beam_search(sometimes, state, 4, width=2)
    assert captions(beams, 0) == [[], []] and captions(beams, 1)[0] == [B, END]
    assert (beams.tokens.numpy() < V).all()


# --- against a plain search ---


def random_model(seed, images, words=9):
    """A step whose state mixes all that was said, and the images' start; the end is likelier with time."""
    rng = np.random.default_rng(seed)
    mix, read, out = (tf.constant(rng.normal(0, s, [words, 8]), tf.float32) for s in (0.7, 1.0, 2.0))
    bias = np.zeros(words, np.float32)
    bias[[PAD, START]] = -1e9
    bias[END] = -1

    def step(state, token):
        hidden = tf.tanh(tf.matmul(state[0], mix[:8]) + tf.gather(read, token))
        time = state[1] + 0.5
        ends = time * tf.one_hot([END], words)
        return (hidden, time), tf.matmul(hidden, out, transpose_b=True) + bias + ends

    return step, (tf.constant(rng.normal(size=[images, 8]), tf.float32), tf.zeros([images, 1]))


def plain_search(step, state, max_length, width, penalty=0.0, ngram=0, bad=()):
    """One image, in lists; never stops early. Returns [(score, log_prob, words)], best first."""

    def allowed(said, word):
        grams = {tuple(said[i : i + ngram]) for i in range(len(said) - ngram + 1)} if ngram else set()
        return not (word == END and said and said[-1] in bad) and tuple([*said, word][-ngram:]) not in grams

    live, ended = [(0.0, [], state)], []
    for t in range(max_length):
        candidates = []
        for log_prob, said, before in live:
            after, logits = step(before, tf.constant([said[-1] if said else START]))
            log_probs = tf.nn.log_softmax(logits)[0].numpy()
            candidates += [
                (log_prob + log_probs[w], [*said, w], after)
                for w in range(len(log_probs))
                if log_probs[w] > -1e8 and allowed(said, w)
            ]
        candidates.sort(key=lambda c: -c[0])
        ended += [(lp / (t + 1) ** penalty, lp, said) for lp, said, _ in candidates[:width] if said[-1] == END]
        live = [c for c in candidates if c[1][-1] != END][:width]
    cut = [(lp / max_length**penalty, lp, said) for lp, said, _ in live]
    return sorted(ended + cut, key=lambda c: -c[0])[:width]


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"length_penalty": 0.8}, {"no_repeat_ngram": 2, "bad_endings": (4, 7)}])
def test_same_as_a_plain_search(width, options):
    """The whole list where all of it is asked for; and whoever stops earlier finds the same best caption."""
    images, length = 3, 6
    mapped = {"length_penalty": "penalty", "no_repeat_ngram": "ngram", "bad_endings": "bad"}
    for seed in range(3):
        step, state = random_model(seed, images)
        beams, first = (beam_search(step, state, length, width=width, n_best=n, **options) for n in (width, 1))
        for i in range(images):
            one = tf.nest.map_structure(lambda x, i=i: x[i : i + 1], state)
            expected = plain_search(step, one, length, width, **{mapped[k]: v for k, v in options.items()})
            assert captions(beams, i)[: len(expected)] == [words for _, _, words in expected]
            np.testing.assert_allclose(beams.log_prob[i], [lp for _, lp, _ in expected], atol=1e-4)
            np.testing.assert_allclose(beams.score[i], [score for score, _, _ in expected], atol=1e-4)
            assert captions(first, i)[0] == expected[0][2]


def test_width_one_is_greedy():
    step, state = random_model(7, 40)
    words, log_prob = decoding.greedy(step, state, 8)
    beams = beam_search(step, state, 8, width=1)
    np.testing.assert_array_equal(beams.tokens[:, 0], words)
    np.testing.assert_allclose(beams.log_prob[:, 0], log_prob, atol=1e-5)
    assert 2 < np.mean(decoding.lengths(words)) < 8


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_width_of_all_captions_finds_the_best(toy, penalty):
    captioner, _, features = toy
    probability = distribution(captioner, features[:1])
    ranked = sorted(CAPTIONS, key=lambda c: np.log(probability[c]) / len(c) ** penalty, reverse=True)
    step, start = captioner.begin(tf.constant(features[:1]))
    width = len(SAYABLE) ** 3
    beams = beam_search(step, start, 3, width=width, length_penalty=penalty, n_best=width)
    assert captions(beams)[: len(ranked)] == [list(c) for c in ranked]
    found = beams.log_prob[0, : len(ranked)]
    np.testing.assert_allclose(found, [np.log(probability[c]) for c in ranked], atol=1e-4)


def test_log_prob_is_that_of_teacher_forcing(toy):
    captioner, _, features = toy
    beams = beam_search(*captioner.begin(tf.constant(features)), 5, width=4, n_best=4)
    words = tf.reshape(beams.tokens, [8, 5])
    hidden = plain.hidden(captioner, tf.repeat(tf.constant(features), 4, axis=0), words)
    said = words != PAD
    log_probs = plain.log_probs(captioner, tf.boolean_mask(hidden, said), tf.boolean_mask(words, said))
    sums = tf.scatter_nd(tf.cast(tf.where(said)[:, :1], tf.int32), log_probs, [8])
    np.testing.assert_allclose(tf.reshape(beams.log_prob, [8]), sums, atol=1e-5)


def test_neighbours_and_blocks_of_rows_change_nothing(monkeypatch):
    """An image among others that end before and after it, and logits made for two rows at once."""
    step, state = random_model(3, 9)
    together = beam_search(step, state, 7, width=3)
    assert len(set(decoding.lengths(together.tokens[:, 0]).numpy())) > 1
    for i in (0, 4, 8):
        alone = beam_search(step, tf.nest.map_structure(lambda x, i=i: x[i : i + 1], state), 7, width=3)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[i])
        np.testing.assert_allclose(alone.log_prob[0], together.log_prob[i], atol=1e-5)
    monkeypatch.setattr("spidercap.models.blocks.ROWS", 2)
    rows = []

    def seen(state, token):
        rows.append(len(token))
        return step(state, token)

    in_blocks = beam_search(seen, state, 7, width=3)
    assert max(rows) == 2
    np.testing.assert_array_equal(in_blocks.tokens, together.tokens)


def test_no_row_is_computed_in_vain():
    """One row for an image at first; none for an image whose best caption is found."""
    step, _ = table({START: {A: 0.6, B: 0.4}, A: {END: 1.0}, B: {C: 0.5, D: 0.5}, C: {END: 1.0}, D: {END: 1.0}})
    rows = []

    def seen(state, token):
        rows.append([int(i) for i in state[0][:, 0]])
        # Image 1 never says A first, and has to look further.
        state, logits = step(state, token)
        return state, tf.where((state[0] > 0) & (tf.range(V) == A), -1e9, logits)

    state = (tf.constant([[0.0], [1.0]]), tf.zeros([2, 1]))
    beams = beam_search(seen, state, 6, width=2)
    assert captions(beams, 0)[0] == [A, END] and captions(beams, 1)[0] == [B, C, END]
    assert rows[1:] == [[0, 1], [0, 0, 1], [1, 1]]  # the first call asks how many words there are


# --- parts ---


@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("vocabulary", [2000, 2048])
def test_top_k_by_blocks_is_top_k(vocabulary, k):
    """With many equal logits, too."""
    rng = np.random.default_rng(0)
    few_values = rng.integers(0, 300, (50, vocabulary))
    for logits in (rng.normal(size=(50, vocabulary)), few_values, np.zeros((3, vocabulary))):
        logits = tf.constant(logits, tf.float32)
        for ours, theirs in zip(top_k(logits, k), tf.math.top_k(logits, k), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_beam_compiles_once_for_every_batch_and_stays_on_the_device(toy):
    captioner, _, features = toy
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3])], autograph=False)
    def search(features):
        traces.append(1)
        step, state = captioner.begin(features)
        options = {"length_penalty": 0.5, "no_repeat_ngram": 2, "bad_endings": (4,)}
        return beam_search(step, state, 5, width=3, **options)

    few, many = search(features[:1]), search(tf.repeat(features, 5, axis=0))
    for ours, theirs in zip(few, search.python_function(features[:1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (few.tokens.shape, many.tokens.shape, search(features[:0]).tokens.shape) == (
        (1, 3, 5),
        (10, 3, 5),
        (0, 3, 5),
    )
    assert isinstance(few, Beams) and len(traces) == 2  # one of them not compiled
    function = search.get_concrete_function()
    assert function.output_shapes.tokens.as_list() == [None, 3, 5]
    assert "TopKV2" in operations(function)
    assert host_only(function) == set()


def test_words_of_the_padding_are_never_said():
    """Logits may hold more words than there are, at -1e9."""
    step, state = random_model(5, 4)

    def wider(state, token):
        state, logits = step(state, token)
        return state, tf.pad(logits, [[0, 0], [0, 119]], constant_values=-1e9)

    for ours, theirs in zip(beam_search(wider, state, 5, width=4), beam_search(step, state, 5, width=4), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_padded_captions_are_what_greedy_gives():
    """After the end only padding."""
    step, state = table(LURE)
    beams = beam_search(step, state, 4, width=3, n_best=3)
    np.testing.assert_array_equal(beams.tokens[0], padded([[B, END], [A, C, END], [A, D, END]], 4))
