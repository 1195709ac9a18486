"""TensorBoard's files: what is shown in which order with which text, the settings, and points that come once."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import Evaluation
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.saved import changed_settings
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.training.scalar_texts import OF_STEPS, step_text
from spidercap.pipeline.training.tensorboard import Board
from tests.run_outcome import summaries
from tests.test_logs import NAMES
from tests.tiny_runs import cider_of, config_of, make_arrays, run

SETTINGS = {"stages": "mle:1", "units": 7, "dropout": 0.25, "jit": True}
HPARAMS = metadata.SESSION_START_INFO_TAG


def board(folder, settings=SETTINGS):
    return Board(folder, np.zeros([1, 4, 4, 3], np.float32), [["a cat"]], settings)


def points(folder):
    """(tag, step) of all points in TensorBoard's files, but the settings."""
    return [(value.tag, step) for step, value in summaries(folder / "run") if value.tag != HPARAMS]


def read(folder):
    """The runs as TensorBoard reads them."""
    shown = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    assert list(shown.Runs()) == ["run"]
    return shown


def settings_shown(shown):
    content = shown.SummaryMetadata("run", HPARAMS).plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}


def test_a_whole_run(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.tiny_runs.Silent", lambda: board(tmp_path / "logs"))
    arrays = make_arrays()
    config = config_of(tmp_path / "run", stages="mle:1,baseline:1,pg:1", log_every=1)
    for _ in range(2):  # the second time it is finished already
        _, progress = run(config, arrays, reward=cider_of(arrays))
        shown = read(tmp_path / "logs")
        tags = shown.PluginRunToTagToContent("scalars")["run"]
        assert sorted({tag.split("/")[0] for tag in tags}) == ["eval", "train_mle", "train_pg"]
        assert all(shown.SummaryMetadata("run", tag).summary_description for tag in tags)
        warm_up, rewards = (
            [e.step for e in shown.Tensors("run", f"train_pg/{n}")] for n in ("baseline_loss", "reward")
        )
        assert len(warm_up) == len(rewards) + progress.finished[1].steps and set(rewards) < set(warm_up)
        scores = [float(tf.make_ndarray(event.tensor_proto)) for event in shown.Tensors("run", "eval/CIDEr")]
        validations = [row.metrics["CIDEr"] for row in progress.history]
        best = max(row.metrics["CIDEr"] for row in progress.history if row.stage == "pg")
        assert scores == pytest.approx([*validations, best])
        assert settings_shown(shown) == SETTINGS
        assert len(points(tmp_path / "logs")) == len(set(points(tmp_path / "logs")))
        assert shown.SummaryMetadata("run", metadata.SESSION_END_INFO_TAG)


def test_points_after_the_checkpoint_are_taken_back(tmp_path):
    logs = tmp_path / "run"
    first = board(tmp_path)
    first.begin({}, shown=False)
    first.scalars(1, "mle", {"loss": 2.0})
    sizes = first.flush()
    first.scalars(2, "mle", {"loss": 1.0})
    first.finish(3, {"CIDEr": 0.5})
    (logs / "events.out.tfevents.9.later").write_bytes(b"of a process that was killed")
    (logs / "notes.txt").write_text("of the user")
    second = board(tmp_path, SETTINGS | {"units": 8})
    second.begin(sizes, shown=True)
    second.scalars(2, "mle", {"loss": 1.5})
    second.flush()
    assert (logs / "notes.txt").exists()
    # Files of one second are in the order of their names, in which the 10th comes before the 9th.
    assert sorted(points(tmp_path)) == [("train_mle/loss", 1), ("train_mle/loss", 2)]
    assert settings_shown(read(tmp_path))["units"] == 8  # those of the run that goes on, once


def test_a_silent_one_writes_nothing(tmp_path):
    silent = Board(tmp_path, np.zeros([1, 4, 4, 3], np.float32), [["a cat"]], SETTINGS, silent=True)
    silent.begin({}, shown=False)
    silent.validation(1, Evaluation(("a cat",), {"CIDEr": 1.0}, ()))
    silent.finish(2, {"CIDEr": 1.0})
    assert silent.flush() == {} and not list(tmp_path.iterdir())


def test_every_scalar_of_a_step_has_a_text_of_its_own():
    names = {name for of_stage in NAMES.values() for name in of_stage} | {"own words read"}
    assert names - {"reward CIDEr"} == set(OF_STEPS)
    assert "CIDEr" in step_text("reward CIDEr")
    assert set(NAMES) == set(STAGES)


def test_settings_that_differ_are_shown(tmp_path):
    config = Config.of(
        workdir=str(tmp_path), units=7, learning_rate="mle:1e-3,pg:2e-5", encoder="MobileNetV2", jit=True
    )
    changed = changed_settings(config)
    assert changed == {"units": 7, "learning_rate": "mle:1e-3,pg:2e-5", "encoder": "MobileNetV2", "image_size": 224}


def test_a_path_that_is_not_utf8_and_a_folder_that_is_a_file(tmp_path):
    one = board(tmp_path / "a", {"warm_start": "runs/caf\udce9"})
    one.begin({}, shown=False)
    one.flush()
    assert settings_shown(read(tmp_path / "a"))["warm_start"] == "runs/caf\\xe9"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        board(tmp_path / "b").begin({}, shown=False)
