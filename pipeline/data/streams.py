"""How streams of tf.data are read, so that they can be left at any moment."""

import os

import tensorflow as tf

# Calls at once of what is computed in parallel: the cores that this process may use, where the system tells.
CALLS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def untuned(stream: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the stream without the thread that tunes it.

    An iterator waits for that thread when it is deleted, up to a minute and in some cases only (TensorFlow 2.21): a run
    that was stopped would stand still. Nothing is left for it to do where the numbers of calls and of elements to
    prefetch are given.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)
