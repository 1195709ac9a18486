"""Streams of tf.data can be left at any moment: none has the thread that their deletion may wait for."""

import itertools
import pathlib
import re
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data.batches import TrainingArrays, caption_batches, image_batches
from spidercap.pipeline.data.feature_store import Features
from spidercap.pipeline.data.files_source import ImageFiles
from spidercap.pipeline.data.streams import CALLS, ahead

ROOT = pathlib.Path(__file__).parents[1]


def arrays():
    tokens = np.full([3, 5], 4, np.int32)
    return TrainingArrays(np.zeros([3, 1, 2], np.float32), tokens, np.arange(3, dtype=np.int32), tokens[:, None])


def images():
    return ImageFiles(("a.jpg", "b.jpg")).encoded(range(2))


STREAMS = {
    "captions": lambda: caption_batches(arrays(), 2, 0, 4, (1, 2)),
    "images": lambda: image_batches(arrays(), 2, 0, 4, (1, 2), with_captions=True),
    "files": images,
}


@pytest.mark.parametrize("name", STREAMS)
def test_no_thread_tunes_it(name):
    assert STREAMS[name]().options().autotune.enabled is False


@pytest.mark.skipif(CALLS == 1, reason="one core")
def test_batches_are_read_at_once_and_come_in_order(monkeypatch):
    """Without tuning a map has the number of calls that it is given, by default one."""
    inside, most, lock = 0, 0, threading.Lock()

    def slow(self, images, views):
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        time.sleep(0.05)
        with lock:
            inside -= 1
        return np.zeros([len(images), 2], np.float32)

    expected = [batch.image_index.numpy() for batch in caption_batches(arrays(), 2, 0, 9, (1, 2))]
    monkeypatch.setattr(Features, "gather", slow)
    found = [batch.image_index.numpy() for batch in caption_batches(arrays(), 2, 0, 9, (1, 2))]
    np.testing.assert_array_equal(found, expected)
    assert most > 1


def test_every_stream_of_the_pipeline_is_untuned():
    """Where a stream is made or read, its module knows of `untuned`, and nothing is left to tuning."""
    made = re.compile(r"tf\.data\.(Dataset|TFRecordDataset)[.(]|as_dataset\(")
    sources = {path: path.read_text() for path in (ROOT / "pipeline").rglob("*.py")}
    of_streams = [path for path, text in sources.items() if made.search(text)]
    assert len(of_streams) >= 4
    assert not [path for path in of_streams if "untuned(" not in sources[path]]
    assert not [path for path, text in sources.items() if "tf.data.AUTOTUNE" in text]


def test_a_stream_with_tuning_would_be_seen():
    assert tf.data.Dataset.range(3).options().autotune.enabled is not False


def test_work_ahead_comes_in_order_and_is_bounded():
    """Of endless items no more than asked for are begun, and those that threads end first wait for their turn."""
    begun, slow = [], threading.Event()

    def work(item):
        if item == 1:
            assert slow.wait(10)
        if item == 4:
            slow.set()
        return -item

    results = ahead(work, (begun.append(i) or i for i in itertools.count()), threads=4, count=6)
    assert [next(results) for _ in range(3)] == [0, -1, -2]
    assert len(begun) == 3 + 6
    results.close()


def test_work_ahead_ends_with_its_reader():
    before, done = threading.active_count(), []
    results = ahead(lambda i: done.append(i) or time.sleep(0.01), range(1000), threads=2, count=50)
    next(results)
    next(results)
    assert threading.active_count() == before + 2
    results.close()
    assert threading.active_count() == before
    assert len(done) < 20


def test_an_error_comes_in_its_place():
    def work(item):
        return 1 // item

    results = ahead(work, [1, -1, 0, 1], threads=2)
    assert [next(results), next(results)] == [1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_error_of_the_items_comes_after_what_was_begun():
    def items():
        yield from range(5)
        raise OSError("lost")

    results = ahead(lambda i: -i, items(), threads=2, count=50)
    assert [next(results) for _ in range(5)] == [0, -1, -2, -3, -4]
    with pytest.raises(OSError, match="lost"):
        next(results)
