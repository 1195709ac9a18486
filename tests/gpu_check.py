"""Training on a GPU against the CPU, and its speed: `make gpu-check`, on a machine that has one.

    python -m tests.gpu_check [--device=GPU:0] [--output=docs/gpu.md] [--quick]

Steps of likelihood and of all objectives run with every operation pinned to the device, where one that has to go back
to the host is an error. Weights, optimizer states and logs must be those of the CPU within TOLERANCE. Then
benchmarks.speed measures steps beside the device's own matrix products, with and without bfloat16 and --jit.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from spidercap.pipeline.files import write_text
from tests.toy_training import assert_close, trained
from tests.variants import OBJECTIVES

ROOT = pathlib.Path(__file__).parents[1]
TOLERANCE = 1e-3, 1e-4  # relative and absolute: three steps in float32, sums in another order
BATCH = 5
LINES = ("MLE step", "PG step, K = 3", "vine step, K = 3", "leave-one-out step, M = 5")
VARIANTS = ((), ("--precision=bfloat16",), ("--jit",), ("--precision=bfloat16", "--jit"))
HEAD = """# On a GPU

Measured by `{command}` on {date}: {name}, TensorFlow {version}.

"""


def main(arguments: Sequence[str]) -> int:
    """Prints a line per case and the speeds; returns 1 if one differs, fails, or there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="GPU:0")
    parser.add_argument("--output", type=pathlib.Path, help="Markdown file for the results")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options = parser.parse_args(arguments)
    kind = options.device.partition(":")[0]
    if not tf.config.list_physical_devices(kind):
        print(f"error: TensorFlow sees no {kind} here; nothing was checked", file=sys.stderr)
        return 1
    # What is pinned to the device and has no kernel there is an error, and products have all of their digits.
    tf.config.set_soft_device_placement(False)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    lines, failed = [], False
    for name in ("mle", *OBJECTIVES):
        fault = _difference(name, options.device)
        failed |= bool(fault)
        lines.append(f"- {name}: {fault or 'on the device, equal to the CPU'}")
        print(lines[-1], flush=True)
    for title, text in _speeds(options.quick):
        failed |= not text
        lines.append(f"\n`{title}`\n\n```\n{text or 'failed'}\n```")
        print(lines[-1], flush=True)
    if options.output:
        write_text(options.output, _head(arguments, kind) + "\n".join(lines) + "\n")
    return int(failed)


def _difference(name: str, device: str) -> str:
    """How an objective differs on the device, in a line; '' if it does not."""
    try:
        there, here = (trained(name, BATCH, device=f"/{where}") for where in (device, "CPU:0"))
        assert_close(there, here, TOLERANCE, TOLERANCE)
    except (AssertionError, tf.errors.OpError) as error:
        return " ".join(str(error).split())[:500]
    return ""


def _speeds(quick: bool) -> Iterator[tuple[str, str]]:
    """Commands and what they print, '' for one that failed."""
    sizes = ("--batch=4", "--vocabulary=500", "--calls=1") if quick else ("--batch=64",)
    for variant in VARIANTS:
        words = ["benchmarks.speed", *sizes, *variant, *(f"--line={line}" for line in LINES)]
        done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        yield f"python -m {' '.join(words[: 1 + len(sizes) + len(variant)])}", "" if done.returncode else done.stdout


def _head(arguments: Sequence[str], kind: str) -> str:
    device = tf.config.list_physical_devices(kind)[0]
    name = tf.config.experimental.get_device_details(device).get("device_name", kind)
    command = " ".join(["python -m tests.gpu_check", *arguments])
    return HEAD.format(command=command, date=time.strftime("%Y-%m-%d"), name=name, version=tf.__version__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
