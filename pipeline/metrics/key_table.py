"""Tables of int64 keys that are looked up in a graph, each in one of two places: cuckoo hashing.

Pagh, Rodler, "Cuckoo hashing" (Journal of Algorithms 51, 2004). Whole keys are compared, so that only the place depends
on the hash. Settling millions of keys takes seconds, so it is apart from looking them up, and can be kept in the cache.
"""

import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spidercap.pipeline.metrics.mapped import as_tensor


class Settled(NamedTuple):
    """A fixed set of G distinct keys in their places."""

    slots: np.ndarray  # int64 [S], the key in each place, or -1
    factors: np.ndarray  # int64 [2], of the two hashes
    places: np.ndarray  # int64 [G], below S, in the order of the given keys


def settled(keys: np.ndarray) -> Settled:
    """Returns distinct keys int64 `[G]`, 0 or more, in their places."""
    least = max(int(len(keys) / 0.45), 1).bit_length()
    for attempt in itertools.count():
        bits = least + attempt // 8
        factors = np.random.default_rng(attempt).integers(2**61, 2**63, 2) | 1
        narrow = np.int32 if bits < 31 else np.int64  # half the memory, of tens of millions of keys
        homes = np.stack([_place(keys, factor, bits).astype(narrow) for factor in factors])
        places = _distinct_homes(homes, 1 << bits)
        if places is not None:
            break
    slots = np.full(1 << bits, -1, np.int64)
    slots[places] = keys
    return Settled(slots, factors, places.astype(np.int64))


class KeyTable:
    """Looks up keys in a graph."""

    def __init__(self, slots: np.ndarray, factors: np.ndarray):
        """Takes the arrays of Settled."""
        self._slots, self._factors = as_tensor(slots), np.array(factors)
        self.size = len(slots)

    def find(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns the places of int64 `keys` of any shape; `size` for keys that are not in the table."""
        found = tf.fill(tf.shape(keys), tf.constant(self.size, tf.int64))
        for factor in self._factors:
            place = _place(keys, factor, self.size.bit_length() - 1)
            found = tf.where(tf.gather(self._slots, place) == keys, place, found)
        return found


def _place(keys, factor: np.int64, bits: int):
    """The product's highest bits (multiplication wraps around), of NumPy or TensorFlow keys."""
    shift = tf.bitwise.right_shift if tf.is_tensor(keys) else np.right_shift
    return shift(keys * factor, np.int64(64 - bits)) + np.int64(1 << (bits - 1))


def _distinct_homes(homes: np.ndarray, size: int) -> np.ndarray | None:
    """Returns a distinct place `[G]` for each key, one of its two homes `[2, G]`; None if that seems impossible."""
    everyone = np.arange(homes.shape[1], dtype=homes.dtype)
    side, holder, moving = np.zeros(len(everyone), np.int8), np.full(size, -1, homes.dtype), everyone
    for _ in range(500):
        if not len(moving):
            return homes[side, everyone]
        place = homes[side[moving], moving]
        evicted = np.unique(holder[place])
        holder[place] = moving
        moving = np.concatenate([moving[holder[place] != moving], evicted[evicted >= 0]])
        side[moving] ^= 1
    return None
