"""The page of --mode=demo in headless Chromium: an image is dropped, its caption is read, a bad file is refused."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT

LIMIT = 120  # seconds; it takes a fraction of that
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a visitor of the page reads after each deed."""
    missing = [name for name in ("gradio", "playwright") if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; pip install '.[demo]' playwright")
    chromium = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not chromium:
        pytest.skip(f"no Chromium: none of {', '.join(PROGRAMS)} is on PATH")
    folder = tmp_path_factory.mktemp("page")
    red = np.full((48, 64, 3), (200, 10, 10), np.uint8)
    (folder / "red.jpg").write_bytes(tf.io.encode_jpeg(red).numpy())
    (folder / "bad.jpg").write_text("<html>502 Bad Gateway</html>")
    command = [sys.executable, "-m", "tests.demo_page", chromium, str(folder)]
    own = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder / "gradio")}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | own, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_dropped_image_gets_its_caption(seen):
    assert seen["empty"].strip() == "Captions appear here."
    assert seen["dropped"].split("\n")[0] == "a red wall"
    assert "Greedy decoding and beam search find the same caption." in seen["dropped"]
    assert seen["table"].count("a red wall") == 2 and "-1.50" in seen["table"]
    assert "BLEU" not in seen["table"]


def test_references_add_scores(seen):
    assert "ROUGE-L" in seen["scored"] and "1.000" in seen["scored"]


def test_a_bad_file_is_refused_on_the_page(seen):
    assert seen["cleared"].strip() == "Captions appear here."
    assert seen["refused"].startswith("Refused. The file is no image. Give a whole JPEG")
    assert not seen["table after it"].strip()


def test_the_page_asks_no_other_machine(seen):
    """Fonts and scripts come with Gradio, as the page must work without the internet."""
    assert seen["outside"] == []
