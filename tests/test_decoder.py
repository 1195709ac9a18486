"""A decoder is one row of a table, and settings that make no sense are rejected when it is made."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding, sampling
from spidercap.models.beam import beam_search
from spidercap.models.categorical import draw
from spidercap.models.decoder import DECODERS, Captions, Decoder
from spidercap.models.special_tokens import END
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import build_decoder, decoder_of
from spidercap.pipeline.settings.config import Config


def test_a_toy_decoder_is_one_row(toy, monkeypatch):
    def ends_at_once(step, state, max_length, settings, jit, uniform):
        images = tf.shape(state[0])[0]
        tokens = tf.pad(tf.fill([images, 1, 1], END), [[0, 0], [0, 0], [0, max_length - 1]])
        return Captions(tokens, tf.zeros([images, 1]))

    with pytest.raises(UserError, match="--decode: unknown 'toy'; allowed: greedy, beam"):
        Config.of(workdir="w", decode="toy")
    monkeypatch.setitem(DECODERS, "toy", ends_at_once)
    captioner, _, features = toy
    decoder = decoder_of(Config.of(workdir="w", decode="toy"), ())
    tokens = build_decoder(captioner, 4, decoder)(features).tokens
    np.testing.assert_array_equal(tokens, [[[END, 0, 0, 0]]] * 2)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"decode": "gready"}, r"decode='gready' is unknown; allowed: greedy, beam"),
        ({"decode": ""}, r"decode='' is unknown; allowed: greedy, beam"),
        ({"decode": "beam", "beam_width": 0}, r"beam_width=0 must be at least 1"),
        ({"decode": "beam", "beam_width": -3}, r"beam_width=-3 must be at least 1"),
        ({"decode": "beam", "length_penalty": -0.5}, r"length_penalty=-0.5 must be at least 0"),
        ({"decode": "beam", "length_penalty": float("nan")}, r"length_penalty=nan must be at least 0"),
        ({"decode": "beam", "no_repeat_ngram": -1}, r"no_repeat_ngram=-1 must be at least 0"),
        ({"decode": "beam", "beam_width": 3, "n_best": 0}, r"n_best=0 must be in 1\.\.3"),
        ({"decode": "beam", "beam_width": 3, "n_best": 4}, r"n_best=4 must be in 1\.\.3, .* beam_width=3"),
        ({"beam_width": 3, "n_best": 2}, r"n_best=2 must be in 1\.\.1, .* decode='greedy'"),
        ({"decode": "sample", "n_best": 101}, r"n_best=101 must be in 1\.\.100"),
        ({"decode": "sample", "temperature": 0.0}, r"temperature=0.0 must be above 0 and finite"),
        ({"decode": "sample", "temperature": float("nan")}, r"temperature=nan must be above 0 and finite"),
        ({"decode": "sample", "temperature": float("inf")}, r"temperature=inf must be above 0 and finite"),
        ({"decode": "top_k", "top_k": 0}, r"top_k=0 must be at least 1"),
        ({"decode": "nucleus", "top_p": 0.0}, r"top_p=0.0 must be above 0, and at most 1"),
        ({"decode": "nucleus", "top_p": 1.5}, r"top_p=1.5 must be above 0, and at most 1"),
        ({"decode": "nucleus", "top_p": float("nan")}, r"top_p=nan must be above 0, and at most 1"),
    ],
)
def test_what_makes_no_sense_is_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoder(**settings)


def test_each_decoder_is_the_search_of_its_name(toy):
    captioner, _, features = toy
    features = tf.constant(features)
    step, state = captioner.begin(features)
    tokens, log_prob = decoding.greedy(step, state, 4)
    found = Decoder().captions(captioner, features, 4)
    np.testing.assert_array_equal(found.tokens, tokens[:, None])
    np.testing.assert_array_equal(found.log_prob, log_prob[:, None])
    beams = beam_search(step, state, 4, width=3, n_best=2)
    found = Decoder("beam", beam_width=3, n_best=2).captions(captioner, features, 4)
    np.testing.assert_array_equal(found.tokens, beams.tokens[:, :2])
    np.testing.assert_array_equal(found.log_prob, beams.log_prob[:, :2])
    uniform = sampling.uniforms(tf.constant([1, 2]), 2, 3, 4)
    for name, choose, settings in (
        ("sample", draw, {}),
        ("top_k", functools.partial(sampling.draw_top_k, k=2), {"top_k": 2}),
        ("nucleus", functools.partial(sampling.draw_nucleus, p=0.7), {"top_p": 0.7}),
    ):
        tokens, log_prob = sampling.sampled(step, state, 4, uniform, choose, temperature=0.8)
        found = Decoder(name, n_best=3, temperature=0.8, **settings).captions(captioner, features, 4, uniform)
        np.testing.assert_array_equal(found.tokens, tokens)
        np.testing.assert_array_equal(found.log_prob, log_prob)


def test_the_line_of_a_decoder_that_draws_nothing_has_no_settings_of_sampling():
    """Or models that were exported before would seem to have other settings."""
    settings = {"beam_width": 1, "length_penalty": 0.0, "no_repeat_ngram": 0, "bad_endings": [], "n_best": 1}
    assert json.loads(Decoder().to_json()) == {"decode": "greedy", **settings}
    of_sampling = {"temperature": 0.5, "top_k": 10, "top_p": 0.9}
    assert json.loads(Decoder("nucleus", temperature=0.5).to_json()) == {"decode": "nucleus", **settings, **of_sampling}
