"""A run that grows: further stages and settings of stages to come, in the same workdir; what has begun is fixed."""

import json
import shutil

import pytest

from spidercap.pipeline import digests
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.growth import changes_of_begun
from spidercap.pipeline.settings.saved import read_settings
from spidercap.pipeline.training import identity, workdir
from tests import tiny_runs
from tests.tiny_runs import VOCABULARY

STAGES = "mle:2,baseline:1,pg:3"


@pytest.mark.parametrize(
    ("begun", "change", "refused"),
    [
        # stages
        (3, {"stages": f"{STAGES},pg:2"}, False),
        (2, {"stages": "mle:2,baseline:1,vine:4"}, False),
        (2, {"stages": "mle:2,baseline:1"}, False),
        (3, {"stages": "mle:2,baseline:1"}, True),
        (1, {"stages": "mle:3,baseline:1,pg:3"}, True),
        (1, {"stages": "baseline:1,mle:2"}, True),
        (0, {"stages": "pg:1"}, False),
        # rates
        (2, {"learning_rate": "mle:1e-2,baseline:1e-2,pg:5e-3"}, False),
        (3, {"learning_rate": "mle:1e-2,baseline:1e-2,pg:5e-3"}, True),
        (3, {"learning_rate": "mle:1e-2,baseline:1e-2,pg:1e-2,vine:1e-3"}, False),
        (2, {"learning_rate": "mle:1e-2,baseline:2e-2,pg:1e-2"}, True),
        (1, {"learning_rate": "mle:1e-2,baseline:2e-2,pg:1e-2"}, False),
        (1, {"finetune_encoder": True}, True),
        (1, {"decay": "mle:0.5"}, True),
        (1, {"decay": "pg:0.5"}, False),
        # settings of some stages
        (1, {"reward": "bleu4"}, False),
        (2, {"reward": "bleu4"}, True),
        (1, {"reward": "cider:1,own:1", "reward_functions": "own=own.py:own"}, False),
        (2, {"reward": "cider:1,own:1", "reward_functions": "own=own.py:own"}, True),
        (1, {"rollouts": "5"}, False),
        (2, {"rollouts": "5"}, True),
        (2, {"rollouts": "baseline:3,pg:5"}, False),
        (1, {"temperature": "0.5"}, False),
        (2, {"temperature": "0.5"}, True),
        (2, {"temperature": "pg:0.5"}, True),  # the warm-up has applied it
        (1, {"dropout": 0.25}, True),
        (0, {"dropout": 0.25}, False),
        (1, {"weight_average": "pg:0.9"}, False),
        (1, {"weight_average": "0.9"}, True),
        (3, {"mixer_step": 2}, False),
        (1, {"likelihood_weight": 0.5}, False),
        # settings of all
        (1, {"baseline_units": 9}, True),
        (1, {"end_token_in_reward": False}, True),
        (1, {"batch_size": 9}, True),
        (1, {"seed": 9}, True),
        (1, {"units": 9}, True),
        (1, {"best_metric": "BLEU-4"}, True),
        (1, {"decode": "beam"}, True),
        (1, {"log_every": 5}, False),
    ],
)
def test_only_what_has_begun_is_fixed(begun, change, refused):
    old = tiny_runs.config_of("run", stages=STAGES)
    found = changes_of_begun(old, old.with_values(**change), begun)
    assert sorted(line.split(":")[0] for line in found) == sorted(change) * refused


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir as a run of mle leaves it; its data are a few bytes."""
    config = tiny_runs.config_of(tmp_path_factory.mktemp("trained") / "run", stages="mle:2", mode="train")
    folder = config.workdir_path()
    folder.mkdir()
    (folder / "vocabulary.json").write_text(VOCABULARY.to_json())
    for name in ("data.json", "images.npz", "encoder.txt", "encoder.keras"):
        (folder / name).write_text(f"{name} of the run")
    tiny_runs.run(config, tiny_runs.make_arrays())
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """The Config of a copy of it."""
    config = tiny_runs.config_of(tmp_path / "run", stages="mle:2", mode="train")
    shutil.copytree(trained, config.workdir_path())
    (config.workdir_path() / "config.json").write_text(config.to_json())
    digests.record(config.workdir_path(), (*identity.IDENTITY, identity.ENCODER))
    return config


def test_a_run_that_grew_is_one_that_was_asked_for_so_at_once(run, tmp_path, capsys):
    more = {"stages": "mle:2,leave_one_out:1", "samples": "2", "learning_rate": "mle:1e-2,leave_one_out:5e-3"}
    grown = run.with_values(**more)
    with workdir.open_workdir(grown):
        weights, progress = tiny_runs.run(grown, tiny_runs.make_arrays())
    assert "goes on with other settings" in capsys.readouterr().out
    at_once = tiny_runs.run(grown.with_values(workdir=str(tmp_path / "at_once")), tiny_runs.make_arrays())
    tiny_runs.assert_same_end((weights, progress), at_once)
    saved = read_settings(run.workdir_path() / "config.json")
    assert {name: saved[name] for name in more} == more
    assert not digests.faults(run.workdir_path(), digests.recorded(run.workdir_path()))
    with workdir.open_workdir(grown):
        assert "other settings" not in capsys.readouterr().out


def test_a_change_of_what_has_begun_names_what_can_be_done(run):
    message = r"stages: 'mle:2' -> 'mle:3'.*--stages=mle:2,<more>.*--warm_start"
    with pytest.raises(UserError, match=message) as found, workdir.open_workdir(run.with_values(stages="mle:3")):
        pass
    assert "\n" not in str(found.value)


def test_other_modes_do_not_change_a_run(run):
    before = (run.workdir_path() / "config.json").read_bytes()
    other = run.with_values(mode="evaluate", stages="mle:2,pg:1")
    with pytest.raises(UserError, match="has other settings"), workdir.open_workdir(other):
        pass
    assert (run.workdir_path() / "config.json").read_bytes() == before


@pytest.mark.parametrize("writes", range(4))
def test_a_change_that_is_killed_leaves_one_or_the_other(run, monkeypatch, writes):
    """Between any two writes, the workdir is whole, with the old settings or the new ones."""
    grown, count = run.with_values(stages="mle:2,pg:1"), []
    write = workdir.write_text

    def counted(path, text):
        if len(count) == writes:
            raise KeyboardInterrupt
        count.append(path)
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(workdir, "write_text", counted)
        patch.setattr(digests, "write_text", counted)
        if writes < 3:
            with pytest.raises(KeyboardInterrupt), workdir.open_workdir(grown):
                pass
        else:
            with workdir.open_workdir(grown):
                pass
            assert len(count) == 3
    saved = json.loads((run.workdir_path() / "config.json").read_text())
    assert saved["stages"] == ("mle:2" if writes < 2 else "mle:2,pg:1")
    with workdir.open_workdir(grown):
        pass
    assert json.loads((run.workdir_path() / "config.json").read_text())["stages"] == "mle:2,pg:1"
