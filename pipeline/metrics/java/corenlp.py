"""The two jars of CoreNLP 3.6.0, with which SPICE parses captions: found on this machine, or downloaded once."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator

from spidercap.pipeline.bars import progress_bar
from spidercap.pipeline.digests import digest as digest_of
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import open_lock
from spidercap.pipeline.metrics.java import runtime

GROUP, ARTIFACT, VERSION = "edu.stanford.nlp", "stanford-corenlp", "3.6.0"
FOLDER = f"corenlp-{VERSION}"  # inside the metric cache
PATIENCE = 30  # seconds without an answer of the server


@dataclasses.dataclass(frozen=True)
class Jar:
    """A file of the Maven component, as published."""

    classifier: str
    size: int  # bytes
    sha256: str
    member: str  # a file in the jar that SPICE needs

    @property
    def file_name(self) -> str:
        """The file name of the jar."""
        return f"{ARTIFACT}-{VERSION}{self.classifier and '-'}{self.classifier}.jar"

    @property
    def coordinates(self) -> str:
        """The Maven coordinates of the artifact."""
        return f"{GROUP}:{ARTIFACT}:{VERSION}{self.classifier and ':'}{self.classifier}"


CODE = Jar(
    classifier="",
    size=7_270_741,
    sha256="d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742",
    member="edu/stanford/nlp/pipeline/StanfordCoreNLP.class",
)
MODELS = Jar(
    classifier="models",
    size=378_116_526,
    sha256="d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd",
    member="edu/stanford/nlp/models/pos-tagger/english-left3words/english-left3words-distsim.tagger",
)
JARS = (CODE, MODELS)


def metric_cache(metric_cache_dir: str) -> pathlib.Path:
    """Returns the folder for downloads of metrics: as given, else $SPIDERCAP_METRIC_CACHE, else the user's cache."""
    given = metric_cache_dir or os.environ.get("SPIDERCAP_METRIC_CACHE")
    cache = given or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "spidercap")
    return pathlib.Path(os.path.expanduser(cache)).absolute()


def corenlp_jars(corenlp: str, metric_cache_dir: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the paths of (code jar, models jar); downloads 385 MB if they are not on this machine.

    Args:
      corenlp: a folder with both files; "" to search the metric cache, then pycocoevalcap, then download.
      metric_cache_dir: as for `metric_cache`.

    Raises:
      UserError: a file is missing or damaged, or cannot be downloaded.
    """
    if corenlp:
        given = pathlib.Path(os.path.expanduser(corenlp)).absolute()
        return _checked(given, "give --corenlp a folder that has both, or leave it out to have them downloaded")
    folder = metric_cache(metric_cache_dir) / FOLDER
    remedy = "restore it, or delete the folder to have both files downloaded"
    if folder.exists():
        return _checked(folder, remedy)
    # The folder to which pycocoevalcap's Spice() downloads.
    lib = runtime.package_path("pycocoevalcap", "spice/lib")
    if lib and all((lib / jar.file_name).exists() for jar in JARS):
        return _checked(lib, "delete this copy in pycocoevalcap to have both files downloaded", any_build=True)
    _download_once(folder)
    return _checked(folder, remedy)


def _checked(folder: pathlib.Path, remedy: str, any_build: bool = False) -> tuple[pathlib.Path, pathlib.Path]:
    """The paths of both jars, which must be Maven's, or with `any_build` whole ones."""
    missing = [jar.file_name for jar in JARS if not (folder / jar.file_name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {' and '.join(missing)}, which SPICE needs; {remedy}")
    for jar in JARS:
        path = folder / jar.file_name
        fault = _fault(path, jar, any_build)
        if fault:
            size = path.stat().st_size
            raise UserError(f"{path} {fault} (it has {size} bytes, Maven's has {jar.size}); {remedy}")
    return folder / CODE.file_name, folder / MODELS.file_name


def _fault(path: pathlib.Path, jar: Jar, any_build: bool) -> str | None:
    try:
        digest = digest_of(path)  # of both jars in half a second
        if digest == jar.sha256:
            return None
        # A truncated file has no table of contents, which is at a zip's end.
        with zipfile.ZipFile(path) as opened:
            if jar.member not in opened.namelist():
                return f"does not hold {jar.member}: it is another file"
            # Stanford's zip, which pycocoevalcap downloads, holds jars of other bytes than Maven's.
            if any_build and opened.testzip() is None:
                return None
        return f"has the SHA-256 {digest[:12]}..., not {jar.sha256[:12]}...: it is damaged or another file"
    except (zipfile.BadZipFile, zlib.error):
        return "is not a whole jar"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _download_once(folder: pathlib.Path) -> None:
    """Downloads into the folder, unless another process does; an interrupted download leaves nothing in it."""
    with _lock(folder.parent):
        if folder.exists():
            return
        part = folder.with_name(f"{FOLDER}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        try:
            part.mkdir()
            _fetch(part, folder)
            for jar in JARS:
                _verify(part / jar.file_name, jar)
            part.rename(folder)
        except (OSError, RuntimeError) as error:  # of requests and of jgo
            raise UserError(_by_hand(folder, error)) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    print(f"CoreNLP {VERSION} is in {folder}", file=sys.stderr)


@contextlib.contextmanager
def _lock(cache: pathlib.Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(open_lock(cache / ".lock"), "r+")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(
            f"the metric cache {cache} cannot be written ({error.strerror}); "
            "name another folder with --metric_cache_dir or the environment variable SPIDERCAP_METRIC_CACHE"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is filling {cache}; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(part: pathlib.Path, folder: pathlib.Path) -> None:
    """Downloads both files into the folder `part`; `folder` is their final folder.

    Raises:
      OSError: there is no connection, it broke, or the disk is full.
      RuntimeError: the server has no such file.
    """
    from jgo import maven

    total = sum(jar.size for jar in JARS)
    print(
        f"SPICE needs CoreNLP {VERSION} (GPL, version 3 or later): downloading {total / 1e6:.0f} MB into {folder}",
        file=sys.stderr,
    )
    with progress_bar(total, "CoreNLP", "B", unit_scale=True) as bar:
        repository = part / "maven"  # separate, so that nothing stays in the user's repository
        resolver = maven.PythonResolver(progress_callback=lambda name, size: contextlib.nullcontext(bar.update))
        context = maven.MavenContext(resolver=resolver, repo_cache=repository, timeout=PATIENCE)
        component = context.project(GROUP, ARTIFACT).at_version(VERSION)
        for jar in JARS:
            component.artifact(jar.classifier).resolve().rename(part / jar.file_name)
    shutil.rmtree(repository)


def _verify(path: pathlib.Path, jar: Jar) -> None:
    digest = digest_of(path)
    if digest != jar.sha256:
        size = path.stat().st_size
        raise RuntimeError(f"{jar.file_name} came with {size} of {jar.size} bytes and the SHA-256 {digest[:12]}...")


def _by_hand(folder: pathlib.Path, error: Exception) -> str:
    files = " and ".join(f"{jar.file_name} (Maven's {jar.coordinates}, {jar.size} bytes)" for jar in JARS)
    return (
        f"CoreNLP {VERSION}, which SPICE needs, could not be downloaded ({error}); download {files} by hand into "
        f"{folder}, or into any folder and add --corenlp=FOLDER; --metric_cache_dir or the environment variable "
        f"SPIDERCAP_METRIC_CACHE moves the cache; metrics without SPICE need none of this"
    )
