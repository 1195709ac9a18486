"""How long stages are on few and on many images, how their learning rate falls, and what is said of it."""

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.settings.saved import differences
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.settings.training_groups import Stage
from spidercap.pipeline.training.kept import build_models
from spidercap.pipeline.training.lengths import batch_note, length_note, planned_steps, validation_interval
from spidercap.pipeline.training.stages import build_stage
from tests.tiny_runs import VOCABULARY, cider_of, config_of, make_arrays

MLE, PG = STAGES["mle"], STAGES["pg"]


def stages_of(text):
    return Config.of(workdir="w", stages=text).training.parsed_stages()


class TestSetting:
    def test_a_name_alone_has_the_default_length(self):
        assert stages_of("mle, pg:0.5,baseline,mle") == (
            *(Stage("mle", None), Stage("pg", 0.5), Stage("baseline", None), Stage("mle", None)),
        )
        assert [stage.name for stage in Config.of(workdir="w").training.parsed_stages()] == ["mle", "vine"]

    @pytest.mark.parametrize("text", ["mle:", "mle:x", "mlee", "20", "mle:1,pg:"])
    def test_other_text_is_rejected(self, text):
        with pytest.raises(UserError):
            stages_of(text)

    @pytest.mark.parametrize("name", ["learning_rate", "decay"])
    def test_rates_need_their_number(self, name):
        with pytest.raises(UserError, match="'mle' is not name:number; for example"):
            Config.of(workdir="w", **{name: "mle"})

    def test_saved_lengths_are_compared(self):
        assert not differences({"stages": "mle,pg:2"}, {"stages": " mle, pg:2.0"})
        assert differences({"stages": "mle,pg:2"}, {"stages": "mle:20,pg:2"})
        assert differences({"stages": "mle,pg"}, {"stages": "pg,mle"})
        assert differences({"stages": "mle:20,baseline:1,pg:10"}, {"stages": fields()["stages"].default})


@pytest.mark.parametrize("captions", [1, 5])
def test_6000_images_have_the_lengths_in_epochs(captions):
    """At the default batch size, with one caption an image or five."""
    for name, epochs in (("mle", 20), ("baseline", 1), ("pg", 10)):
        per_epoch = 6000 * (captions if STAGES[name].unit == "caption" else 1) / 64
        assert planned_steps(Stage(name, None), per_epoch) == planned_steps(Stage(name, epochs), per_epoch)


@pytest.mark.parametrize("name", STAGES)
def test_few_images_have_the_least_number_of_updates(name):
    for per_epoch in (1 / 64, 0.3, 1.0, 3.1):
        assert planned_steps(Stage(name, None), per_epoch) == STAGES[name].least_updates
    assert planned_steps(Stage(name, 7.0), 3.0) == 21
    assert planned_steps(Stage(name, 0.01), 3.0) == 1


@pytest.mark.parametrize(
    ("every", "per_epoch", "steps"),
    [(0, 0.1, 20), (0, 3.1, 20), (0, 20.6, 21), (0, 469.0, 469), (1.0, 3.1, 3), (1.0, 0.1, 1), (0.5, 100.0, 50)],
)
def test_validations_are_20_updates_apart_unless_asked_for(every, per_epoch, steps):
    assert validation_interval(every, per_epoch) == steps


def test_a_stage_that_is_longer_than_asked_is_reported():
    note = length_note(Stage("pg", 0.2), 5 / 64, 64, "image")
    assert "0.2 epochs are less than one update of 64 images" in note and "which is 12.8 epochs; lower" in note
    assert "--batch_size" not in length_note(Stage("pg", 0.2), 1.0, 1, "image")
    for stage, per_epoch in ((Stage("pg", 0.2), 5.0), (Stage("pg", 0.9), 1.0), (Stage("pg", None), 0.1)):
        assert length_note(stage, per_epoch, 64, "image") == ""


def test_a_batch_larger_than_the_data_is_reported():
    assert batch_note(64, 64, "image") == batch_note(65, 64, "image") == ""
    note = batch_note(20, 64, "caption")
    assert "more than the 20 training captions" in note and "3.2 times; lower it to 20 or less" in note
    assert "the 1 training image," in batch_note(1, 2, "image")


def built(tmp_path, index=0, **changes):
    """A stage over 48 captions of 24 images."""
    config, arrays = config_of(tmp_path, **changes), make_arrays()
    return build_stage(config, index, *build_models(config, VOCABULARY, 5), arrays, cider_of(arrays))


def test_notes_of_a_built_stage(tmp_path):
    assert built(tmp_path, stages="mle:1", batch_size=24).notes == {}
    assert list(built(tmp_path, stages="mle:1", batch_size=49).notes) == ["batch"]
    assert list(built(tmp_path, 1, stages="mle:1,pg:0.1", batch_size=30).notes) == ["length", "batch"]
    # Once a run.
    assert list(built(tmp_path, 1, stages="mle:1,pg:2", batch_size=49).notes) == []


@pytest.mark.parametrize(
    ("stages", "index", "steps"), [("mle", 0, MLE.least_updates), ("mle:3", 0, 21), ("mle:1,pg:4", 1, 14)]
)
def test_the_rate_falls_by_the_decay_over_the_whole_stage(tmp_path, stages, index, steps):
    """A little in each update, and so does that of the learned baseline."""
    more = {"learning_rate": "mle:1e-2,pg:1e-2,baseline:1e-3", "decay": "mle:0.25,pg:0.25,baseline:0.01"}
    stage = built(tmp_path, index, stages=stages, **more)
    assert stage.steps == steps
    for name, first, decay in (("optimizer", 1e-2, 0.25), ("baseline_optimizer", 1e-3, 0.01)):
        if optimizer := stage.state.get(name):
            for done in (0, 1, steps // 2, steps):
                optimizer.iterations.assign(done)
                assert float(optimizer.learning_rate) == pytest.approx(first * decay ** (done / steps), rel=1e-5)
    assert ("baseline_optimizer" in stage.state) == stages.endswith("pg:4")


def test_a_decay_of_1_keeps_the_rate(tmp_path):
    optimizer = built(tmp_path, stages="mle:1", decay="mle:1").state["optimizer"]
    optimizer.iterations.assign(5)
    assert float(optimizer.learning_rate) == pytest.approx(1e-2)
