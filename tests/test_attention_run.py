"""Whole runs of the captioner that attends: from regions, from images, and what does not fit together."""

import json
import pathlib
import re

import numpy as np
import pytest

from spidercap.models.captioners import CAPTIONERS
from spidercap.pipeline import main
from spidercap.pipeline.settings.groups import ModelSettings
from tests import faults
from tests.conftest import ROOT


def run(capsys, *flags):
    code = main.main(["main", *flags])
    told = capsys.readouterr()
    return code, told.out, told.err


def best_of(printed, stage):
    """The CIDEr of the stage's last validation that was the best, as it was printed."""
    best = re.findall(rf"^{stage} epoch .*validation CIDEr ([0-9.]+) \(best\)", printed, re.MULTILINE)
    return best[-1]


@pytest.fixture(scope="module", params=["attention", pytest.param("transformer", marks=pytest.mark.long)])
def regions(request, tmp_path_factory):
    """The flags of a run on images with one to four regions each, and the file of their features."""
    folder = tmp_path_factory.mktemp("regions")
    flags = faults.make_regions(folder / "data")
    path = folder / "data" / "features.npz"
    flags = (*faults.FLAGS, *flags, f"--workdir={folder / 'run'}", f"--cache_dir={folder / 'cache'}")
    return (*flags, f"--decoder={request.param}"), path


def test_regions_from_training_to_captions_by_the_exported_model(regions, capsys, tmp_path):
    flags, path = regions
    code, out, err = run(capsys, *flags)
    assert code == 0, err
    workdir = next(flag for flag in flags if flag.startswith("--workdir="))
    folder = pathlib.Path(workdir.partition("=")[2])
    # What is on the disk at the end is what was validated in memory.
    for stage in ("mle", "pg"):
        kept = json.loads((folder / "results" / "val" / f"{stage}.metrics.json").read_text())
        assert best_of(out, stage) == f"{kept['CIDEr']:.4f}" != "0.0000"
    page = (folder / "report.html").read_text()
    assert "<article" in page and "maps" not in page  # where regions lie is not known
    captions = ("--mode=caption", workdir, f"--features={path}", f"--output={tmp_path / 'captions.json'}")
    assert run(capsys, *captions)[0] == 0
    written = json.loads((tmp_path / "captions.json").read_text())
    assert len(written) == sum(faults.SPLITS.values())
    said = {line.split(": ")[0]: line for line in out.splitlines() if line.startswith("val")}
    again = run(capsys, *captions)[1]
    assert said and all(line in again for line in said.values())


def test_vectors_are_refused_with_a_remedy(capsys, tmp_path):
    vectors = faults.make_data(tmp_path / "data")
    here = (f"--workdir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}")
    code, _, err = run(capsys, *faults.FLAGS, *vectors, *here, "--decoder=attention")
    assert code == 1 and "without parts to attend to" in err and "--decoder=lstm" in err


def test_a_warm_start_from_another_network_is_refused(regions, capsys, tmp_path):
    flags, _ = regions
    other = [flag for flag in flags if not flag.startswith(("--workdir", "--decoder"))]
    start = next(flag for flag in flags if flag.startswith("--workdir")).partition("=")[2]
    code, _, err = run(capsys, *other, f"--workdir={tmp_path / 'run'}", f"--warm_start={start}")
    assert code == 1 and "decoder" in err and "another model" in err


@pytest.mark.long
def test_cells_of_images_are_computed(capsys, tmp_path):
    flags = (f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--mode=prepare", "--scenes_train=16", "--views=2")
    here = (f"--workdir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}")
    code, _, err = run(capsys, *flags, *here, "--decoder=attention")
    assert code == 0, err
    folder = next((tmp_path / "cache" / "features").iterdir())
    shards = list(folder.rglob("features.npy"))
    assert {np.load(path, mmap_mode="r").dtype["features"].shape for path in shards} == {(4, 512)}


def test_all_of_them_can_be_asked_for():
    field = ModelSettings.__dataclass_fields__["decoder"]
    assert set(field.metadata["choices"]()) == set(CAPTIONERS)
