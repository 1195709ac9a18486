"""SPICE-fast's counts are those that are stored: a number that was quoted stays what it was."""

import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.metrics.spice_fast.metric import TextSpiceFast
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser
from tests.conftest import GOLDEN
from tests.golden.make_spice_fast import captioned


@pytest.fixture(scope="module")
def parser():
    return load_parser()


def test_counts_are_those_that_are_stored(parser):
    candidates, references = captioned()
    expected = json.loads((GOLDEN / "spice_fast.json").read_text())
    assert len(expected) == len(candidates) > 300 and sum(matched for matched, *_ in expected) > 300
    np.testing.assert_array_equal(TextSpiceFast(parser).score(candidates, references), expected)


def test_captions_of_all_lengths_are_parsed_by_one_trace(monkeypatch):
    traces, tuples = [], type(load_parser())._tuples

    def counted(self, captions, tables):
        traces.append(captions.shape)
        return tuples(self, captions, tables)

    monkeypatch.setattr("spidercap.pipeline.metrics.spice_fast.parser.SceneGraphParser._tuples", counted)
    metric = TextSpiceFast(load_parser())
    assert [len(of) > 0 for of in metric.tuples(["a dog", "a dog " * 10, "a dog " * 40, ""])] == [True] * 3 + [False]
    assert metric.tuples(["two dogs run"]) and len(traces) == 1


def test_lengths_that_are_known_only_while_running_change_no_tuple(parser):
    lexicon = parser.lexicon(["", "a", "black", "dog", "runs", "through", "the", "grass"])
    captions = np.zeros([3, 30], np.int32)
    captions[0, :7], captions[1, :], captions[2, :2] = np.arange(1, 8), 3, (1, 3)
    known = tf.function(parser.__call__, autograph=False)(tf.constant(captions), lexicon.tables)
    unknown = tf.function(lambda rows: parser(rows, lexicon.tables), autograph=False).get_concrete_function(
        tf.TensorSpec([None, None], tf.int32)
    )
    np.testing.assert_array_equal(unknown(tf.constant(captions)), known)
    assert unknown(tf.constant(captions[2:, :2])).shape == (1, 24, 4) and known[0].numpy().any()
