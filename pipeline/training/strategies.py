"""Which devices train together: the strategies of tf.distribute behind --strategy.

A strategy is made once in a process: a second one of the same devices would take the first one's messages for its own.
"""

import contextlib
import functools
import pkgutil

import tensorflow as tf

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.training_groups import STRATEGIES
from spidercap.pipeline.training import replicas


@functools.cache
def mirrored() -> tf.distribute.Strategy:
    """Returns the strategy of all GPUs of this machine; without one, of its CPU."""
    return tf.distribute.MirroredStrategy()


def scope_of(name: str) -> contextlib.AbstractContextManager:
    """Returns the block in which models, optimizers and steps are made, and steps are run."""
    make = STRATEGIES[name]
    return pkgutil.resolve_name(make)().scope() if make else contextlib.nullcontext()


def check_batch(batch_size: int) -> None:
    """Tells how many devices train; raises UserError if a device would have nothing to do."""
    if not tf.distribute.has_strategy():
        return
    count = replicas.parts().count
    if batch_size < count:
        raise UserError(
            f"--batch_size={batch_size} is less than the {count} devices that train together; raise it, or give "
            "--strategy=one"
        )
    print(f"devices: {count}, each with {batch_size / count:g} of the {batch_size} rows of a batch", flush=True)
