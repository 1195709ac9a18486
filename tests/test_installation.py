"""What is installed lies below one name, and a user's own modules do not get in its way."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

FOLDERS = ("models", "pipeline", "export")
REFERENCES = '{"annotations": [{"image_id": 1, "caption": "A dog runs."}, {"image_id": 2, "caption": "Two cats."}]}'
RESULTS = '[{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "two cats"}]'


def python_files():
    for folder in (*FOLDERS, "spidercap", "tests", "benchmarks"):
        yield from (ROOT / folder).rglob("*.py")


def test_code_is_imported_by_one_name():
    """A module that is imported by two names is loaded twice, with two sets of classes."""
    mixed = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            mixed += [f"{path}:{node.lineno}" for name in names if name.split(".")[0] in FOLDERS]
            if isinstance(node, ast.ImportFrom) and node.level:
                mixed.append(f"{path}:{node.lineno} relative")
    assert not mixed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "checkout"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "docs", "tests")
    shutil.copytree(ROOT, source, ignore=unwanted)
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"-w{built}", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(built.glob("*.whl"))


def test_the_wheel_holds_spidercap_and_nothing_else_at_the_top(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"spidercap"}
    code = {f"spidercap/{p.relative_to(ROOT)}" for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")}
    code |= {f"spidercap/{p.name}" for p in (ROOT / "spidercap").glob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    data = {pathlib.Path(name).name for name in names if not name.endswith(".py") and ".dist-info/" not in name}
    packed = {
        "parser.npz",
        "wordnet_synonyms.txt.gz",
        "WORDNET_LICENSE",
        "MODEL_CARD.md",
        "report.css",
        "attention_maps.css",
    }
    assert data == packed
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"spidercap = spidercap.pipeline.main:main" in zipfile.ZipFile(wheel).read(entry_points)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder of installed packages that holds spidercap alone; what it needs comes from this environment."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={site}", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return site


@pytest.fixture
def users_folder(tmp_path):
    """A folder with modules of the user's own that are called as ours once were."""
    (tmp_path / "pipeline").mkdir()
    for name in ("models.py", "export.py", "pipeline/__init__.py", "pipeline/main.py"):
        (tmp_path / name).write_text("raise SystemExit('the module of the user was run')\n")
    (tmp_path / "references.json").write_text(REFERENCES)
    (tmp_path / "results.json").write_text(RESULTS)
    return tmp_path


def in_folder(folder, installed, *command):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


SCORE = ("--mode=score", "--references=references.json", "--results=results.json", "--metrics=cider,rouge")


@pytest.mark.parametrize("command", ["spidercap", "python -m spidercap"])
def test_the_command_works_beside_a_users_own_modules(installed, users_folder, command):
    program = [str(installed / "bin" / "spidercap")] if command == "spidercap" else [sys.executable, "-m", "spidercap"]
    done = in_folder(users_folder, installed, *program, *SCORE)
    assert done.returncode == 0, done.stderr
    assert "ROUGE-L" in done.stdout and "2 images" in done.stdout
    wrong = in_folder(users_folder, installed, *program, "--mode=scores")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and "Traceback" not in wrong.stderr


def test_the_api_works_beside_a_users_own_modules(installed, users_folder):
    code = (
        "import spidercap; print(spidercap.__file__)\n"
        "print(spidercap.score({1: ['a dog']}, {1: 'a dog'}, metrics='rouge').corpus['ROUGE-L'])\n"
        "from spidercap.models.baseline import Baseline; from spidercap.export import saved_model\n"
    )
    done = in_folder(users_folder, installed, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    place, number = done.stdout.split()
    assert place.startswith(str(installed)) and float(number) == pytest.approx(1)


def test_nothing_is_loaded_before_it_is_used():
    code = "import sys, spidercap; dir(spidercap); print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
