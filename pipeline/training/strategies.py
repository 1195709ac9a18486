"""Which devices and machines train together: the strategies of tf.distribute behind --strategy.

A strategy is made once in a process: a second one of the same devices would take the first one's messages for its own.
"""

import contextlib
import functools
import json
import os
import pkgutil
import signal
import threading
from collections.abc import Iterator

import tensorflow as tf

from spidercap.pipeline.errors import STOPPING, UserError
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.training_groups import STRATEGIES
from spidercap.pipeline.training import replicas, waiting
from spidercap.pipeline.workers import ALONE, Workers

JOBS = ("chief", "worker")
PORTS = 12_000, 20_000  # the first port of SLURM's jobs and their number, below those that systems give by chance
EXAMPLE = """TF_CONFIG='{"cluster": {"worker": ["a:12345", "b:12345"]}, "task": {"type": "worker", "index": 0}}'"""


@functools.cache
def mirrored() -> tf.distribute.Strategy:
    """Returns the strategy of all GPUs of this machine; without one, of its CPU."""
    return tf.distribute.MirroredStrategy()


@functools.cache
def multiworker() -> tf.distribute.Strategy:
    """Returns the strategy of all workers of TF_CONFIG or of SLURM; waits until all have come.

    It must be made before TensorFlow runs anything.

    Raises:
      UserError: neither tells of workers, or what they tell cannot be used.
    """
    resolver = cluster()
    with _waiting_for(resolver.cluster_spec()):
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--strategy=multiworker cannot begin: {str(error).strip().splitlines()[0]}; check that the ports of "
                "TF_CONFIG or of SLURM's nodes are free, and can be reached"
            ) from error


def cluster() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Returns the workers that TF_CONFIG tells of, else those of SLURM; raises UserError without or for bad ones."""
    if os.environ.get("TF_CONFIG"):
        return _of_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_PROCID" not in os.environ:
        raise UserError(
            "--strategy=multiworker needs to know the workers: set TF_CONFIG on each, or start them by SLURM's srun; "
            f"for example {EXAMPLE}"
        )
    first, count = PORTS
    port = first + int(os.environ.get("SLURM_JOB_ID", 0)) % count
    try:
        # SLURM gives each task its GPUs; the resolver would count them, and fails where a task sees only its own.
        given = {"gpus_per_node": 2**16, "gpus_per_task": 1, "auto_set_gpu": False}
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(port_base=port, **given)
        resolver.cluster_spec()  # which also finds the place of this process
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"--strategy=multiworker: SLURM's variables cannot be used ({error}); start by srun") from error
    return resolver


def workers_of(config: Config) -> Workers:
    """Returns the processes that train together; waits until all of them have come."""
    if config.run.mode != "train" or config.training.strategy != "multiworker":
        return ALONE
    return _workers()


def scope_of(name: str) -> contextlib.AbstractContextManager:
    """Returns the block in which models, optimizers and steps are made, and steps are run."""
    make = STRATEGIES[name]
    return pkgutil.resolve_name(make)().scope() if make else contextlib.nullcontext()


def check_batch(batch_size: int, workers: Workers = ALONE) -> None:
    """Tells how many devices train; raises UserError if a device would have nothing to do."""
    if not tf.distribute.has_strategy():
        return
    count = replicas.parts().count
    if batch_size < count:
        raise UserError(
            f"--batch_size={batch_size} is less than the {count} devices that train together; raise it, or give "
            "--strategy=one"
        )
    if workers.is_chief:
        where = f"{count} of {workers.count} workers" if workers.count > 1 else f"{count}"
        each = f"{batch_size // count}{f' or {batch_size // count + 1}' if batch_size % count else ''}"
        print(f"devices: {where}, each with {each} of the {batch_size} images or captions of a batch", flush=True)


@functools.cache  # as is its strategy
def _workers() -> Workers:
    return Workers(multiworker())


def _of_tf_config(text: str) -> tf.distribute.cluster_resolver.ClusterResolver:
    try:
        known = json.loads(text)
        spec, task = tf.train.ClusterSpec(known["cluster"]), known["task"]
        job, number = task["type"], int(task["index"])
        tasks = {one: list(spec.task_indices(one)) for one in spec.jobs}
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"TF_CONFIG cannot be read ({why}); for example {EXAMPLE}") from error
    addresses = [address for one in spec.jobs for address in spec.job_tasks(one)]
    if len(set(addresses)) < len(addresses):
        twice = next(address for address in addresses if addresses.count(address) > 1)
        raise UserError(f"TF_CONFIG has the address {twice} twice; give each worker its own")
    if not set(tasks) <= set(JOBS) or number not in tasks.get(job, ()):
        listed = ", ".join(f"{one} {i}" for one, of_job in tasks.items() for i in of_job)
        raise UserError(
            f"TF_CONFIG: the task {job} {number} cannot train with {listed}; allowed are jobs named "
            f"{' and '.join(JOBS)}, and a task that is one of them; for example {EXAMPLE}"
        )
    return tf.distribute.cluster_resolver.SimpleClusterResolver(spec, task_type=job, task_id=number, rpc_layer="grpc")


@contextlib.contextmanager
def _waiting_for(cluster: tf.train.ClusterSpec) -> Iterator[None]:
    """Tells now and then who is waited for, and lets a signal end the wait: TensorFlow does not return to Python."""
    addresses = ", ".join(address for job in cluster.jobs for address in cluster.job_tasks(job))
    in_main = threading.current_thread() is threading.main_thread()  # the only one that may set them
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOPPING if in_main}
    try:
        with waiting.told(addresses):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
