"""Whole runs that train the encoder, too: stopped and resumed, exported, started warm, and what is refused."""

import contextlib
import io
import os
import shutil
import signal

import numpy as np
import pytest

from spidercap.models.images import decode_image, resize_image
from spidercap.pipeline import api, main, modes
from spidercap.pipeline.data.records import read_images
from spidercap.pipeline.errors import SAVED, UserError
from spidercap.pipeline.evaluation.evaluate import build_decoder
from spidercap.pipeline.portable_exports import load_exported
from spidercap.pipeline.preparation import prepare_to_score
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.settings.growth import changes_of_begun
from spidercap.pipeline.training import identity, kept
from spidercap.pipeline.training.stage_loop import StageLoop
from tests.conftest import ROOT
from tests.run_outcome import differing, outcome
from tests.small_exports import unchecked

LAYER = "block5_conv1"
STAGES = ("--stages=mle:0.6,vine:1", "--rollouts=1", "--learning_rate=mle:1e-2,vine:1e-3,encoder:1e-3")
TUNED = ("--finetune_encoder", f"--finetune_from={LAYER}", "--evaluate_every=0.5", *STAGES)


def flags(folder, *more):
    tiny = ("main", f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--views=2")
    return [*tiny, f"--workdir={folder / 'run'}", f"--cache_dir={folder / 'cache'}", *more]


def run(folder, *more):
    """Exit code and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out), unchecked():
        code = main.main(flags(folder, *more))
    return code, out.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run from LAYER on, and its settings."""
    folder = tmp_path_factory.mktemp("tuned")
    code, printed = run(folder, *TUNED)
    assert code == 0, printed
    return folder, parse(flags(folder, *TUNED))


@pytest.mark.long
def test_a_run_that_is_stopped_ends_as_one_that_is_not(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0] / "cache", tmp_path / "cache")
    validated, stopped = StageLoop._validated, []

    def stop_once_in_each_stage(loop):
        if loop.stage.name not in stopped:
            stopped.append(loop.stage.name)
            os.kill(os.getpid(), signal.SIGTERM)
        return validated(loop)

    monkeypatch.setattr(StageLoop, "_validated", stop_once_in_each_stage)
    assert [run(tmp_path, *TUNED)[0] for _ in range(3)] == [SAVED, SAVED, 0] and stopped == ["mle", "vine"]
    assert differing(tmp_path, outcome(finished[0])) == ""


@pytest.mark.long
def test_the_export_has_the_tuned_layers(finished):
    folder, config = finished
    first, models = identity.kept_encoder(config), load_exported(config)
    exported = api.load(folder / "run")
    files = sorted((folder / "run" / "samples").iterdir())
    images = [file.read_bytes() for file in files]
    pixels = np.stack([resize_image(decode_image(image), 64) for image in images])
    served = exported.signatures["encode"](image_bytes=np.array(images, object))["features"].numpy()
    np.testing.assert_allclose(served, models.encoder(pixels), rtol=1e-4, atol=1e-5)
    before = first(pixels).numpy()
    assert np.abs(served - before).max() > 1e-3 * np.abs(before).max()
    moved = {
        weight.path.split("/")[-2]
        for weight, old in zip(models.captioner.tuned.weights, kept_start(config), strict=True)
        if not np.array_equal(weight.numpy(), old)
    }
    assert moved == {LAYER, "block5_conv2", "block5_conv3"}


def kept_start(config):
    """The weights of the tuned layers before training."""
    return kept.build_models(config, identity.kept_vocabulary(config), 512)[0].tuned.get_weights()


@pytest.mark.long
def test_evaluation_of_the_export_is_that_in_memory(finished):
    """The captions of the validation images by the exported model are those of the results."""
    folder, config = finished
    models = load_exported(config)
    data = prepare_to_score(config)
    assert data.features["val"].shape == (12, 1, 4, 4, 512)
    said = build_decoder(models.captioner, config.data.max_length)(data.features["val"].view())
    words = [data.vocabulary.decode(ids) for ids in said.tokens[:, 0]]
    images = list(read_images(data.splits["val"], range(12)).values())
    by_export = [of_image[0] for of_image in api.load(folder / "run").caption(images)]
    # Maps are stored as float16.
    np.testing.assert_allclose([p for _, p in by_export], said.log_prob[:, 0], atol=2e-2)
    assert sum(a == b for a, (b, _) in zip(words, by_export, strict=True)) >= 11


@pytest.mark.long
def test_all_layers_from_pixels(tmp_path):
    """Pixels are stored as they are read, so the exported model computes the same."""
    more = ("--finetune_encoder", "--stages=mle:0.2", "--scenes_train=20", "--scenes_val=4", "--scenes_test=0")
    code, printed = run(tmp_path, *more)
    assert code == 0, printed
    shard = next((tmp_path / "cache" / "features").rglob("features.npy"))
    assert np.load(shard, mmap_mode="r")["features"].dtype == np.uint8
    assert run(tmp_path, *more, "--mode=evaluate")[0] == 0
    said = (tmp_path / "run" / "results" / "val" / "mle.json").read_text()
    captions = api.load(tmp_path / "run").caption(sorted((tmp_path / "run" / "samples").iterdir()))
    assert all(f'"{of_image[0][0]}"' in said for of_image in captions)


@pytest.mark.long
def test_a_warm_start_from_a_frozen_encoder(tmp_path, monkeypatch):
    for name in ("export_once", "run_caption"):
        monkeypatch.setattr(modes, name, lambda *_: None)
    before = tmp_path / "frozen"
    assert run(before, "--stages=mle:0.4")[0] == 0
    shutil.copytree(before / "cache", tmp_path / "cache")
    start = (f"--warm_start={before / 'run'}", "--finetune_encoder", f"--finetune_from={LAYER}", "--stages=vine:0.3")
    code, printed = run(tmp_path, *start, "--rollouts=1")
    assert code == 0, printed
    other = tmp_path / "other"
    code, printed = run(other, f"--warm_start={tmp_path / 'run'}", "--stages=vine:0.3", "--rollouts=1")
    assert code == 1 and "finetune_encoder: True -> False" in printed


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"finetune_encoder": True, "dataset": "files", "features": "f.npz", "captions": "c"}, "--features=f.npz"),
            ({"finetune_from": "block_13_expand"}, "add --finetune_encoder"),
            ({"learning_rate": "mle:1e-3,encoder:1e-5"}, "--learning_rate=encoder:1e-05 .* add it"),
            ({"finetune_encoder": True, "learning_rate": "encoder:0"}, "above 0"),
            ({"finetune_encoder": True, "decay": "encoder:0.5"}, "unknown"),
        ],
    )
    def test_settings(self, settings, expected):
        with pytest.raises(UserError, match=expected):
            Config.of(workdir="w", **settings)

    @pytest.mark.parametrize(
        ("layer", "expected"),
        [("block_16_expnd", ("has no layer", "block_16_expand")), ("block_15_project", ("pass by", "block_15_expand"))],
    )
    def test_layers_before_any_work_is_done(self, tmp_path, layer, expected):
        code, printed = run(tmp_path, "--encoder=MobileNetV2", "--finetune_encoder", f"--finetune_from={layer}")
        assert code == 1 and all(text in printed for text in (*expected, f"--finetune_from={layer}", "allowed: "))
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize(("begun", "refused"), [(0, False), (1, True)])
    def test_another_rate_once_a_stage_has_begun(self, begun, refused):
        old, new = (
            Config.of(
                workdir="w", finetune_encoder=True, stages="mle:1,vine:1", learning_rate=f"mle:1e-3,encoder:{rate}"
            )
            for rate in ("1e-5", "1e-4")
        )
        assert bool(changes_of_begun(old, new, begun)) == refused

    def test_the_rate_has_a_default_and_is_that_of_all_stages(self):
        config = Config.of(workdir="w", finetune_encoder=True)
        assert config.of_stage("learning_rate", "encoder") == 1e-5
        config = Config.of(workdir="w", finetune_encoder=True, learning_rate="encoder:3e-5")
        assert config.of_stage("learning_rate", "encoder") == 3e-5 and config.of_stage("learning_rate", "mle") == 1e-3


@pytest.mark.long
def test_where_a_captioner_looks_through_tuned_layers(tmp_path, monkeypatch):
    for name in ("export_once", "run_caption"):
        monkeypatch.setattr(modes, name, lambda *_: None)
    small = ("--scenes_train=20", "--scenes_val=4", "--scenes_test=0", "--stages=mle:0.2")
    code, printed = run(tmp_path, *TUNED, *small, "--decoder=attention", "--learning_rate=mle:1e-2")
    assert code == 0, printed
    assert "looked at" in (tmp_path / "run" / "report.html").read_text()
