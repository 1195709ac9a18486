"""Diverse beam search: a slow search over lists, written from the equation, and what follows from its limits."""

import collections
import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.export.server import Server
from spidercap.models.beam import beam_search
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.decoder import Decoder
from spidercap.models.special_tokens import END, PAD, SPECIAL_TOKENS, START
from spidercap.pipeline.evaluation.evaluate import build_decoder
from tests.test_beam import captions, random_model
from tests.test_gpu_ready import host_only

T = 5


def plain_diverse_search(step, state, max_length, width, groups, diversity, penalty=0.0):
    """One image, in lists, after Vijayakumar et al. 2018, algorithm 1. Returns [(score, log_prob, words)], best first.

    At each step, group after group takes the continuations with the largest Theta(y) - lambda * (how often earlier
    groups took the word at this step).
    """
    size = width // groups
    live = [[(0.0, [], state)] for _ in range(groups)]
    ended = [[] for _ in range(groups)]
    for t in range(max_length):
        taken = collections.Counter()
        for g in range(groups):
            ranked = []
            for theta, said, before in live[g]:
                after, logits = step(before, tf.constant([said[-1] if said else START]))
                log_probs = tf.nn.log_softmax(logits)[0].numpy()
                for word, log_prob in enumerate(log_probs):
                    if log_prob > -1e8:
                        cost = diversity * taken[word]
                        ranked.append((theta + log_prob - cost, theta + log_prob, [*said, word], after))
            ranked.sort(key=lambda candidate: -candidate[0])
            over = [(lp, said) for _, lp, said, _ in ranked[:size] if said[-1] == END]
            ended[g] += [(lp / (t + 1) ** penalty, lp, said) for lp, said in over]
            live[g] = [candidate[1:] for candidate in ranked if candidate[2][-1] != END][:size]
            taken.update([said[-1] for _, said in over] + [said[-1] for _, said, _ in live[g]])
    found = {}
    for of_group, open_ones in zip(ended, live, strict=True):
        cut = [(lp / max_length**penalty, lp, said) for lp, said, _ in open_ones]
        best = sorted(of_group + cut, key=lambda one: -one[0])[:size]
        found |= {tuple(said): (score, lp, said) for score, lp, said in best}
    return sorted(found.values(), key=lambda one: -one[0])


def assert_same(beams, image, expected, n_best):
    """The n best captions of an image are those expected, with log-probabilities and scores."""
    expected = expected[:n_best]
    assert captions(beams, image)[: len(expected)] == [said for _, _, said in expected]
    for found, column in ((beams.score, 0), (beams.log_prob, 1)):
        np.testing.assert_allclose(found[image, : len(expected)], [one[column] for one in expected], atol=1e-4)


@pytest.mark.parametrize(
    ("toy", "width", "groups"),
    [
        # An LSTM at three widths and each other captioner at one; the other pairs are in `make test-long`.
        pytest.param(kind, *size, marks=[pytest.mark.long] * (size != (4, 2) and (kind != "lstm" or size[0] == 6)))
        for kind in CAPTIONERS
        for size in ((2, 2), (3, 3), (4, 2), (6, 2), (6, 3))
    ],
    indirect=["toy"],
)
def test_same_as_a_plain_search(toy, width, groups):
    captioner, _, features = toy
    for diversity in (0.0, 0.5, 3.0):
        found = [
            beam_search(
                *captioner.begin(tf.constant(features)), T, width=width, groups=groups, diversity=diversity, n_best=n
            )
            for n in (width, 1)
        ]
        for i in range(2):
            step, state = captioner.begin(tf.constant(features[i : i + 1]))
            expected = plain_diverse_search(step, state, T, width, groups, diversity)
            assert_same(found[0], i, expected, width)
            assert_same(found[1], i, expected, 1)  # which stops earlier
            assert captions(found[0], i)[len(expected) :] == [[]] * (width - len(expected))


@pytest.mark.parametrize("penalty", [0.0, 0.8])
def test_many_models_and_any_n_best(penalty):
    """A group goes on for those after it, also when none of its own can become one of the n best."""
    images, length, width, groups, diversity = 4, 6, 6, 3, 0.7
    differ = 0
    for seed in range(3):
        step, state = random_model(seed, images)
        settings = {"width": width, "groups": groups, "diversity": diversity, "length_penalty": penalty}
        found = {n: beam_search(step, state, length, n_best=n, **settings) for n in (1, 2, 4, 6)}
        plain = beam_search(step, state, length, width=width, n_best=width, length_penalty=penalty)
        for i in range(images):
            one = tf.nest.map_structure(lambda x, i=i: x[i : i + 1], state)
            expected = plain_diverse_search(step, one, length, width, groups, diversity, penalty)
            for n, beams in found.items():
                assert_same(beams, i, expected, n)
            differ += captions(plain, i) != captions(found[6], i)
    assert differ > images  # or nothing was tried


@pytest.mark.parametrize("diversity", [0.0, 2.0])
def test_one_group_is_plain_beam_search(toy, diversity):
    captioner, _, features = toy
    settings = {"width": 4, "n_best": 4, "no_repeat_ngram": 2, "bad_endings": (4,), "length_penalty": 0.5}
    plain = beam_search(*captioner.begin(tf.constant(features)), T, **settings)
    found = beam_search(*captioner.begin(tf.constant(features)), T, groups=1, diversity=diversity, **settings)
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_a_penalty_all_groups_find_the_same_and_it_is_returned_once(toy):
    captioner, _, features = toy
    small = beam_search(*captioner.begin(tf.constant(features)), T, width=2, n_best=2)
    found = beam_search(*captioner.begin(tf.constant(features)), T, width=6, groups=3, diversity=0.0, n_best=6)
    for image in range(2):
        assert captions(found, image) == [*captions(small, image), *[[]] * 4]
    assert np.isneginf(found.log_prob[:, 2:]).all()


def test_a_large_penalty_gives_each_group_words_of_its_own():
    step, state = random_model(0, 3)
    found = beam_search(step, state, 4, width=4, groups=4, diversity=100.0, n_best=4)
    for image in range(3):
        first = [said[0] for said in captions(found, image)]
        assert len(first) == len(set(first)) == 4


def test_it_is_a_decoder_with_log_probabilities_of_the_model(toy):
    """By the table of decoders, batch by batch as evaluation does."""
    captioner, _, features = toy
    decoder = Decoder("diverse_beam", 4, beam_groups=4, diversity=0.9, n_best=3)
    found = build_decoder(captioner, T, decoder)(features)
    assert found.tokens.shape == (2, 3, T)
    for i in range(2):
        step, state = captioner.begin(tf.constant(features[i : i + 1]))
        for row, log_prob in zip(found.tokens[i], found.log_prob[i], strict=True):
            said, total, at = [int(w) for w in row if w != PAD], 0.0, state
            for before, word in zip([START, *said], said, strict=False):
                at, logits = step(at, tf.constant([before]))
                total += float(tf.nn.log_softmax(logits)[0, word])
            assert log_prob == pytest.approx(total, abs=1e-4) or not said


def test_the_exported_graph_searches_alike_and_beam_stays_beam(toy):
    captioner, _, features = toy
    words = (*SPECIAL_TOKENS, "a", "b", "c")
    decoder = Decoder("diverse_beam", 4, beam_groups=2, diversity=0.9, n_best=4)
    served = Server(None, captioner, words, T, decoder, max_pixels=1).served()["features"](tf.constant(features))
    found = decoder.captions(captioner, tf.constant(features), T)
    for texts, rows in zip(served["captions"].numpy(), found.tokens.numpy(), strict=True):
        assert [text.decode() for text in texts] == [
            " ".join(words[w] for w in row if w not in (PAD, END)) for row in rows
        ]
    np.testing.assert_allclose(served["log_probs"], np.maximum(found.log_prob, -1e9), atol=1e-4)


def test_it_compiles_once_and_stays_on_the_device(toy):
    captioner, _, _ = toy

    @tf.function(input_signature=[tf.TensorSpec([None, 3])], autograph=False)
    def search(features):
        return beam_search(*captioner.begin(features), T, width=6, groups=3, diversity=0.5, n_best=6)

    function = search.get_concrete_function()
    assert host_only(function) == set()
    assert search(tf.zeros([0, 3])).tokens.shape == (0, 6, T)


def test_the_line_of_other_decoders_stays_as_it_was():
    """Or models that were exported before would seem to have other settings."""
    assert not {"beam_groups", "diversity"} & json.loads(Decoder("beam", 4).to_json()).keys()
    line = json.loads(Decoder("diverse_beam", 4, beam_groups=2, diversity=0.3).to_json())
    assert (line["beam_groups"], line["diversity"]) == (2, 0.3) and "top_k" not in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_groups": 0}, "beam_groups=0 must divide beam_width=4"),
        ({"beam_groups": 3}, "beam_groups=3 must divide beam_width=4"),
        ({"diversity": -0.1}, "diversity=-0.1 must be at least 0"),
        ({"diversity": float("nan")}, "diversity=nan must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoder("diverse_beam", 4, **settings)
