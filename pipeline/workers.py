"""What the processes of one run tell each other, between the steps of training.

The chief is the first of them: it alone writes the workdir, except for features. All workers call the same methods in
the same order, as each of them waits for all.

Shapes: W workers.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from spidercap.pipeline.errors import UserError

# How TensorFlow's errors call a worker, and what they say if one is gone.
_TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")
_GONE = ("Collective ops is aborted", "CoordinationService")


class Workers:
    """The processes that train together, of which this is one."""

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        """Takes the strategy of a cluster; None: this process is alone."""
        self._strategy = strategy
        resolver = strategy.cluster_resolver if strategy else None
        self._tasks = _tasks(resolver.cluster_spec()) if resolver else {}
        self.count = max(1, len(self._tasks))
        self.number = list(self._tasks).index((resolver.task_type, resolver.task_id)) if self._tasks else 0
        if self.count > 1:
            self._summed = tf.function(self._sum_of, input_signature=[tf.TensorSpec([None], tf.float64)])

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the workdir."""
        return self.number == 0

    def name(self, number: int | None = None) -> str:
        """Returns the name of a worker for messages, by default of this one."""
        number = self.number if number is None else number
        return f"worker {number} ({list(self._tasks.values())[number]})"

    def total(self, numbers: np.ndarray | Sequence[float]) -> np.ndarray:
        """Returns the sums of float64 `[n]` over all workers; n is the same on all."""
        numbers = np.asarray(numbers, np.float64)
        # TensorFlow 2.21 crashes on a sum of nothing.
        return self._summed(tf.constant(numbers)).numpy() if self.count > 1 and len(numbers) else numbers

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows `[n, ...]` of all workers, one after the other `[W * n, ...]`; n is the same on all."""
        if self.count == 1:
            return rows
        # Each worker has zeros in the place of the others, so that the sum holds all.
        places = np.zeros([self.count, rows.size])
        places[self.number] = rows.reshape(-1)
        return self.total(places.reshape(-1)).reshape(-1, *rows.shape[1:]).astype(rows.dtype)

    def from_chief(self, text: str) -> str:
        """Returns the chief's text on all workers; that of the others is not read."""
        if self.count == 1:
            return text
        own = np.frombuffer(text.encode() if self.is_chief else b"", np.uint8)
        (size,) = self.total([len(own)])
        sent = self.total(own if self.is_chief else np.zeros(int(size)))
        return sent.astype(np.uint8).tobytes().decode()

    def which(self, has_fault: bool) -> str:
        """Returns the names of the workers that have a fault; '' if none has."""
        return ", ".join(self.name(int(number)) for number in np.flatnonzero(self.gathered(np.array([has_fault]))))

    def wait(self) -> None:
        """Returns when all workers have called it."""
        self.total([0.0])

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Runs the block on the chief, then on all others, which find what it wrote and print nothing.

        No variables of the strategy may be made in it, because all workers make them together.
        """
        if self.is_chief:
            yield
            self.wait()
            return
        self.wait()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield

    @contextlib.contextmanager
    def named_if_gone(self) -> Iterator[None]:
        """Within the block, a worker that has ended or hangs is a UserError that names it, on all others.

        TensorFlow's coordination service sees it after ten seconds.
        """
        try:
            yield
        except tf.errors.OpError as error:
            # Messages that do not fit each other are a mistake of this program, not of a worker.
            is_internal = isinstance(error, tf.errors.InternalError)
            if self.count == 1 or is_internal or not any(sign in error.message for sign in _GONE):
                raise
            raise UserError(
                f"{self._gone(error.message)} has ended or hangs, so the others stopped, too; its own output tells "
                "why; then run the same command again on all: it resumes from the last checkpoint"
            ) from error

    def _gone(self, message: str) -> str:
        """The worker that an error is about."""
        tasks = [(job, int(number)) for job, number in _TASK.findall(message)]
        # The first worker leads the coordination service: of its end there may be no more than a broken connection.
        numbers = {list(self._tasks).index(task) for task in tasks if task in self._tasks} - {self.number} or {0}
        return " and ".join(self.name(number) for number in sorted(numbers))

    def _sum_of(self, numbers: tf.Tensor) -> tf.Tensor:
        def summed(own: tf.Tensor) -> tf.Tensor:
            # The replicas of a worker have the same numbers; those of its first one count.
            context = tf.distribute.get_replica_context()
            counts = context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.count) == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(counts, own, tf.zeros_like(own)))

        return self._strategy.experimental_local_results(self._strategy.run(summed, args=(numbers,)))[0]


ALONE = Workers()


def _tasks(cluster: tf.train.ClusterSpec) -> dict[tuple[str, int], str]:
    """Address by job and number, in the order of the workers."""
    jobs = ("chief", "worker")
    return {
        (job, i): cluster.task_address(job, i) for job in jobs if job in cluster.jobs for i in cluster.task_indices(job)
    }
