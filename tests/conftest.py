"""What several tests share: a captioner small enough to enumerate, and the real data where they are."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest

from models.baseline import Baseline
from models.captioner import Captioner

ROOT = pathlib.Path(__file__).parents[1]
DATA = pathlib.Path(os.environ.get("SPIDERCAP_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture
def data_folder():
    """The folder of real captions and photographs; tests that ask for it skip without."""
    if not DATA.is_dir():
        pytest.skip(f"real data not found at {DATA}; set SPIDERCAP_DATA to a folder with coco/ and flickr8k/")
    return DATA


@pytest.fixture
def toy():
    """(captioner, baseline, features [2, 3]): V = 7, of which the end and three words can be said; weights not flat."""
    keras.utils.set_random_seed(3)
    captioner = Captioner(vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    rng = np.random.default_rng(5)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    baseline = Baseline(5, 6)
    return captioner, baseline, rng.normal(0, 1, (2, 3)).astype(np.float32)
