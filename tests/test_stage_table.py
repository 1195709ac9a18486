"""Stages and data sets are rows of tables; settings that differ by stage, and those that no stage reads."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import Source, Split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config, fields
from spidercap.pipeline.settings.datasets import DATASETS, DatasetKind
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.settings.saved import differences, read_settings
from spidercap.pipeline.settings.stages import STAGES, StageKind
from spidercap.pipeline.training import objectives
from spidercap.pipeline.training.experience import Credit, Objective
from spidercap.pipeline.training.kept import temperature_at
from tests.tiny_runs import assert_same_end, config_of, make_arrays, run


def parsed(*words):
    return parse(["main", "--workdir=w", *words])


class TestByStage:
    def test_a_number_is_for_all_stages_and_pairs_for_those_they_name(self):
        config = parsed("--samples=pg:1,leave_one_out:5", "--rollouts=0", "--stages=mle:1,pg:1,leave_one_out:1")
        assert [config.of_stage("samples", s) for s in ("pg", "leave_one_out", "scst")] == [1, 5, 1]
        assert config.of_stage("rollouts", "pg") == 0
        assert isinstance(config.of_stage("samples", "pg"), int)
        assert config.of_stage("learning_rate", "mle") == STAGES["mle"].learning_rate
        assert parsed("--learning_rate=pg:1e-4").of_stage("learning_rate", "mle") == STAGES["mle"].learning_rate

    @pytest.mark.parametrize(
        ("flag", "words"),
        [
            ("--samples=pg:0", "--samples=pg:0 is invalid; allowed: a whole number from 1 to 1000"),
            ("--samples=pg:1.5", "a whole number from 1 to 1000"),
            ("--samples=pgg:2", "did you mean pg?"),
            ("--samples=pg:2,pg:3", "pg comes twice"),
            ("--samples=", "is invalid"),
            ("--samples=pg:", "is invalid"),
            ("--rollouts=-1", "a whole number from 0 to 1000"),
            ("--temperature=mle:0.5,pg:0", "a number from 0.05 to 10"),
            ("--temperature=nan", "is invalid"),
            ("--weight_average=1", "a number from 0 to 0.99999"),
        ],
    )
    def test_what_is_no_number_of_a_stage_is_rejected(self, flag, words):
        with pytest.raises(UserError) as error:
            parsed(flag)
        assert words in str(error.value)

    def test_each_stage_is_checked_by_its_own_number(self):
        parsed("--stages=pg:1,leave_one_out:1", "--samples=leave_one_out:2")
        with pytest.raises(UserError, match="no other sample"):
            parsed("--stages=pg:1,leave_one_out:1", "--samples=pg:2")
        with pytest.raises(UserError, match="share_rollouts shares nothing"):
            parsed("--stages=pg:1", "--samples=leave_one_out:5", "--share_rollouts")

    def test_the_warm_up_takes_over_at_the_temperature_of_the_stage_it_warms_up_for(self):
        config = parsed("--stages=mle:1,baseline:1,pg:1,leave_one_out:1", "--temperature=pg:0.5", "--samples=2")
        assert [temperature_at(config, k) for k in range(4)] == [1, 0.5, 1, 1]

    def test_one_run_has_several_estimators(self, tmp_path):
        """As two runs of which the second begins with the first one's weights."""
        arrays = make_arrays()
        more = {"stages": "mle:1,pg:1,leave_one_out:1", "samples": "pg:1,leave_one_out:3", "rollouts": "pg:1"}
        config = config_of(tmp_path / "one", **more)
        _, progress = run(config, arrays)
        scored = {row.stage: row.captions_scored for row in progress.history}
        assert scored["leave_one_out"] == 3 * progress.finished[2].images_seen
        assert scored["pg"] > 2 * progress.finished[1].images_seen  # samples and their rollouts

    def test_numbers_and_pairs_are_the_same_run(self, tmp_path):
        arrays = make_arrays()
        one = run(config_of(tmp_path / "a", stages="mle:1,leave_one_out:1", samples=3), arrays)
        other = run(config_of(tmp_path / "b", stages="mle:1,leave_one_out:1", samples="leave_one_out:3"), arrays)
        assert_same_end(one, other)


class TestSaved:
    def test_workdirs_of_numbers_and_aliases_are_read(self, tmp_path):
        """As config.json was written when these settings were numbers, and the data set was called folder."""
        settings = json.loads(Config.of(workdir="w").to_json())
        settings |= {"samples": 5, "rollouts": 3, "temperature": 0.5, "weight_average": 0.0, "dataset": "folder"}
        settings |= {"decay": "mle:0.85,baseline:1,pg:1,mixer:1,scst:1,leave_one_out:1.0"}
        path = tmp_path / "config.json"
        path.write_text(json.dumps(settings))
        saved = read_settings(path)
        config = Config.of(**saved, mode="evaluate")
        assert (config.rewards.samples, config.rewards.temperature, config.data.dataset) == ("5", "0.5", "files")
        assert not differences({n: saved[n] for n in config.fixed()}, config.fixed())
        assert differences({"samples": 5}, {"samples": "leave_one_out:5"})

    def test_a_number_is_kept_to_its_last_digit(self):
        config = Config.of(workdir="w", temperature=1 / 3, weight_average=0.12345678901234567)
        assert config.of_stage("temperature", "pg") == 1 / 3
        assert not differences(
            {"weight_average": 0.12345678901234567}, {"weight_average": config.flat()["weight_average"]}
        )

    def test_the_order_of_pairs_does_not_matter_but_for_stages(self):
        for name, one, other in (
            ("samples", "pg:1,leave_one_out:3", "leave_one_out:3,pg:1"),
            ("learning_rate", "mle:1e-3,pg:1e-4", "pg:0.0001,mle:0.001"),
        ):
            assert not differences({name: one}, {name: other})
        assert differences({"stages": "mle:1,pg:1"}, {"stages": "pg:1,mle:1"})

    @pytest.mark.parametrize("value", ["pg:1,leave_one_out:x", None, "hot", True, [1], {"pg": 1}])
    @pytest.mark.parametrize("name", ["samples", "temperature", "learning_rate", "stages"])
    def test_what_is_no_number_in_a_saved_file_is_another_setting(self, name, value):
        assert differences({name: value}, {name: fields()[name].default})

    def test_numbers_of_numpy_and_paths_are_taken(self, tmp_path):
        config = Config.of(workdir=tmp_path, samples=np.int64(2), dropout=np.float64(0.25), units=np.int32(8))
        assert (config.of_stage("samples", "pg"), config.likelihood.dropout, config.model.units) == (2, 0.25, 8)
        assert config.workdir_path() == tmp_path and json.loads(config.to_json())["units"] == 8

    def test_every_field_is_in_one_group(self):
        names = [f.name for group in vars(Config.of(workdir="w")).values() for f in dataclasses.fields(group)]
        assert len(names) == len(set(names)) == len(fields())
        with pytest.raises(TypeError, match="hoops"):
            Config.of(workdir="w", hoops=3)


class TestWithoutEffect:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--stages=mle:1", "--rollouts=5"], "--rollouts=5 has no effect with --stages=mle:1; it is read by base"),
            (["--beam_width=9"], "--beam_width=9 has no effect with --decode=greedy"),
            (["--stages=mle:1,pg:1", "--mixer_step=2"], "--mixer_step=2 has no effect"),
            (["--stages=mle:1,pg:1", "--samples=pg:2,scst:3"], "--samples=pg:2,scst:3 of scst has no effect"),
            (["--stages=pg:1", "--label_smoothing=0.1"], "it is read by mle"),
            (["--stages=mle:1,mixer:1", "--samples=4"], "--samples=4 has no effect"),
        ],
    )
    def test_it_is_told(self, words, told):
        lines = parsed(*words).without_effect()
        assert len(lines) == 1 and told in lines[0]

    def test_what_has_one_is_not(self):
        every = "mle:1,baseline:1,pg:1,mixer:1,scst:1,leave_one_out:1,vine:1"
        words = ["--samples=2", "--rollouts=1", "--mixer_step=2", "--label_smoothing=0.1", "--weight_average=0.9"]
        assert parsed(f"--stages={every}", *words, "--decode=beam", "--beam_width=9").without_effect() == []
        assert parsed().without_effect() == []

    def test_what_stages_read_are_settings(self):
        for kind in STAGES.values():
            assert kind.reads <= fields().keys()


def constant_credit(captioner, max_length, *, samples):
    """A toy objective: leave-one-out whose every advantage is 0."""
    made = objectives.leave_one_out(captioner, max_length, samples=samples)
    nothing = lambda *args: Credit(*(tf.zeros_like(part) for part in made.credit(*args)[:2]))  # noqa: E731
    return Objective(made.sample, nothing)


def toy_source(settings, cache, wanted):
    """A data set of as many images as there are words in --train_captions, without any image."""
    words = {"train": settings.train_captions.split(), "val": settings.train_captions.split()[:1]}
    splits = {
        name: Split(tuple(range(len(of))), tuple(of), tuple((f"a {word}",) for word in of), tuple(of), None)
        for name, of in words.items()
    }
    return Source({name: f"toy-{'-'.join(of)}" for name, of in words.items()}, lambda: splits)


class TestRows:
    def test_a_toy_objective(self, tmp_path, monkeypatch):
        row = StageKind("a toy", "image", 1e-2, objective=f"{__name__}:constant_credit", settings=("samples",))
        monkeypatch.setitem(STAGES, "toy", row)
        assert parsed("--stages=mle:1,toy:0.5").of_stage("learning_rate", "toy") == 1e-2
        arrays = make_arrays()
        before, _ = run(config_of(tmp_path / "a", stages="mle:1"), arrays)
        after, progress = run(config_of(tmp_path / "b", stages="mle:1,toy:1", samples="toy:2"), arrays)
        assert [row.name for row in progress.finished] == ["mle", "toy"]
        assert progress.history[-1].captions_scored == 2 * progress.finished[-1].images_seen
        for one, other in zip(before, after, strict=True):  # nothing is learned from advantages of 0
            np.testing.assert_array_equal(one, other)

    def test_a_toy_data_set(self, tmp_path, monkeypatch):
        row = DatasetKind("a toy", f"{__name__}:toy_source", needs=(("train_captions",),))
        monkeypatch.setitem(DATASETS, "toy", row)
        with pytest.raises(UserError, match="--dataset=toy needs --train_captions"):
            parsed("--dataset=toy")
        with pytest.raises(UserError, match="--dataset=toy does not read --images"):
            parsed("--dataset=toy", "--images=x")
        config = Config.of(workdir=str(tmp_path / "run"), dataset="toy", train_captions="dog cat cow")
        assert prepare_data(config)["train"].captions == (("a dog",), ("a cat",), ("a cow",))
