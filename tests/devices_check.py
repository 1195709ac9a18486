"""Every objective on several devices against one: `make devices-check`.

    python -m tests.devices_check [--devices=3]

Weights, optimizer states, baselines and logs after some steps must be equal to rounding, also where a batch does not
divide, with rewards in the graph and on the host. The devices are parts of this machine's CPU.
"""

import argparse
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from spidercap.pipeline.training.strategies import mirrored
from tests.toy_training import assert_as_on_one_device
from tests.variants import OBJECTIVES


def main(arguments: Sequence[str]) -> int:
    """Prints a line per case; returns 1 if one differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.devices_check", description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=3)
    count = parser.parse_args(arguments).devices
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    failed = []
    for name, batch_size, options in cases(count):
        case = f"{name}, batches of {batch_size} on {count} devices {options or ''}".strip()
        try:
            assert_as_on_one_device(name, batch_size, mirrored(), **options)
        except AssertionError as error:
            failed.append(case)
            print(f"{case}: FAILED\n{error}", flush=True)
        else:
            print(f"{case}: equal", flush=True)
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def cases(count: int) -> list[tuple[str, int, dict]]:
    """Returns (objective or mle, batch size, options): sizes that divide and that do not."""
    names = ("mle", *OBJECTIVES)
    even, uneven = 2 * count, 2 * count + 1
    return [
        *((name, size, {}) for name in names for size in (even, uneven)),
        *((name, uneven, {"reward": "host"}) for name in OBJECTIVES),
        *((name, uneven, {"likelihood_weight": 0.5}) for name in ("pg", "leave_one_out", "vine")),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
