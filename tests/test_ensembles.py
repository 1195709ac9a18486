"""Several captioners as one: every decoder against plain-Python means of probabilities."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import sampling
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.decoder import DECODERS, Decoder
from spidercap.models.ensemble import Ensemble
from spidercap.models.special_tokens import END, PAD, START
from spidercap.pipeline.evaluation.evaluate import build_decoder
from tests.conftest import make_toy
from tests.enumeration import CAPTIONS
from tests.oracles import word_probabilities
from tests.test_beam import captions, plain_search
from tests.test_gpu_ready import host_only

T = 3
DECODED = [
    Decoder(),
    Decoder("beam", 4, n_best=4),
    Decoder("diverse_beam", 4, beam_groups=2, diversity=0.5, n_best=4),
    Decoder("sample", n_best=4),
    Decoder("top_k", top_k=2, n_best=4),
    Decoder("nucleus", top_p=0.7, n_best=4),
]


def moved(captioner, seed):
    """The captioner with other weights."""
    rng = np.random.default_rng(seed)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return captioner


@pytest.fixture(params=[("lstm", "lstm"), ("lstm", "attention"), ("attention", "transformer")], ids="-".join)
def two(request):
    """Two captioners of one vocabulary, and the features of each, of two images."""
    toys = [make_toy(kind) for kind in request.param]
    return [moved(toy[0], 10 + i) for i, toy in enumerate(toys)], tuple(toy[2] for toy in toys)


def mean_step(members, features, image):
    """A step in plain Python for one image: the state is the tokens read, the logits are of the mean probability."""
    begun = [c.begin(tf.constant(f[image : image + 1])) for c, f in zip(members, features, strict=True)]

    def step(states, token):
        after = [step(state, token) for (step, _), state in zip(begun, states, strict=True)]
        each = []
        for _, logits in after:
            logits = np.asarray(logits, np.float64)[0]
            odds = np.exp(logits - logits.max())
            each.append(odds / odds.sum())
        with np.errstate(divide="ignore"):
            mean = np.maximum(np.log(np.mean(each, axis=0)), -1e9)
        return [state for state, _ in after], tf.constant(mean[None], tf.float32)

    return step, [state for _, state in begun]


@pytest.mark.parametrize(
    ("toy", "decoder"),
    [
        # An LSTM with each decoder, and each other captioner with two; the other pairs are in `make test-long`.
        pytest.param(kind, d, marks=[pytest.mark.long] * (kind != "lstm" and d.decode not in ("beam", "nucleus")))
        for kind in CAPTIONERS
        for d in DECODED
    ],
    ids=lambda value: getattr(value, "decode", value),
    indirect=["toy"],
)
def test_an_ensemble_of_one_is_the_captioner(toy, decoder):
    captioner, _, features = toy
    alone = build_decoder(captioner, T, decoder, seed=4)(features)
    found = build_decoder(Ensemble([captioner]), T, decoder, seed=4)((features,))
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_prob, alone.log_prob, atol=1e-4)


def test_greedy_takes_the_likeliest_word_of_the_mean(two):
    members, features = two
    found = build_decoder(Ensemble(members), T)(features)
    for image in range(2):
        step, state = mean_step(members, features, image)
        said, total = [], 0.0
        while len(said) < T and END not in said:
            state, logits = step(state, tf.constant([said[-1] if said else START]))
            said.append(int(np.argmax(logits)))
            total += float(logits[0, said[-1]])
        assert [int(w) for w in found.tokens[image, 0] if w != PAD] == said
        assert found.log_prob[image, 0] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("width", [2, 5])
def test_beam_search_of_the_mean(two, width):
    members, features = two
    found = build_decoder(Ensemble(members), T, Decoder("beam", width, n_best=width))(features)
    for image in range(2):
        expected = plain_search(*mean_step(members, features, image), T, width)
        assert captions(found, image)[: len(expected)] == [said for _, _, said in expected]
        np.testing.assert_allclose(found.log_prob[image, : len(expected)], [lp for _, lp, _ in expected], atol=1e-4)


def test_it_differs_from_the_mean_of_logits_and_from_its_members(two):
    """Or the tests above would not tell them apart."""
    members, features = two
    firsts = []
    for member, of in zip(members, features, strict=True):
        step, state = member.begin(tf.constant(of))
        firsts.append(step(state, tf.fill([2], START))[1])
    step, state = Ensemble(members).begin([tf.constant(of) for of in features])
    found = tf.nn.softmax(step(state, tf.fill([2], START))[1])
    np.testing.assert_allclose(found, (tf.nn.softmax(firsts[0]) + tf.nn.softmax(firsts[1])) / 2, atol=1e-6)
    for other in (tf.nn.softmax((firsts[0] + firsts[1]) / 2), *map(tf.nn.softmax, firsts)):
        assert np.abs(found - other).max() > 1e-3


@pytest.mark.long
def test_frequencies_of_samples_are_the_product_of_mean_probabilities(two):
    members, features = two
    count = 20_000
    uniform = sampling.uniforms(tf.constant([3, 4]), count, 1, T)
    repeated = [tf.repeat(tf.constant(of[:1]), count, axis=0) for of in features]
    decode = tf.function(lambda: Decoder("sample").captions(Ensemble(members), repeated, T, uniform), autograph=False)
    tokens, log_prob = decode()
    exact = {c: float(np.prod(word_probabilities(*mean_step(members, features, 0), c))) for c in CAPTIONS}
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
    counts = dict.fromkeys(CAPTIONS, 0)
    for row, total in zip(tokens.numpy()[:, 0], log_prob.numpy()[:, 0], strict=True):
        said = tuple(int(w) for w in row if w != PAD)
        counts[said] += 1
        assert total == pytest.approx(np.log(exact[said]), abs=1e-3)
    for said, probability in exact.items():
        bound = 5 * np.sqrt(count * probability * (1 - probability)) + 1e-6
        assert abs(counts[said] - count * probability) <= bound


def test_a_member_with_non_finite_logits_spoils_its_images_alone(two):
    members, features = two
    spoilt = tuple(of.copy() for of in features)
    spoilt[1][0] = np.nan
    fine, found = (build_decoder(Ensemble(members), T)(of) for of in (features, spoilt))
    assert found.tokens[0, 0].tolist() == [END, PAD, PAD] and np.isnan(found.log_prob[0, 0])
    np.testing.assert_array_equal(found.tokens[1], fine.tokens[1])


def test_other_sizes_of_vocabulary_are_refused():
    captioner = make_toy()[0]
    other = CAPTIONERS["lstm"](vocabulary_size=8, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    with pytest.raises(ValueError, match=r"one vocabulary; theirs have \[7, 8\] tokens"):
        Ensemble([captioner, other])


def test_it_stays_on_the_device(two):
    members, features = two

    @tf.function(autograph=False)
    def search(*features):
        return DECODERS["beam"](*Ensemble(members).begin(features), T, Decoder("beam", 3), False, None)

    assert host_only(search.get_concrete_function(*map(tf.constant, features))) == set()
