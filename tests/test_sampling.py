"""Sampled captions: frequencies are the exact distributions, found by enumeration, and numbers are the model's."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from spidercap.export.server import MISSING, Server
from spidercap.models import decoding, row_random, sampling
from spidercap.models.categorical import draw
from spidercap.models.decoder import CHOICES, Decoder
from spidercap.models.row_random import RowSeed
from spidercap.models.special_tokens import END, FORBIDDEN, PAD, SPECIAL_TOKENS, START
from tests.enumeration import CAPTIONS, T, distribution

N = 40_000
SEED = tf.constant([3, 4])


def cut(probabilities, decoder):
    """What a decoder draws a word by, in plain Python: tempered, then the likeliest words, of equals the lower ids."""
    tempered = np.asarray(probabilities, np.float64) ** (1 / decoder.temperature)
    tempered /= tempered.sum()
    order = np.argsort(-tempered, kind="stable")
    kept = len(order)
    if decoder.decode == "top_k":
        kept = decoder.top_k
    if decoder.decode == "nucleus" and decoder.top_p < 1:
        kept = 1 + next(i for i, total in enumerate(np.cumsum(tempered[order])) if total >= decoder.top_p)
    found = np.zeros_like(tempered)
    found[order[:kept]] = tempered[order[:kept]]
    return found / found.sum()


def exact(captioner, features, decoder):
    """The probability of each caption by the decoder, word by word; features `[1, F]`."""
    step, start = captioner.begin(tf.constant(features))

    @functools.cache
    def after(prefix):
        """The state after a prefix, and the decoder's distribution of the next word."""
        before = after(prefix[:-1])[0] if prefix else start
        state, logits = step(before, tf.constant([prefix[-1] if prefix else START]))
        return state, cut(tf.nn.softmax(tf.cast(logits[0], tf.float64)), decoder)

    return {c: float(np.prod([after(c[:t])[1][c[t]] for t in range(len(c))])) for c in CAPTIONS}


def drawn(captioner, features, decoder, seed=SEED, first=0):
    """Tokens `[N, n, T]` and log-probabilities `[N, n]` of a decoder."""

    @tf.function(autograph=False)
    def call(features):
        rows = RowSeed(seed, tf.constant(first, tf.int64))
        uniform = sampling.uniforms(rows, tf.shape(features)[0], decoder.n_best, T)
        return decoder.captions(captioner, features, T, uniform)

    return [part.numpy() for part in call(tf.constant(features))]


def caption_of(row):
    return tuple(int(word) for word in row if word != PAD)


@pytest.mark.parametrize(
    "decoder",
    [
        Decoder("sample"),
        Decoder("sample", temperature=0.5),
        Decoder("sample", temperature=2.5),
        Decoder("top_k", top_k=2),
        Decoder("top_k", top_k=3, temperature=1.7),
        Decoder("top_k", top_k=1000),
        Decoder("nucleus", top_p=0.6),
        Decoder("nucleus", top_p=0.8, temperature=1.5),
        Decoder("nucleus", top_p=1.0),
    ],
    ids=lambda d: f"{d.decode}-{d.temperature}-{d.top_k}-{d.top_p}",
)
def test_frequencies_are_the_exact_distribution(toy, decoder):
    captioner, _, features = toy
    tokens, _ = drawn(captioner, np.repeat(features[:1], N, axis=0), decoder)
    expected = exact(captioner, features[:1], decoder)
    counts = dict.fromkeys(CAPTIONS, 0)
    for row in tokens[:, 0]:
        counts[caption_of(row)] += 1
    assert sum(expected.values()) == pytest.approx(1, abs=1e-6)
    for caption, probability in expected.items():
        bound = 5 * np.sqrt(N * probability * (1 - probability)) + 1e-6
        assert abs(counts[caption] - N * probability) <= bound, (caption, probability, counts[caption] / N)


def test_at_temperature_1_all_words_are_the_model(toy):
    captioner, _, features = toy
    model = distribution(captioner, features[:1])
    for decoder in (Decoder("sample"), Decoder("top_k", top_k=1000), Decoder("nucleus", top_p=1.0)):
        found = exact(captioner, features[:1], decoder)
        assert all(found[caption] == pytest.approx(p, rel=1e-5) for caption, p in model.items())


@pytest.mark.parametrize("decode", sorted(CHOICES))
def test_log_prob_is_that_of_the_model_best_first(toy, decode):
    captioner, _, features = toy
    decoder = Decoder(decode, n_best=5, temperature=1.6, top_k=3, top_p=0.9)
    tokens, log_prob = drawn(captioner, features, decoder)
    assert tokens.shape == (2, 5, T) and log_prob.shape == (2, 5)
    assert (np.diff(log_prob, axis=1) <= 0).all() and np.isfinite(log_prob).all()
    for image in range(2):
        model = distribution(captioner, features[image : image + 1])
        expected = [np.log(model[caption_of(row)]) for row in tokens[image]]
        np.testing.assert_allclose(log_prob[image], expected, atol=1e-4)


@pytest.mark.parametrize("decoder", [Decoder("top_k", top_k=1), Decoder("nucleus", top_p=1e-6)])
@pytest.mark.parametrize("jit", [False, True])
def test_the_likeliest_word_alone_is_greedy(toy, decoder, jit):
    captioner, _, features = toy
    captioner.jit = jit
    found = drawn(captioner, features, decoder)
    expected = Decoder().captions(captioner, tf.constant(features), T)
    np.testing.assert_array_equal(found[0], expected.tokens)
    np.testing.assert_allclose(found[1], expected.log_prob, atol=1e-4)


@pytest.mark.parametrize("decode", sorted(CHOICES))
def test_compiled_by_xla_it_draws_the_same(toy, decode):
    captioner, _, features = toy
    found = []
    for captioner.jit in (False, True):
        found.append(drawn(captioner, features, Decoder(decode, n_best=20, top_k=3, top_p=0.8)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-4)


@pytest.mark.parametrize("decode", sorted(CHOICES))
def test_captions_of_an_image_do_not_depend_on_its_batch(toy, decode):
    """Neither on the images beside it, nor on where the batch begins: its place among all images counts."""
    captioner, _, _ = toy
    features = np.random.default_rng(0).normal(0, 1, (12, 3)).astype(np.float32)
    decoder = Decoder(decode, n_best=3, top_k=3, top_p=0.8)
    whole = drawn(captioner, features, decoder)
    assert len({tuple(row) for row in whole[0].reshape(-1, T)}) > 3
    for first, last in ((0, 5), (5, 12), (7, 8)):
        part = drawn(captioner, features[first:last], decoder, first=first)
        np.testing.assert_array_equal(part[0], whole[0][first:last])
        np.testing.assert_allclose(part[1], whole[1][first:last], atol=1e-5)
    other = drawn(captioner, features, decoder, seed=SEED + 1)
    assert (other[0] != whole[0]).any()


def test_numbers_of_a_seed_of_each_image_are_its_own():
    numbers = sampling.uniforms_of_each(tf.constant([5, 9, 5], tf.int64), 2, T).numpy()
    assert numbers.shape == (3, 2, T, 2) and (numbers[0] == numbers[2]).all() and (numbers[0] != numbers[1]).any()
    alone = sampling.uniforms_of_each(tf.constant([9], tf.int64), 2, T).numpy()
    np.testing.assert_array_equal(alone[0], numbers[1])


def test_without_numbers_each_call_draws_anew(toy):
    """Also where a seed was set for all of TensorFlow."""
    captioner, _, features = toy
    decoder = Decoder("sample", n_best=20)
    found = []
    for _ in range(2):
        tf.random.set_seed(1)
        call = tf.function(lambda: decoder.captions(captioner, tf.constant(features), T).tokens, autograph=False)
        found += [call().numpy(), call().numpy()]
    assert len({tokens.tobytes() for tokens in found}) == 4


@pytest.fixture
def many():
    """Uniform numbers `[1, S, 2]`, many."""
    return row_random.uniforms(SEED, 1, 5_000, 2)


def words_drawn(choose, probabilities, many, **settings):
    logits = tf.constant(np.log(np.array([probabilities])), tf.float32)
    return set(choose(logits, many, **settings).numpy()[0].tolist())


# Powers of two, whose sums are exact.
P = [0.125, 0.25, 0.0625, 0.25, 0.25, 0.03125, 0.03125]


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.01, {1}),
        (0.25, {1}),
        (0.26, {1, 3}),
        (0.5, {1, 3}),
        (0.51, {1, 3, 4}),
        (0.8, {0, 1, 3, 4}),
        (0.9375, {0, 1, 2, 3, 4}),
        (0.95, {0, 1, 2, 3, 4, 5}),
        (1.0, set(range(7))),
    ],
)
@pytest.mark.parametrize("spare", [0, 300])  # more words than are looked through at first
def test_the_nucleus_is_the_smallest_set_and_of_equals_the_lower_ids(many, p, kept, spare):
    assert words_drawn(sampling.draw_nucleus, P + [1e-30] * spare, many, p=p) - set(range(7, 400)) == kept


@pytest.mark.parametrize(("k", "kept"), [(1, {1}), (2, {1, 3}), (3, {1, 3, 4}), (4, {0, 1, 3, 4}), (99, set(range(7)))])
def test_the_k_likeliest_of_equals_the_lower_ids(many, k, kept):
    assert words_drawn(sampling.draw_top_k, P, many, k=k) == kept


def test_a_nucleus_of_many_words_is_exact(many):
    """As many words are needed as are looked through at first, and more; beside a row that needs one."""
    rng = np.random.default_rng(1)
    logits = tf.constant(np.stack([rng.normal(0, 0.5, 700), 40.0 * (np.arange(700) == 650)]), tf.float32)
    probabilities = tf.nn.softmax(logits[0]).numpy().astype(np.float64)
    decoder = Decoder("nucleus", top_p=0.7)
    kept = np.flatnonzero(cut(probabilities, decoder))
    assert sampling.FEW < len(kept) < 650
    found = sampling.draw_nucleus(logits, tf.repeat(many, 2, axis=0), p=0.7).numpy()
    assert set(found[0].tolist()) <= set(kept.tolist()) and set(found[1].tolist()) == {650}
    counts = np.bincount(found[0], minlength=700)
    expected = cut(probabilities, decoder) * found.shape[1]
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 2).all()


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("decode", sorted(CHOICES))
def test_forbidden_words_are_never_drawn_and_numbers_are_finite(toy, decode, temperature):
    captioner, _, features = toy
    captioner.words.kernel.assign(captioner.words.kernel * 100)  # words that the model finds all but impossible
    decoder = Decoder(decode, n_best=100, temperature=temperature, top_k=1000, top_p=1.0)
    tokens, log_prob = drawn(captioner, np.repeat(features, 20, axis=0), decoder)
    spoken = tokens[tokens != PAD]
    assert not set(spoken.tolist()) & set(FORBIDDEN) and (spoken < 7).all()
    assert (tokens[..., 0] != PAD).all() and np.isfinite(log_prob).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("decode", sorted(CHOICES))
def test_non_finite_logits_end_the_caption_as_in_greedy_decoding(decode, wrong):
    def step(state, tokens):
        logits = tf.tile([[0.0, 0.0, 0.0, 0.0, 3.0, 1.0, 1.0]], [tf.shape(tokens)[0], 1])
        return state, tf.where(state, logits + tf.one_hot(5, 7, on_value=wrong, off_value=0.0), logits)

    state = tf.constant([[True], [False]])
    expected, _ = decoding.greedy(step, state, T)
    uniform = sampling.uniforms(SEED, 2, 3, T)
    tokens, log_prob = sampling.sampled(step, state, T, uniform, CHOICES[decode](Decoder(decode, top_k=2)))
    assert expected[0].numpy().tolist() == [END, PAD, PAD]
    np.testing.assert_array_equal(tokens[0], np.repeat(expected[:1], 3, axis=0))
    assert np.isnan(log_prob[0]).all() and np.isfinite(log_prob[1]).all()


@pytest.mark.parametrize("decode", ["greedy", *sorted(CHOICES)])
def test_served_numbers_are_finite_also_where_logits_are_not(toy, decode):
    captioner, _, features = toy
    captioner.words.bias.assign(np.full(7, np.nan))
    server = Server(None, captioner, (*SPECIAL_TOKENS, "a", "b", "c"), T, Decoder(decode), max_pixels=1)
    served = server.served()["features"](tf.constant(features))
    assert served["caption"].numpy().tolist() == [b"", b""]
    np.testing.assert_array_equal(served["log_prob"], np.float32([MISSING, MISSING]))


def test_all_equal_samples_are_kept(toy):
    captioner, _, features = toy
    tokens, _ = drawn(captioner, features, Decoder("sample", n_best=100))
    assert all(0 < len(np.unique(rows, axis=0)) < 100 for rows in tokens)


def test_no_images_have_no_captions(toy):
    captioner, _, features = toy
    tokens, log_prob = drawn(captioner, features[:0], Decoder("nucleus", n_best=3))
    assert tokens.shape == (0, 3, T) and log_prob.shape == (0, 3)


def test_what_is_drawn_by_is_the_softmax(toy):
    """`sample` draws as training does: the same numbers give the same words."""
    captioner, _, features = toy
    uniform = sampling.uniforms(SEED, 2, 1, T)
    step, state = captioner.begin(tf.constant(features))
    tokens, _ = sampling.sampled(step, state, T, uniform)
    _, first = decoding.next_tokens(step, state, tf.fill([2], 1), uniform[:, 0, :1], draw)
    np.testing.assert_array_equal(tokens[:, 0, 0], first[:, 0])
