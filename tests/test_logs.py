"""What stages show by which name, and rows of runs as checkpoints hold them."""

import json

import pytest

from spidercap.pipeline.training.checkpoint_files import PROGRESS
from spidercap.pipeline.training.progress import Progress, read_progress
from tests.tiny_runs import Silent, cider_of, config_of, make_arrays, run

STEP = {"loss", "gradient norm", "skipped updates"}
SAMPLES = {
    "captions scored",
    "advantage spread",
    "entropy",
    "reward",
    "reward CIDEr",
    "best reward",
    "spread of rewards",
    "caption length",
    "never ended",
    "repeated n-grams",
    "distinct captions",
}
LEARNED = {"baseline loss", "explained variance"}
NAMES = {
    "mle": STEP | {"learning rate", "captions a second"},
    "baseline": LEARNED,  # shown with pg, whose baseline it warms up
    "pg": STEP | SAMPLES | LEARNED | {"learning rate", "images a second"},
    "mixer": STEP | SAMPLES | LEARNED | {"learning rate", "likelihood loss", "words given", "captions a second"},
    "scst": STEP | SAMPLES | {"learning rate", "images a second"},
    "leave_one_out": STEP | SAMPLES | {"learning rate", "images a second"},
    "vine": STEP | SAMPLES | {"learning rate", "images a second"},
}
RATES = ",".join(f"{name}:1e-2" for name in NAMES)


class Remembering(Silent):
    """A board that remembers the names of each stage's scalars."""

    def __init__(self):
        self.names = {}

    def scalars(self, step, group, values):
        assert all(type(value) is float for value in values.values())
        self.names.setdefault(group, set()).update(values)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {"stages": ",".join(f"{name}:0.3" for name in NAMES), "samples": 2},
            {k: v for k, v in NAMES.items() if k != "baseline"},
        ),
        ({"stages": "mle:0.3,baseline:0.3"}, {name: NAMES[name] for name in ("mle", "baseline")}),
        ({"stages": "mle:0.3", "scheduled_sampling": 0.3}, {"mle": NAMES["mle"] | {"own words read"}}),
        (
            {"stages": "pg:0.3,scst:0.3", "likelihood_weight": 0.2},
            {name: NAMES[name] | {"likelihood loss"} for name in ("pg", "scst")},
        ),
    ],
)
def test_each_stage_shows_its_scalars_by_name(tmp_path, monkeypatch, changes, names):
    board = Remembering()
    monkeypatch.setattr("tests.tiny_runs.Silent", lambda: board)
    arrays = make_arrays()
    run(config_of(tmp_path, learning_rate=RATES, log_every=1, **changes), arrays, reward=cider_of(arrays))
    assert board.names == names


def test_the_console_shows_the_main_ones(tmp_path, capsys):
    run(config_of(tmp_path, stages="mle:0.15,pg:0.3", learning_rate=RATES), make_arrays())
    lines = [line for line in capsys.readouterr().out.splitlines() if " step 1/" in line]
    assert [[part.rsplit(" ", 1)[0] for part in line.split(": ")[1].split(", ")[:-1]] for line in lines] == [
        ["loss"],
        ["loss", "reward", "explained variance", "entropy"],
    ]


STORED = {  # as the checkpoint of a run holds it
    "stage": 1,
    "step": 3,
    "seconds": 1.5,
    "best": 0.5,
    "best_step": 3,
    "since_best": 0,
    "skipped": 1,
    "scored": 40,
    "warned": {"skipped updates": "step 2: ..."},
    "history": [
        {
            "stage": "mle",
            "step": 7,
            "epoch": 1.0,
            "images_seen": 49,
            "captions_scored": 0,
            "seconds": 2.0,
            "CIDEr": 0.4,
        },
        {
            "stage": "pg",
            "step": 3,
            "epoch": 0.9,
            "images_seen": 21,
            "captions_scored": 40,
            "seconds": 1.5,
            "SPICE": None,
        },
    ],
    "finished": [
        {
            "name": "mle",
            "moves_policy": True,
            "images_seen": 49,
            "seconds": 2.0,
            "steps": 7,
            "best_step": 7,
            "skipped_updates": 2,
            "warnings": ["step 2: ..."],
        }
    ],
    "events": {"events.out.tfevents.1": 99},
    "versions": {"SPICE-fast parser": "3.1a2b3c"},
}


def read(content, folder):
    (folder / PROGRESS).write_text(json.dumps(content))
    return read_progress(folder)


def stored(progress):
    return json.loads(progress.to_json())


def test_stored_progress_is_read_and_stored_the_same(tmp_path):
    progress = read(STORED, tmp_path)
    assert json.dumps(stored(progress)) == json.dumps(STORED)
    last, (finished,) = progress.history[-1], progress.finished
    assert (last.stage, last.captions_scored, last.metrics) == ("pg", 40, {"SPICE": None})
    assert (finished.name, finished.skipped_updates, finished.warnings) == ("mle", 2, ("step 2: ...",))
    assert stored(Progress()) == stored(read(stored(Progress()), tmp_path))


def test_rows_of_older_runs_are_read(tmp_path):
    """They did not count scored captions, nor tell of skipped updates and warnings."""
    older = json.loads(json.dumps(STORED))
    for row in older["history"]:
        del row["captions_scored"]
    del older["finished"][0]["skipped_updates"], older["finished"][0]["warnings"]
    progress = read(older, tmp_path)
    assert [validation.captions_scored for validation in progress.history] == [None, None]
    assert stored(progress)["history"] == older["history"]
    assert progress.finished[0].to_dict() == older["finished"][0] | {"skipped_updates": 0, "warnings": []}
