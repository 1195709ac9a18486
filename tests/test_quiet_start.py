"""What fresh processes write to stderr: none of the lines with which TensorFlow starts, and all others."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from spidercap.pipeline.quiet_start import LEVEL, NOISE, WITHOUT_GPU
from tests.conftest import ROOT

HEAD = "E0000 00:00:1795782278.892905   14708 "
LINES = {
    "I0000 00:00:1795782278.892905   14708 port.cc:153] oneDNN custom operations are on. You may see slightly "
    "different numerical results due to floating-point round-off errors from different computation orders. To turn "
    "them off, set the environment variable `TF_ENABLE_ONEDNN_OPTS=0`.": True,
    "I0000 00:00:1795782278.893227   14708 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will "
    "not be used.": True,
    f"{HEAD}util.cc:131] oneDNN supports DT_UINT8 only on platforms with AVX-512. Falling back to the default "
    "Eigen-based implementation if present.": True,
    f"{HEAD}cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR "
    "(303)": True,
    f"{HEAD}cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY: out of memory": False,
    f"{HEAD}util.cc:131] out of memory": False,
    "a line that tells of cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.": False,
}
BEGIN = "from spidercap.pipeline import quiet_start\nquiet_start.import_tensorflow(may_run=True)\n"


def ran(words, **changed):
    """A process whose user has not chosen how much TensorFlow tells."""
    own = {name: value for name, value in os.environ.items() if name != LEVEL} | changed
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=own, capture_output=True, text=True, check=False)


def noise_of(text):
    pattern = re.compile("|".join(one.decode() for one in (*NOISE, *WITHOUT_GPU)))
    return [line for line in text.splitlines() if pattern.search(line)]


def has_gpu():
    return any(found for name in ("nvidia*", "dxg") for found in pathlib.Path("/dev").glob(name))


@pytest.mark.skipif(has_gpu(), reason="what is an error depends on the GPU")
@pytest.mark.long
def test_a_tiny_run_writes_none_of_them(tmp_path):
    flags = [f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--stages=mle:1", f"--workdir={tmp_path / 'run'}"]
    done = ran(["-m", "pipeline.main", *flags])
    assert done.returncode == 0, done.stderr
    assert noise_of(done.stderr) == [] and "warning: --baseline_units=8 has no effect" in done.stderr


def test_a_score_by_a_learned_parser_writes_nothing(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"1": ["a dog runs on the grass", "a brown dog"]}))
    (tmp_path / "c.json").write_text(json.dumps({"1": "a dog on grass"}))
    files = [f"--references={tmp_path / 'r.json'}", f"--results={tmp_path / 'c.json'}"]
    done = ran(["-m", "pipeline.main", "--mode=score", "--metrics=spice_fast", *files])
    assert (done.returncode, done.stderr) == (0, "") and "SPICE-fast" in done.stdout


def test_what_was_imported_is_not_looked_through_for_garbage():
    """Once: freezing again would keep what has become garbage since."""
    code = f"import gc\n{BEGIN}frozen = gc.get_freeze_count()\n{BEGIN}"
    told = ran(["-c", code + "print(gc.isenabled(), frozen > 100_000, gc.get_freeze_count() <= frozen)"]).stdout
    assert told.split() == ["True"] * 3


# Lines that only resemble the noise, Python's and C++'s in turn, and a line without an end.
SPOKEN = (
    "import os, sys\n"
    "print('of Python', file=sys.stderr)\n"
    f"for line in {list(LINES)!r}: os.write(2, (line + '\\n').encode())\n"
    "print('of Python again', file=sys.stderr)\n"
    "os.write(2, b'the last words')\n"
)


def spoken():
    kept = [
        line for line, is_noise in LINES.items() if not is_noise or (has_gpu() and ("303" in line or "cuda" in line))
    ]
    return ["of Python", *kept, "of Python again", "the last words"]


def test_all_others_come_in_order_while_it_starts():
    code = "from spidercap.pipeline import quiet_start\n" + f"with quiet_start._filtered(): exec({SPOKEN!r})\n"
    assert ran(["-c", code]).stderr.splitlines() == spoken()


def test_a_process_that_is_killed_while_it_starts_has_its_last_words(tmp_path):
    kill = SPOKEN + "import signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    code = "from spidercap.pipeline import quiet_start\n" + f"with quiet_start._filtered(): exec({kill!r})\n"
    done = ran(["-c", code])  # ends when nobody has its stderr any more
    assert done.returncode == -signal.SIGKILL and done.stderr.splitlines() == spoken()


def test_afterwards_stderr_is_the_terminal_again():
    code = BEGIN + "import os, sys, tensorflow\nprint(sys.stderr is sys.__stderr__, os.readlink('/proc/self/fd/2'))\n"
    own = {name: value for name, value in os.environ.items() if name != LEVEL}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert done.stdout == "True /dev/null\n"


@pytest.mark.parametrize("place", ["io.StringIO()", "None", "open(os.devnull, 'w')"])
def test_a_stderr_that_is_not_the_process_s_is_left_alone(place):
    code = f"import io, os, sys\nsys.stderr = own = {place}\n" + BEGIN + "print(sys.stderr is own)\n"
    assert ran(["-c", code]).stdout == "True\n"


def test_without_a_python_to_filter_all_lines_come():
    done = ran(["-c", "import sys\nsys.executable = ''\n" + BEGIN])
    assert done.returncode == 0 and noise_of(done.stderr)


def test_who_asks_for_the_log_gets_it():
    assert noise_of(ran(["-c", BEGIN], **{LEVEL: "0"}).stderr)


def test_a_closed_stderr_is_left_alone():
    done = subprocess.run(
        ["bash", "-c", f'exec 2>&-; exec "{sys.executable}" -c "$0"', BEGIN + "print('done')"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != LEVEL},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
