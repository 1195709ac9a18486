"""How streams of tf.data are read, and work is done ahead of its reader, so that both can be left at any moment."""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tensorflow as tf

# Calls at once of what is computed in parallel: the cores that this process may use, where the system tells.
CALLS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Item, Result = TypeVar("Item"), TypeVar("Result")


def untuned(stream: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the stream without the thread that tunes it.

    An iterator waits for that thread when it is deleted, up to a minute and in some cases only (TensorFlow 2.21): a run
    that was stopped would stand still. Nothing is left for it to do where the numbers of calls and of elements to
    prefetch are given.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = CALLS, count: int = 128
) -> Iterator[Result]:
    """Yields work(item) for each item, in order; threads work on up to `count` items that were not asked for yet.

    If the caller stops, items that have not begun are dropped. Errors come in the place of their item.
    """
    items = iter(items)
    # The first one alone, so that threads do not trace the same functions all at once.
    for first in itertools.islice(items, 1):
        yield work(first)
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    failure: Exception | None = None
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        while not failure:
            try:
                waiting.append(pool.submit(work, next(items)))
            except StopIteration:
                break
            except Exception as error:  # of the items; what was begun comes first
                failure = error
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)
