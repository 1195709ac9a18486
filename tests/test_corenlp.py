"""Where CoreNLP is taken from, that a download is whole or not there at all, and what a user is told."""

import dataclasses
import hashlib
import io
import os
import pathlib
import threading
import time
import zipfile

import pytest
import requests

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.java import corenlp, runtime

CODE, MODELS = "stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"


class Server:
    """Stands in for the network below jgo; counts what is asked for."""

    def __init__(self, files: dict[str, bytes]):
        self.files, self.asked, self.failure, self.break_off, self.delay = files, [], None, None, 0.0

    def request(self, method: str, url: str, **kwargs) -> requests.Response:
        name = url.rsplit("/", 1)[1]
        self.asked.append(name)
        time.sleep(self.delay)
        if self.failure:
            raise self.failure
        response = requests.Response()
        response.status_code = 200 if name in self.files else 404
        content = self.files.get(name, b"")
        response.headers["content-length"] = str(len(content))
        response.raw = io.BytesIO(content)
        if self.break_off:
            response.iter_content = lambda chunk_size: self._half(content)
        return response

    def _half(self, content: bytes):
        yield content[: len(content) // 2]
        raise self.break_off


def make_zip(member: str, filling: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr(member, b"x" * filling)
    return made.getvalue()


@pytest.fixture
def contents(monkeypatch):
    """File name -> content of two small jars, that stand for the real ones."""
    made = {CODE: make_zip(corenlp.CODE.member, 10_000), MODELS: make_zip(corenlp.MODELS.member, 50_000)}
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    jars = [dataclasses.replace(j, size=len(made[j.file_name]), sha256=sha256[j.file_name]) for j in corenlp.JARS]
    monkeypatch.setattr(corenlp, "JARS", jars)
    return made


@pytest.fixture
def server(monkeypatch, contents, tmp_path):
    """The network and a home, and no copy in pycocoevalcap."""
    made = Server(dict(contents))
    monkeypatch.setattr(requests, "request", made.request)
    monkeypatch.setattr(runtime, "package_path", lambda package, path: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("M2_REPO", "SPIDERCAP_METRIC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return made


def put(folder: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def left(cache: pathlib.Path) -> list[str]:
    """Returns all that a cache holds, but its lock."""
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.name != ".lock")


def test_cache_is_the_flags_then_the_environments_then_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPIDERCAP_METRIC_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert corenlp.metric_cache("/flag") == pathlib.Path("/flag")
    assert corenlp.metric_cache("") == tmp_path / "mine"
    monkeypatch.setenv("SPIDERCAP_METRIC_CACHE", "")
    assert corenlp.metric_cache("") == pathlib.Path("/xdg/spidercap")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert corenlp.metric_cache("") == tmp_path / ".cache/spidercap"
    assert corenlp.metric_cache("here").is_absolute()  # a worker may stand elsewhere


def test_download_fills_the_cache_with_two_files_and_is_not_done_again(server, tmp_path, capsys):
    cache = tmp_path / "cache"
    jars = corenlp.corenlp_jars("", str(cache))
    assert jars == (cache / "corenlp-3.6.0" / CODE, cache / "corenlp-3.6.0" / MODELS)
    assert [jar.read_bytes() for jar in jars] == [server.files[CODE], server.files[MODELS]]
    assert left(cache) == ["corenlp-3.6.0", f"corenlp-3.6.0/{MODELS}", f"corenlp-3.6.0/{CODE}"]
    assert not (tmp_path / "home").exists()  # no copies in the user's own repository
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2, "no bar where no terminal is"
    assert "GPL, version 3 or later" in told[0] and str(cache / "corenlp-3.6.0") in told[0]
    asked = list(server.asked)
    assert corenlp.corenlp_jars("", str(cache)) == jars
    assert server.asked == asked
    assert capsys.readouterr().err == ""


def test_folder_given_by_the_user_is_taken(server, contents, tmp_path):
    folder = put(tmp_path / "given", contents)
    assert corenlp.corenlp_jars(str(folder), str(tmp_path / "cache")) == (folder / CODE, folder / MODELS)
    assert server.asked == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", [CODE, MODELS])
def test_missing_file_is_named(server, contents, tmp_path, name):
    folder = put(tmp_path / "given", contents)
    (folder / name).unlink()
    other = MODELS if name == CODE else CODE
    with pytest.raises(UserError, match=f"{folder} lacks {name}, .*--corenlp") as refused:
        corenlp.corenlp_jars(str(folder), "")
    assert other not in str(refused.value)
    (folder / other).unlink()
    with pytest.raises(UserError, match=f"lacks {CODE} and {MODELS}"):
        corenlp.corenlp_jars(str(folder), "")


@pytest.mark.parametrize("place", ["given", "cache"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-1000], "is not a whole jar .it has 49[0-9]+ bytes, Maven's has 50[0-9]+"),
        (lambda content: make_zip("another", 5), f"does not hold {corenlp.MODELS.member}: it is another file"),
        (lambda content: content.replace(b"xxx", b"xyx", 1), "has the SHA-256 [0-9a-f]{12}..., not .*: it is damaged"),
        (lambda content: make_zip(corenlp.MODELS.member, 9), "has the SHA-256 .*: it is damaged or another file"),
    ],
)
def test_damaged_file_is_refused_at_the_door(server, contents, tmp_path, place, damage, said):
    folder = put(tmp_path / place / "corenlp-3.6.0", contents | {MODELS: damage(contents[MODELS])})
    with pytest.raises(UserError, match=f"{folder / MODELS} {said}") as refused:
        corenlp.corenlp_jars(str(folder) if place == "given" else "", str(tmp_path / "cache"))
    assert ("delete the folder" in str(refused.value)) == (place == "cache")
    assert server.asked == []


def test_copy_of_pycocoevalcap_is_taken_if_it_has_both(server, contents, tmp_path, monkeypatch):
    # Of other bytes than Maven's: Stanford's zip was packed earlier.
    folder = put(tmp_path / "pycocoevalcap/spice/lib", contents | {CODE: make_zip(corenlp.CODE.member, 9_000)})
    monkeypatch.setattr(runtime, "package_path", lambda package, path: tmp_path / package / path)
    assert corenlp.corenlp_jars("", str(tmp_path / "cache")) == (folder / CODE, folder / MODELS)
    assert server.asked == []
    (folder / CODE).write_bytes((folder / CODE).read_bytes().replace(b"xxx", b"xyx", 1))
    with pytest.raises(UserError, match=f"{folder / CODE} has the SHA-256 .* it is damaged.*delete this copy"):
        corenlp.corenlp_jars("", str(tmp_path / "cache"))
    (folder / MODELS).unlink()
    assert corenlp.corenlp_jars("", str(tmp_path / "cache"))[0].parent == tmp_path / "cache/corenlp-3.6.0"


@pytest.mark.parametrize(
    "failure", [requests.ConnectionError("no route"), requests.Timeout("silence"), OSError(28, "No space left")]
)
def test_failed_download_says_what_to_do_by_hand(server, tmp_path, failure):
    server.failure = failure
    with pytest.raises(UserError) as refused:
        corenlp.corenlp_jars("", str(tmp_path / "cache"))
    message = str(refused.value)
    files = [
        CODE,
        MODELS,
        "edu.stanford.nlp:stanford-corenlp:3.6.0,",
        "edu.stanford.nlp:stanford-corenlp:3.6.0:models,",
    ]
    places = [
        f" {tmp_path / 'cache/corenlp-3.6.0'},",
        "--corenlp=FOLDER",
        "--metric_cache_dir",
        "SPIDERCAP_METRIC_CACHE",
    ]
    others = ["metrics without SPICE need none of this", str(failure)]
    assert [text for text in files + places + others if text not in message] == []
    assert left(tmp_path / "cache") == []


def test_file_that_the_server_lacks_is_a_failed_download(server, tmp_path):
    del server.files[MODELS]
    with pytest.raises(UserError, match=r"could not be downloaded.*not found"):
        corenlp.corenlp_jars("", str(tmp_path / "cache"))
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("name", [CODE, MODELS])
def test_wrong_digest_is_refused_and_nothing_kept(server, contents, tmp_path, name):
    server.files[name] = contents[name].replace(b"xxx", b"xyx", 1)  # a whole zip, and of the right size
    assert len(server.files[name]) == len(contents[name]) and server.files[name] != contents[name]
    with pytest.raises(UserError, match=f"{name} came with .* and the SHA-256"):
        corenlp.corenlp_jars("", str(tmp_path / "cache"))
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("end", [requests.exceptions.ChunkedEncodingError("cut"), KeyboardInterrupt()])
def test_interrupted_download_leaves_nothing_and_can_be_done_again(server, tmp_path, end):
    server.break_off = end
    with pytest.raises(UserError if isinstance(end, Exception) else KeyboardInterrupt):
        corenlp.corenlp_jars("", str(tmp_path / "cache"))
    assert left(tmp_path / "cache") == []
    server.break_off = None
    assert corenlp.corenlp_jars("", str(tmp_path / "cache"))[1].is_file()


def test_what_a_killed_download_left_is_no_hindrance(server, contents, tmp_path):
    put(tmp_path / "cache/corenlp-3.6.0.part/maven", {"half": b"x"})
    put(tmp_path / "cache/corenlp-3.6.0.part/edu", contents)
    corenlp.corenlp_jars("", str(tmp_path / "cache"))
    assert left(tmp_path / "cache") == ["corenlp-3.6.0", f"corenlp-3.6.0/{MODELS}", f"corenlp-3.6.0/{CODE}"]


def test_callers_at_the_same_time_download_once(server, tmp_path, capfd):
    server.delay = 0.2
    together, got = threading.Barrier(3), []

    def call() -> None:
        together.wait()
        got.append(corenlp.corenlp_jars("", str(tmp_path / "cache")))

    threads = [threading.Thread(target=call) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert len(got) == 3 and len(set(got)) == 1
    assert (server.asked.count(CODE), server.asked.count(MODELS)) == (1, 1)
    assert capfd.readouterr().err.count("another process is filling") == 2


def test_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{tmp_path / 'file'} cannot be written .*--metric_cache_dir"):
        corenlp.corenlp_jars("", str(tmp_path / "file"))
    assert server.asked == []


@pytest.mark.skipif(not os.environ.get("SPIDERCAP_TEST_DOWNLOAD"), reason="385 MB; set SPIDERCAP_TEST_DOWNLOAD=1")
def test_real_download(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "package_path", lambda package, path: None)
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    code, models = corenlp.corenlp_jars("", str(tmp_path / "cache"))
    assert (code.stat().st_size, models.stat().st_size) == (corenlp.CODE.size, corenlp.MODELS.size)
    assert not (tmp_path / "m2").exists()
