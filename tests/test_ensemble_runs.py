"""Runs that decode together, by the command line and from Python, and what is refused."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

import spidercap
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.main import main
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.workdirs import named_workdirs
from spidercap.pipeline.training import identity
from tests import faults
from tests.conftest import ROOT


def run(*flags):
    """Returns (exit code, what was printed, what was printed on stderr)."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["main", *map(str, flags)])
    return code, out.getvalue(), err.getvalue()


def fine(*flags):
    """Returns what a command printed that succeeds."""
    code, out, err = run(*flags)
    assert code == 0, err
    return out


def refused(*flags):
    """Returns the line that a command ends with that fails."""
    code, _, err = run(*flags)
    *_, last = err.splitlines()
    assert code == 1 and last.startswith("error: "), err
    return last


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of runs on regions: `a` and its copy, `b` with another network, `few` with fewer words."""
    folder = tmp_path_factory.mktemp("runs")
    data = faults.make_regions(folder / "data")
    common = (*faults.FLAGS, *data, "--stages=mle:6", "--learning_rate=mle:3e-2", f"--cache_dir={folder / 'cache'}")
    train(common, folder / "a", "--decoder=lstm")
    train(common, folder / "b", "--decoder=transformer", "--seed=1", "--units=6", "--max_length=6")
    train(common, folder / "few", "--min_word_count=24")
    shutil.copytree(folder / "a", folder / "copy")
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """The folder of two runs on images, of which one attends to their cells."""
    folder = tmp_path_factory.mktemp("seeing")
    tiny = (f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--stages=mle:1", "--scenes_test=0", "--scenes_val=4")
    train(tiny, folder / "mean")
    train(tiny, folder / "cells", "--decoder=attention", "--seed=1")
    return folder


def train(common, workdir, *more):
    """Trains a run, which is not exported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spidercap.pipeline.modes.export_once", lambda config: None)
        patch.setattr("spidercap.pipeline.modes.run_caption", lambda config, images: None)
        patch.setattr("spidercap.pipeline.modes.caption_examples", lambda *_: None)
        fine(*common, f"--workdir={workdir}", *more)


def content(path):
    return json.loads(path.read_text())


def files(folder):
    """What a folder holds, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_and_its_copy_score_as_the_run_and_nothing_of_them_is_written(trained):
    before = files(trained / "a"), files(trained / "copy")
    together = f"--workdir={trained / 'a'},{trained / 'copy'}"
    out = fine("--mode=evaluate", together, f"--cache_dir={trained / 'cache'}")
    assert (files(trained / "a"), files(trained / "copy")) == before
    folder = trained / "ensembles" / "a+copy"
    assert f"results:     {folder}" in out and "6 validation images:" in out and "4 test images:" in out
    for split in ("val", "test"):
        found, alone = folder / "results" / split, trained / "a" / "results" / split
        assert content(found / "ensemble.json") == content(alone / "mle.json")
        assert content(found / "ensemble.metrics.json") == content(alone / "mle.metrics.json")
    summary = content(folder / "summary.json")
    assert summary["decoding"] == {"decode": "greedy"} and list(summary["splits"]) == ["val", "test"]
    assert summary["members"][0] == {"workdir": str(trained / "a"), "stage": "mle"}


def test_evaluation_and_captioning_of_two_networks_agree(trained, tmp_path):
    """Also with beams: an LSTM that reads the mean of regions, and a Transformer that attends to them."""
    together = f"--workdir={trained / 'a'},{trained / 'b'}"
    beam = ("--decode=beam", "--beam_width=3", "--n_best=2")
    out = fine("--mode=evaluate", together, *beam, f"--output={tmp_path / 'both'}", f"--cache_dir={trained / 'cache'}")
    assert "at most 6 tokens" in out
    said = {
        f"{split}{row['image_id']}.jpg": [caption["caption"] for caption in row["captions"]]
        for split in ("val", "test")
        for row in content(tmp_path / "both" / "results" / split / "ensemble.n_best.json")
    }
    output = tmp_path / "captions.json"
    features = f"--features={trained / 'data' / 'features.npz'}"
    out = fine("--mode=caption", together, *beam, features, f"--output={output}")
    captioned = {row["image_id"]: row["caption"] for row in content(output)}
    assert {name: texts[0] for name, texts in said.items()}.items() <= captioned.items()
    for name, texts in said.items():
        assert [line.split(": ")[1].split(" (log")[0] for line in out.splitlines() if line.startswith(name)] == texts
    alone = content(trained / "a" / "results" / "val" / "mle.json")
    assert any(captioned[f"val{row['image_id']}.jpg"] != row["caption"] for row in alone)

    captioner = spidercap.load([trained / "a", trained / "b"], decode="beam", beam_width=3, n_best=2)
    assert captioner.takes_features and captioner.takes_parts
    with np.load(trained / "data" / "features.npz") as parts:
        of_image = captioner.caption_features(parts["val0.jpg"][None])[0]
    assert [caption for caption, _ in of_image] == said["val0.jpg"]


@pytest.mark.long
def test_images_with_two_networks(seeing, tmp_path):
    together = f"--workdir={seeing / 'mean'},{seeing / 'cells'}"
    fine("--mode=evaluate", together, f"--output={tmp_path / 'both'}")
    said = [row["caption"] for row in content(tmp_path / "both" / "results" / "val" / "ensemble.json")]
    images = seeing / "mean" / "samples"
    out = fine("--mode=caption", together, f"--images={images}")
    assert [line.split(": ")[1].split(" (log")[0] for line in out.splitlines() if "val_" in line] == said[:2]
    captioner = spidercap.load([seeing / "mean", seeing / "cells"], decode="nucleus", n_best=2)
    paths = [images / "val_0.png", images / "val_1.png"]
    found = captioner.caption(paths, seed=1)
    (alone,), (_, together) = captioner.caption(paths[1:], seed=1), found
    assert [words for words, _ in alone] == [words for words, _ in together] and len(found[0]) == 2
    # Products of one image and of two are rounded differently.
    np.testing.assert_allclose([log_prob for _, log_prob in alone], [log_prob for _, log_prob in together], rtol=1e-5)
    with pytest.raises(UserError, match="take images alone"):
        captioner.caption_features(np.zeros([1, 512], np.float32))


class TestRefusals:
    @pytest.mark.parametrize("mode", ["train", "prepare", "export", "status", "demo"])
    def test_modes_of_one_run(self, mode, trained):
        error = refused(f"--mode={mode}", f"--workdir={trained / 'a'},{trained / 'b'}")
        assert f"names 2 runs, and --mode={mode} takes one" in error
        assert "--mode=evaluate and --mode=caption" in error

    def test_training_from_python(self, tmp_path):
        with pytest.raises(UserError, match="takes one"):
            spidercap.train(workdir=f"{tmp_path}/a,{tmp_path}/b")
        assert not list(tmp_path.iterdir())

    def test_other_words_are_named(self, trained):
        error = refused("--mode=evaluate", f"--workdir={trained / 'a'},{trained / 'few'}")
        assert f"{trained / 'few'} has another vocabulary than {trained / 'a'}: '" in error
        assert f"in {trained / 'a'} alone" in error and "--min_word_count" in error
        with pytest.raises(UserError, match="another vocabulary"):
            spidercap.load([trained / "a", trained / "few"])

    def test_words_in_another_order_are_named(self, trained, monkeypatch):
        read = identity.kept_vocabulary
        vocabulary = read(Config.of(workdir=str(trained / "a")))
        turned = type(vocabulary)((*vocabulary.words[:4], *vocabulary.words[:3:-1]), ())
        monkeypatch.setattr(
            "spidercap.pipeline.ensembles.identity.kept_vocabulary",
            lambda config: turned if "copy" in config.run.workdir else read(config),
        )
        with pytest.raises(UserError, match=f"token 4 is '{vocabulary.words[4]}' in .*a and '{turned.words[4]}' in"):
            spidercap.load([trained / "a", trained / "copy"])

    @pytest.mark.long
    def test_features_and_images(self, trained, seeing):
        error = refused("--mode=evaluate", f"--workdir={trained / 'a'},{seeing / 'mean'}")
        assert f"{trained / 'a'} was trained on features and {seeing / 'mean'} on images" in error

    def test_one_run_twice_and_no_run(self, trained):
        link = trained / "link"
        link.symlink_to(trained / "a")
        assert "is named twice" in refused("--mode=evaluate", f"--workdir={trained / 'a'},{link}")
        assert "none holds no run" in refused("--mode=evaluate", f"--workdir={trained / 'a'},{trained / 'none'}")
        with pytest.raises(UserError, match="none holds no run"):
            spidercap.load([trained / "a", trained / "none"])

    def test_places_of_other_results(self, trained):
        together = ("--mode=evaluate", f"--workdir={trained / 'a'},{trained / 'copy'}")
        assert "is the folder of a run" in refused(*together, f"--output={trained / 'b'}")
        other = trained / "other"
        other.mkdir()
        (other / "summary.json").write_text(json.dumps({"members": [{"workdir": "/c"}, {"workdir": "/d"}]}))
        assert "holds results of /c, /d" in refused(*together, f"--output={other}")
        assert "those of one are in its workdir" in refused(
            "--mode=evaluate", f"--workdir={trained / 'a'}", f"--output={other}"
        )

    def test_settings_that_are_not_of_decoding(self, trained):
        with pytest.raises(UserError, match="units is no setting of decoding"):
            spidercap.load([trained / "a", trained / "copy"], units=3)
        with pytest.raises(UserError, match="decode is for a list"):
            spidercap.load(trained / "a", decode="beam")
        with pytest.raises(UserError, match="names no workdir"):
            spidercap.load([])


def test_a_folder_with_a_comma_is_one_run(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert named_workdirs(f"{tmp_path}/a,b") == [f"{tmp_path}/a,b"]
    assert named_workdirs(f"{tmp_path}/a, {tmp_path}/b,") == [f"{tmp_path}/a", f"{tmp_path}/b"]
