"""What --mode=caption writes, and which features it refuses."""

import json
import types

import numpy as np
import pytest

from spidercap.pipeline import captioning
from spidercap.pipeline.captioning import _of_features, _show
from spidercap.pipeline.data.given_features import open_features
from spidercap.pipeline.errors import UserError

ONE = [("a.jpg", [("a dog", -1.5)]), ("b.jpg", [("a cat", -0.5)])]
TWO = [("a.jpg", [("a dog", -1.5), ("dogs", -2.0)]), ("b.jpg", [("a cat", -0.5)])]
IDS = {"a.jpg": 7, "b.jpg": "b"}


def test_all_captions_are_written_beside_the_best_ones(tmp_path, capsys):
    output = tmp_path / "results.json"
    _show(TWO, IDS, str(output))
    assert json.loads(output.read_text()) == [
        {"image_id": 7, "caption": "a dog"},
        {"image_id": "b", "caption": "a cat"},
    ]
    first = {"caption": "a dog", "log_prob": -1.5}, {"caption": "dogs", "log_prob": -2.0}
    beside = tmp_path / "results.n_best.json"
    assert json.loads(beside.read_text()) == [
        {"image_id": 7, "captions": [*first]},
        {"image_id": "b", "captions": [{"caption": "a cat", "log_prob": -0.5}]},
    ]
    assert str(beside) in capsys.readouterr().out
    _show(ONE, IDS, str(output))
    assert not beside.exists()  # they would be those of an earlier command


def test_captions_are_shown_without_a_file(capsys):
    _show(TWO, IDS, "")
    assert capsys.readouterr().out.count("log-probability") == 3


def test_features_of_another_size_are_refused_before_they_are_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "given.npz", **{f"{i}.jpg": np.zeros([2, 6], np.float32) for i in range(3)})
    captioner = types.SimpleNamespace(feature_size=8, takes_parts=True)
    monkeypatch.setattr(captioning, "as_stored", None)
    message = r"given.npz holds features of size 6, .* trained on those of size 8; give"
    with open_features(str(tmp_path / "given.npz")) as given, pytest.raises(UserError, match=message):
        list(_of_features(captioner, given, 0))
