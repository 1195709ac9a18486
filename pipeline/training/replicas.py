"""What the replicas of a training step tell each other, and how a function runs on all of them.

A replica is one device that trains on its rows of every batch. Sums over replicas stand where a step would sum over its
batch, so the step's update is that of the whole batch, whatever the number of replicas. With one replica there is
nothing to exchange, and the functions return what they are given.

Shapes: R replicas, k numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from spidercap.pipeline.data.batches import WHOLE, Parts
from spidercap.pipeline.training.ragged import ragged
from spidercap.pipeline.workers import Workers

SUM = tf.distribute.ReduceOp.SUM


def total(value: tf.Tensor) -> tf.Tensor:
    """Returns the sum of a tensor over all replicas; a constant to differentiation."""
    return _summed([tf.stop_gradient(value)])[0]


def count(mask: tf.Tensor) -> tf.Tensor:
    """Returns float32, how many of a mask are true on all replicas together."""
    return total(tf.reduce_sum(tf.cast(mask, tf.float32)))


def exchange(sums: Sequence[tf.Tensor], statistics: Any) -> tuple[list[tf.Tensor], Any]:
    """Returns the sums of tensors over all replicas, and the statistics of each one.

    Args:
      sums: tensors of the same shapes on every replica.
      statistics: a nest of scalars; None stays None.

    Returns:
      The sums, and the nest with float32 `[R]` in place of each scalar.
    """
    leaves = tf.nest.flatten(statistics)
    scalars = [tf.cast(leaf, tf.float32) for leaf in leaves if leaf is not None]
    context = tf.distribute.get_replica_context()
    # A row for each replica, in which the others have zeros: their sum holds all.
    mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
    own = tf.stack(scalars) if scalars else tf.zeros([0])
    *sums, rows = _summed([*sums, mine[:, None] * own])
    columns = iter(tf.unstack(rows, num=len(scalars), axis=1))
    return sums, tf.nest.pack_sequence_as(statistics, [None if leaf is None else next(columns) for leaf in leaves])


def gathered(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows `[n]` of all replicas, one after the other."""
    context = tf.distribute.get_replica_context()
    return rows if context.num_replicas_in_sync == 1 else context.all_gather(rows, axis=0)


def on_replicas(function: Callable, any_rows: bool = False) -> Callable:
    """Returns `function` compiled, to be called with values of each replica; it runs on all replicas at once.

    Args:
      function: what runs on a replica.
      any_rows: its tensors have other numbers of rows at each call.
    """
    if not tf.distribute.has_strategy():
        return ragged(function) if any_rows else tf.function(function, autograph=False)
    strategy = tf.distribute.get_strategy()

    def call(*args: Any) -> Any:
        return strategy.run(function, args=args)

    return tf.function(call, autograph=False, reduce_retracing=any_rows)


def parts() -> Parts:
    """Returns which parts of each batch the replicas of this process train on."""
    if not tf.distribute.has_strategy():
        return WHOLE
    strategy = tf.distribute.get_strategy()
    here = len(strategy.extended.worker_devices)
    return Parts(Workers(strategy).number * here, here, strategy.num_replicas_in_sync)


def batches(dataset: tf.data.Dataset) -> Iterator[Any]:
    """Yields what `on_replicas` takes: an element of the dataset for each replica of this process."""
    here, elements = parts().here, iter(dataset)
    for first in elements:
        yield of_each_local([first, *(next(elements) for _ in range(here - 1))])


def each_local(function: Callable[[Any], Any], values: Any) -> Any:
    """Returns what `function` returns for the values of every replica of this process, as values of each replica."""
    return of_each_local([function(one) for one in local(values)])


def local(values: Any) -> list[Any]:
    """Returns the values of each replica of this process, of a nest as `on_replicas` returns it."""
    if not tf.distribute.has_strategy():
        return [values]
    strategy, leaves = tf.distribute.get_strategy(), tf.nest.flatten(values)
    parts = [leaf if leaf is None else strategy.experimental_local_results(leaf) for leaf in leaves]
    count = max(len(part) for part in parts if part is not None)
    # A value that is one object on all replicas comes alone.
    parts = [[part] * count if part is None else part * (count // len(part)) for part in parts]
    return [tf.nest.pack_sequence_as(values, some) for some in zip(*parts, strict=True)]


def of_each_local(parts: Sequence[Any]) -> Any:
    """Returns nests of the replicas of this process, in their order, as one nest with a value of each replica."""
    if len(parts) == 1:
        return parts[0]
    strategy = tf.distribute.get_strategy()

    def join(*leaves: tf.Tensor) -> Any:
        of_replica = iter(leaves)
        return strategy.experimental_distribute_values_from_function(lambda context: next(of_replica))

    leaves = zip(*(tf.nest.flatten(part) for part in parts), strict=True)
    return tf.nest.pack_sequence_as(parts[0], [None if some[0] is None else join(*some) for some in leaves])


def _summed(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    context = tf.distribute.get_replica_context()
    return list(values) if context.num_replicas_in_sync == 1 else context.all_reduce(SUM, list(values))
