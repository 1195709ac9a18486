"""How many photographs get the same caption from the scripts of docs/portable.md as from the SavedModel.

  python -m benchmarks.portable --export=runs/photographs_mle/export --images=images

It needs the extras litert and onnx, Pillow, and simplejpeg for the last column. With --starts it prints how long
the scripts take in a new process instead, from the start of Python to the caption of one photograph.
"""

import argparse
import contextlib
import io
import pathlib
import re
import statistics
import subprocess
import sys
import time

from spidercap.export.formats import PORTABLE
from spidercap.export.portable import portable_folder
from spidercap.export.versions import versions
from spidercap.pipeline.evaluation.caption_files import ExportedCaptioner

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "portable.md"


def script_of(name: str, page: pathlib.Path = PAGE) -> str:
    """Returns the script of the page for a format."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (script,) = [block for block in blocks if block.startswith("import json") and PORTABLE[name].file in block]
    return script


def with_exact_jpeg(script: str, page: pathlib.Path = PAGE) -> str:
    """Returns a script with the line of the page that decodes JPEG as training does."""
    (line,) = re.findall(r"^image = .*simplejpeg.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return "import simplejpeg\n" + re.sub(r"^image = .*$", lambda match: line, script, flags=re.MULTILINE)


def photographs(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """Returns `count` JPEG files, or all if there are fewer, spread over the folder by name."""
    files = sorted(folder.glob("*.jpg"))
    return files[:: max(1, len(files) // count)][:count]


def caption_of(script: str, folder: pathlib.Path, photo: pathlib.Path) -> str:
    """Returns what a script prints about a photograph."""
    argv, printed = sys.argv, io.StringIO()
    sys.argv = ["caption.py", str(folder), str(photo)]
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(script, "caption.py", "exec"), {})
    finally:
        sys.argv = argv
    return printed.getvalue().strip()


def seconds_of_start(script: str, folder: pathlib.Path, photo: pathlib.Path) -> float:
    """Returns the seconds of a new process that runs a script about a photograph."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", script, folder, photo]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if not done.stdout.strip():
        raise RuntimeError(f"no caption of {photo} by {folder}")
    return seconds


def print_starts(export: pathlib.Path, photo: pathlib.Path, count: int) -> None:
    """Prints the median and the extremes of the seconds of new processes; one more fills the disk's cache before."""
    version = versions(export)[-1].name
    for name in PORTABLE:
        folder, script = portable_folder(export, name, version), script_of(name)
        seconds = [seconds_of_start(script, folder, photo) for _ in range(count + 1)][1:]
        median = statistics.median(seconds)
        print(f"{name:<8} new process: {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {count} starts")


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--export", type=pathlib.Path, required=True, help="folder of exported models")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of JPEG files")
    parser.add_argument("--count", type=int, default=200, help="photographs, spread over the folder by name")
    parser.add_argument("--starts", type=int, default=0, help="time this number of new processes, and nothing else")
    arguments = parser.parse_args()
    files = photographs(arguments.images, arguments.count)
    if arguments.starts:
        print_starts(arguments.export, files[0], arguments.starts)
        return
    version = versions(arguments.export)[-1]
    expected = [of_image[0][0] for of_image in ExportedCaptioner(version).caption(files)]
    print(f"{len(files)} photographs, {len(set(expected))} different captions by {version}")
    for name in PORTABLE:
        folder, script = portable_folder(arguments.export, name, version.name), script_of(name)
        for label, code in (("Pillow", script), ("simplejpeg", with_exact_jpeg(script))):
            found = [caption_of(code, folder, file) for file in files]
            same = sum(a == b for a, b in zip(found, expected, strict=True))
            print(f"{name:<8} JPEG by {label:<12} {same} of {len(files)} the same", flush=True)


if __name__ == "__main__":
    main()
