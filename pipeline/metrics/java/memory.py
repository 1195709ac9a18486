"""How much memory a further process can use: what the machine has left, and the control groups of this process."""

import os
import pathlib
import re
from collections.abc import Iterator

SHARE = 0.75  # of the available memory for the heap of one JVM; the rest is for its other memory and other processes
# Version of control groups -> files with the limit and with the usage, and the file cache in memory.stat, which yields.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def large_heap() -> str:
    """Returns the heap, such as '9000m', of a JVM that may take most of the memory that is available."""
    return f"{max(1, int(SHARE * available_memory()) >> 20)}m"


def available_memory(root: pathlib.Path = pathlib.Path("/")) -> int:
    """Returns the bytes that processes can allocate without swapping; `root` holds proc/ and sys/."""
    return max(0, min([_of_machine(root), *_of_groups(root)]))


def _of_machine(root: pathlib.Path) -> int:
    found = re.search(r"^MemAvailable: +(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    # Without /proc, as on macOS, half of the memory is taken to be in use.
    return int(found[1]) << 10 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_groups(root: pathlib.Path) -> Iterator[int]:
    """What each control group above this process leaves."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (1, mounted / "memory") if controllers else (2, mounted)
        folder = top / path.lstrip("/")
        # In a container the path may be that of the host, where only the top exists.
        for group in [folder, *folder.parents[: len(folder.parts) - len(top.parts)]]:
            yield from _left(group, version)


def _left(group: pathlib.Path, version: int) -> Iterator[int]:
    limit, usage, cache = _FILES[version]
    most, used = _read(group / limit).strip(), _read(group / usage).strip()
    if most.isdigit() and used.isdigit():  # the limit is "max" where there is none
        yields = re.search(rf"^{cache} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
        yield int(most) - int(used) + (int(yields[1]) if yields else 0)


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
