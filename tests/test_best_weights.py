"""Which validation's weights are kept, and what patience counts, where the metric can and cannot tell them apart."""

import pytest

from spidercap.pipeline.training.checkpoint_files import PROGRESS
from spidercap.pipeline.training.progress import Progress, Validation, read_progress


def validation(step, stage="mle", **metrics):
    return Validation(stage=stage, step=step, epoch=1.0, images_seen=1, seconds=1.0, metrics=metrics)


def selected(values, patience=0, progress=None, folder=None):
    """Returns (step kept, validations marked as best, steps validated) of a stage whose validations have these values.

    Step k is validated as the loop does it; with `folder` the progress is written and read before each.
    """
    progress, marked = progress or Progress(), []
    for value in values[progress.step :]:
        if folder:
            (folder / PROGRESS).write_text(progress.to_json())
            progress = read_progress(folder)
        progress.step += 1
        if progress.validated("mle", "CIDEr", value):
            marked.append(progress.step)
        progress.history.append(validation(progress.step, CIDEr=value))
        if 0 < patience <= progress.since_best:
            break
    return progress.best_step, marked, progress.step


@pytest.mark.parametrize(
    ("values", "kept", "marked"),
    [
        ([0.0, 0.0, 0.0, 0.0], 4, [1, 2, 3, 4]),  # one validation image
        ([0.3] * 3, 3, [1, 2, 3]),
        ([0.0, 1.3e-9, 4.1e-10, 0.0], 4, [1, 2, 3, 4]),  # captions far longer than --max_length
        ([0.5, 0.5 + 9e-7, 0.5], 3, [1, 2, 3]),
        ([0.0, 0.0, 0.1, 0.2, 0.1], 4, [1, 2, 3, 4]),
        ([0.0, 0.1, 0.0, 0.0, 0.0], 2, [1, 2]),
        ([0.3, 0.3, 0.2, 0.2], 2, [1, 2]),
        ([0.1, 0.3, 0.2, 0.3, 0.2], 4, [1, 2, 4]),  # a tie: the later one
        ([0.1, 0.3, 0.3 - 9e-7, 0.3 - 18e-7], 3, [1, 2, 3]),  # ties do not add up
        ([0.1, 0.3, 0.3 - 2e-6], 2, [1, 2]),
        ([-2.0, -1.0, -1.0, -3.0], 3, [1, 2, 3]),
        ([0.1, 0.2, 0.3], 3, [1, 2, 3]),
        ([0.7], 1, [1]),
    ],
)
def test_the_later_of_equals_is_kept(values, kept, marked, tmp_path):
    assert selected(values) == (kept, marked, len(values))
    assert selected(values, folder=tmp_path) == (kept, marked, len(values))


@pytest.mark.parametrize(
    ("values", "patience", "kept", "ended"),
    [
        ([0.0] * 9, 2, 9, 9),  # nothing to be impatient about
        ([0.0, 1e-9, 2e-9, 0.0, 0.0], 1, 5, 5),
        ([0.0, 0.0, 0.1, 0.0, 0.0, 0.2], 2, 3, 5),  # two after the third
        ([0.1, 0.3, 0.3, 0.3, 0.9], 2, 4, 4),  # ties count
        ([0.1, 0.3, 0.3, 0.31, 0.3, 0.3, 0.9], 2, 4, 6),
        ([0.3, 0.3, 0.3, 0.2, 0.2, 0.9], 2, 3, 5),
        ([0.0, 0.9e-6, 1.8e-6, 2.7e-6, 3.6e-6, 1.0], 2, 4, 4),  # a creep of less than can be told is no new best
    ],
)
def test_patience_counts_once_the_metric_has_told_apart(values, patience, kept, ended, tmp_path):
    for folder in (None, tmp_path):
        best_step, _, last = selected(values, patience, folder=folder)
        assert (best_step, last) == (kept, ended)


def test_other_stages_do_not_count():
    """An earlier stage told apart; this one has not yet."""
    progress = Progress(history=[validation(1, "mle-2", CIDEr=0.1), validation(2, "mle-2", CIDEr=0.9)])
    assert selected([0.0] * 4, 1, progress) == (4, [1, 2, 3, 4], 4)
