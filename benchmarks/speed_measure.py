"""One line of `benchmarks.speed`: its time, its share of the matrix products' rate, and its memory."""

import dataclasses
import gc
import resource
import statistics
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from benchmarks import timed
from benchmarks.speed_lines import Line
from benchmarks.speed_world import Setting, World

ROWS = 2048  # of the products whose rate is measured
BETWEEN = 0.2  # seconds of calls between two measurements of the rate
FEWEST_CALLS, MOST_CALLS = 3, 50
LONG = 15.0  # seconds of one line


@dataclasses.dataclass(frozen=True)
class Result:
    """Measurements of a line at a setting."""

    name: str
    value: float  # of the unit; the median of several calls
    low: float  # lower quartile of the same calls
    high: float
    unit: str
    matmul_share: float | None  # time of the bare products that are needed, divided by the time taken
    peak_mib: float | None  # of its tensors; None if TensorFlow's allocator does not count
    settings: dict[str, Any]

    def scaled(self, gflops: float) -> float:
        """Returns the value on a machine whose matrix products have that rate, if it is proportional to the rate."""
        return self.value * gflops / self.settings["matmul_gflops"]


class Yardstick:
    """The rate of the two matrix products of an LSTM's word-step alone."""

    def __init__(self, setting: Setting):
        """Builds products of ROWS rows, as many as a PG step has at once."""
        self._flops = ROWS * dataclasses.replace(setting, decoder="lstm").word_flops()
        shapes = [
            ([ROWS, setting.units], [setting.units, setting.vocabulary]),
            ([ROWS, 2 * setting.units], [2 * setting.units, 4 * setting.units]),
        ]
        self._pairs = [[tf.random.stateless_normal(shape, [1, 2]) for shape in pair] for pair in shapes]

        self.rate()  # the first time is slower

    def rate(self) -> float:
        """Returns FLOP/s of one call of each."""
        return self._flops / sum(timed(lambda pair=pair: settled(tf.matmul(*pair)))[0] for pair in self._pairs)


def settled(result: Any) -> Any:
    """Returns the result after the device has done all work."""
    tf.test.experimental.sync_devices()
    return result


def measure(name: str, line: Line, world: World, yardstick: Yardstick, *, calls: int, seconds: float) -> Result:
    """Returns the result of one line.

    Its memory is the peak of tensors from the start of building the line to the end of its second call, without the
    tensors that existed before. So weights and data do not count, but an optimizer's moments do. The resident memory of
    the process is the highest so far, because TensorFlow does not return memory.

    Args:
      calls: number of timed calls, fewer if they take more than LONG seconds; median and quartiles are returned.
      seconds: further calls are timed for this long, up to MOST_CALLS.
    """
    gc.collect()
    before = _tensors("current")
    built = line.build(world)
    for _ in range(2):
        settled(built.call())
    peak = None if before is None else _tensors("peak") - before
    process = _process_peak()
    times, rates = _times(built.call, yardstick, calls, seconds)
    took, rate = statistics.median(times), statistics.median(rates)
    low, _, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else 3 * times
    settings = world.setting.letters() | {
        "calls": len(times),
        "seconds": took,
        "matmul_gflops": rate / 1e9,
        "process_mib": process,
    }
    share = None
    if built.work is not None:
        work = built.work()
        settings |= {"word_steps": work.word_steps, "image_gflop": work.image_flops / 1e9}
        share = (work.word_steps * world.setting.word_flops() + work.image_flops) / took / rate
    values = [built.size / each for each in (took, high, low)]
    return Result(name, *values, line.unit, share, peak, settings | dict(built.settings))


def _times(
    call: Callable[[], Any], yardstick: Yardstick, calls: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of calls, and rates measured before, between and after them, so that other load affects both."""
    times: list[float] = []
    rates = [yardstick.rate()]
    since = 0.0  # the last rate
    while (
        len(times) < min(calls, FEWEST_CALLS)
        or (len(times) < calls and sum(times) < LONG)
        or (len(times) < MOST_CALLS and sum(times) < seconds)
    ):
        times.append(timed(lambda: settled(call()))[0])
        since += times[-1]
        if since > BETWEEN:
            rates.append(yardstick.rate())
            since = 0.0
    return times, [*rates, yardstick.rate()]


def _tensors(which: str) -> float | None:
    """MiB of tensors, "current" or "peak"; "current" also resets the peak."""
    device = f"{tf.config.list_logical_devices()[-1].device_type}:0"  # the GPU if there is one
    try:
        amount = tf.config.experimental.get_memory_info(device)[which] / 2**20
    except ValueError:  # an allocator that does not count
        return None
    if which == "current":
        tf.config.experimental.reset_memory_stats(device)
    return amount


def _process_peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
