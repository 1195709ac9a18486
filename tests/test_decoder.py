"""A decoder is one row of a table, and settings that make no sense are rejected when it is made."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import decoding
from spidercap.models.beam import beam_search
from spidercap.models.decoder import DECODERS, Decoder
from spidercap.pipeline.settings import config


def test_names_are_those_of_the_setting():
    assert tuple(DECODERS) == config.DECODERS


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
    ],
)
def test_what_makes_no_sense_is_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoder(**settings)


def test_each_decoder_is_the_search_of_its_name(toy):
    captioner, _, features = toy
    features = tf.constant(features)
    step, state = captioner.make_step(), captioner.initial_state(features)
    tokens, log_prob = decoding.greedy(step, state, 4)
    found = Decoder().captions(captioner, features, 4)
    np.testing.assert_array_equal(found.tokens, tokens[:, None])
    np.testing.assert_array_equal(found.log_prob, log_prob[:, None])
    beams = beam_search(step, state, 4, width=3, n_best=2)
    found = Decoder("beam", beam_width=3, n_best=2).captions(captioner, features, 4)
    np.testing.assert_array_equal(found.tokens, beams.tokens[:, :2])
    np.testing.assert_array_equal(found.log_prob, beams.log_prob[:, :2])
