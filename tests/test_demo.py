"""The page of --mode=demo: what it shows, apart from Gradio, and what its command refuses."""

import builtins
import importlib.util
import subprocess
import sys
import types
import xml.etree.ElementTree

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline import main as command
from spidercap.pipeline.demo import page
from spidercap.pipeline.demo.answers import BEAM, GREEDY, Answer, Answerer, Found
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.flags import parse
from tests.conftest import ROOT

CAPTIONS = {GREEDY: ["a dog"], BEAM: ["a dog runs", "a dog", ""]}
LOG_PROBS = {GREEDY: [-2.0], BEAM: [-1.0, -2.0, -1e9]}


def signature(name, asked):
    """A signature as models export them, which refuses the image b'bad'."""

    def call(image_bytes):
        asked.append((name, image_bytes.numpy()[0]))
        bad = image_bytes.numpy()[0] == b"bad"
        captions, log_probs = CAPTIONS[name], np.array(LOG_PROBS[name], np.float32)
        found = {
            "caption": tf.constant(["" if bad else captions[0]]),
            "log_prob": tf.constant([0.0 if bad else log_probs[0]]),
            "length": tf.constant([0 if bad else 3]),
            "error": tf.constant(["is cut off or damaged" if bad else ""]),
        }
        more = {"captions": tf.constant([captions]), "log_probs": tf.constant([log_probs])}
        return found | more if name == BEAM else found

    return call


@pytest.fixture
def asked():
    return []


@pytest.fixture
def answerer(asked):
    return Answerer({name: signature(name, asked) for name in (GREEDY, BEAM, "score")}, {})


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "photo").write_bytes(b"good")
    return str(tmp_path / "photo")


def cells(table):
    """The cells of an HTML table by row."""
    return [["".join(cell.itertext()) for cell in row] for row in xml.etree.ElementTree.fromstring(table)]


def test_captions_of_both_decoders_are_found(answerer, photo, asked):
    answer = answerer.answer(photo)
    assert asked == [(GREEDY, b"good"), (BEAM, b"good")]
    assert [(one.decoder, one.rank, one.caption) for one in answer.found] == [
        (GREEDY, 1, "a dog"),
        (BEAM, 1, "a dog runs"),
        (BEAM, 2, "a dog"),  # the third was not found, and is left out
    ]
    assert answer.found[1].probability == pytest.approx(np.exp(-1))
    assert answer.summary() == "Beam search finds a caption 2.7 times as probable as that of greedy decoding."


def test_the_summary_tells_which_is_better():
    def of(greedy, beam, same=False):
        return Answer((Found(GREEDY, 1, "a", greedy), Found(BEAM, 1, "a" if same else "b", beam))).summary()

    assert of(-1.0, -1.0, same=True) == "Greedy decoding and beam search find the same caption."
    assert of(-1.0, -3.0).startswith("Greedy decoding finds a caption 7.4 times as probable")
    assert of(-1000.0, -1.0).startswith("Beam search")
    assert Answer().summary() == ""


def test_a_bad_file_is_refused_with_the_models_reason(answerer, tmp_path):
    (tmp_path / "bad").write_bytes(b"bad")
    assert answerer.answer(str(tmp_path / "bad")) == Answer(refusal="The file is cut off or damaged.")
    assert "cannot be read" in answerer.answer(str(tmp_path / "gone")).refusal
    head, table = page.shown(answerer, str(tmp_path / "bad"), "a dog")
    assert head.startswith("**Refused.** The file is cut off or damaged") and table == ""


def test_references_add_scores_to_every_caption(answerer, photo):
    head, table = page.shown(answerer, photo, "A dog runs!\n\n a cat sits\n")
    heads, *rows = cells(table)
    assert head.startswith("## a dog\n") and heads == [*page.HEADS, "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    assert [row[2] for row in rows] == ["a dog", "a dog runs", "a dog"]
    scores = {row[2]: dict(zip(heads, row, strict=True)) for row in rows}
    assert scores["a dog runs"]["BLEU-1"] == scores["a dog runs"]["ROUGE-L"] == "1.000"
    assert 0 < float(scores["a dog"]["ROUGE-L"]) < 1
    assert cells(page.shown(answerer, photo, " \n")[1])[0] == [*page.HEADS]


def test_references_that_cannot_be_used_leave_the_captions(answerer, photo):
    for text, reason in (("...", "has no words"), ("a" * 10_001, "more than 10,000 characters")):
        head, table = page.shown(answerer, photo, text)
        heads, *rows = cells(table)
        assert "**No scores:**" in head and reason in head.replace("\\", "")
        assert heads == [*page.HEADS] and len(rows) == 3


def test_nothing_is_shown_without_an_image(answerer, asked):
    assert page.shown(answerer, None, "a dog") == (page.EMPTY, "") and not asked


def test_captions_cannot_write_markup():
    assert page._plain("a <b> [x](y) *z*") == r"a \<b\> \[x\]\(y\) \*z\*"
    assert cells(page._table([["caption"], ["<b>&"]])) == [["caption"], ["<b>&"]]


def test_models_of_features_are_refused(asked):
    with pytest.raises(UserError, match="no signature beam: it takes features"):
        Answerer({GREEDY: signature(GREEDY, asked)}, {})


def test_a_missing_gradio_is_one_line(monkeypatch, capsys, tmp_path):
    imported = builtins.__import__

    def without(name, *more):
        if name == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return imported(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")  # set by the command; this way it is put back
    assert command.main(["main", "--mode=demo", f"--workdir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --mode=demo needs the package gradio") and error.count("\n") == 1


def test_a_folder_without_a_model_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(page, "_gradio", lambda: types.ModuleType("gradio"))
    assert command.main(["main", "--mode=demo", f"--workdir={tmp_path}"]) == 1
    assert "holds no exported model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing is written to the workdir


def test_a_taken_port_is_reported():
    config = Config.of(mode="demo", workdir="run", port=80)
    with (
        pytest.raises(UserError, match="--port=80 cannot be used: the port is taken"),
        page._port_reported(config),
    ):
        raise OSError("taken")


def test_the_page_is_seen_by_this_machine_alone_unless_told():
    config = parse(["main", "--mode=demo", "--workdir=run"])
    assert (config.run.host, config.run.port) == ("127.0.0.1", 7860)
    config = parse(["main", "--mode=demo", "--export_dir=run/export", "--host=0.0.0.0", "--port=80"])
    assert (config.run.host, config.run.port, config.run.export_dir) == ("0.0.0.0", 80, "run/export")
    for flag, reason in (("--units=3", "not read by --mode=demo"), ("--port=70000", "from 1 to 65535")):
        with pytest.raises(UserError, match=reason):
            parse(["main", "--mode=demo", "--workdir=run", flag])
    with pytest.raises(UserError, match="--port is not read by --mode=caption, but by demo"):
        parse(["main", "--mode=caption", "--workdir=run", "--port=80"])
    with pytest.raises(UserError, match="no --workdir given"):
        parse(["main", "--mode=demo"])


BUILD = """
import gradio
from spidercap.pipeline.demo import page
from spidercap.pipeline.demo.answers import Answerer
built = page.build(gradio, Answerer({"greedy": print, "beam": print}, {}))
print(sorted({type(block).__name__ for block in built.blocks.values()}))
"""


@pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="gradio is not installed")
def test_gradio_builds_the_page():
    """In a process of its own, because Gradio leaves event loops open, which is an error in these tests."""
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"'{kind}'" in done.stdout for kind in ("Image", "Textbox", "Button", "Markdown", "HTML"))
