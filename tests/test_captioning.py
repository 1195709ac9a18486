"""What --mode=caption writes, and which features it refuses."""

import json

import numpy as np
import pytest

from spidercap.pipeline.captioning import _show, caption_given
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config

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


def test_features_of_another_size_are_refused_before_a_model_is_made(tmp_path):
    path = tmp_path / "given.npz"
    np.savez(path, **{f"{i}.jpg": np.zeros([2, 6], np.float32) for i in range(3)})
    config = Config.of(mode="caption", workdir=str(tmp_path), dataset="files", features=str(path), captions="")
    with pytest.raises(UserError, match=r"given.npz holds features of size 6, .* trained on those of size 8; give"):
        caption_given(config, 8, lambda: pytest.fail("a model was made"))


@pytest.mark.parametrize("name", ["captions.json", "captions.beam3", "captions"])
def test_the_file_of_all_captions_has_a_name_of_its_own(tmp_path, name):
    _show(TWO, IDS, str(tmp_path / name))
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name.removesuffix('.json')}.n_best.json"}
