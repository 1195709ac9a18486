"""No warning advises what is set already, and each advises something."""

import itertools

import pytest

from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.training.advice import remedies, selection_notes
from spidercap.pipeline.training.progress import Progress, Validation

KINDS = ("entropy", "length", "repeated", "distinct", "constant", "endless")
ON_REWARDS = [name for name, kind in STAGES.items() if kind.learns_from_rewards]


def config_of(**settings):
    return Config.of(workdir="w", **settings)


@pytest.mark.parametrize("name", ON_REWARDS)
@pytest.mark.parametrize(
    ("reward", "end", "weight"),
    list(itertools.product(("cider", "bleu4", "spider_fast"), (True, False), (0.0, 0.5, 1.0))),
)
def test_a_remedy_is_not_set_already(name, reward, end, weight):
    config = config_of(reward=reward, end_token_in_reward=end, likelihood_weight=weight)
    found = remedies(config, name)
    assert found.keys() == set(KINDS) and all(found.values())
    texts = " | ".join(found.values())
    assert ("add CIDEr to --reward" in found["repeated"]) == (reward == "bleu4")
    assert ("CIDEr" in texts) == (reward == "bleu4" or not end)
    assert ("--end_token_in_reward" in texts) == (not end)
    if "likelihood_weight" not in STAGES[name].reads or weight == 1:
        assert "--likelihood_weight" not in texts
    if not STAGES[name].moves_policy:
        assert "--learning_rate" not in texts  # the captioner is not trained


def progress_of(**metrics):
    """Validations of mle with these values, one of each metric after another."""
    rows = [dict(zip(metrics, values, strict=True)) for values in zip(*metrics.values(), strict=True)]
    common = {"stage": "mle", "epoch": 1.0, "images_seen": 1, "seconds": 1.0}
    return Progress(history=[Validation(step=k, metrics=row, **common) for k, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("values", "images", "told"),
    [
        ([0.0], 1, "CIDEr of a single image is always 0"),
        ([0.0], 2, None),
        ([0.0, 1e-9], 2, "CIDEr was 0.0000 in all validations so far"),
        ([0.25, 0.25, 0.25], 9, None),  # the captions did not change
        ([0.0, 0.1], 2, None),
        ([0.1, 0.1, 0.2], 2, None),
    ],
)
def test_a_metric_that_cannot_select_is_reported(values, images, told):
    notes = selection_notes(config_of(), "mle", progress_of(CIDEr=values), images)
    assert list(notes) == ([] if told is None else ["best metric"])
    if told:
        assert told in notes["best metric"] and "--best_metric=BLEU-4, or give more validation" in notes["best metric"]
        assert "--patience" not in notes["best metric"]
    assert selection_notes(config_of(), "mle-2", progress_of(CIDEr=values), images) == {}


@pytest.mark.parametrize(
    ("settings", "metrics", "advised"),
    [
        ({}, {"CIDEr": [0, 0], "BLEU-4": [0, 0.1], "ROUGE-L": [0, 0.2]}, "--best_metric=BLEU-4, or give more"),
        ({}, {"CIDEr": [0, 0], "BLEU-4": [0, 1e-9], "ROUGE-L": [0, 0.2]}, "--best_metric=ROUGE-L, or"),
        ({}, {"CIDEr": [0, 0], "BLEU-4": [0, 0], "ROUGE-L": [0, 0]}, "--best_metric=BLEU-4, or"),
        ({"best_metric": "BLEU-4"}, {"BLEU-4": [0, 0], "ROUGE-L": [0, 0], "BLEU-1": [0, 0.1]}, "--best_metric=BLEU-1"),
        ({"best_metric": "BLEU-4"}, {"BLEU-4": [0, 0], "CIDEr": [0, 0.1]}, "--best_metric=ROUGE-L"),
        ({}, {"CIDEr": [0.2, 0.2], "BLEU-4": [0.1, 0.1], "BLEU-1": [0.5, 0.6]}, "CIDEr was 0.2000 in all validations"),
        ({"best_metric": "SPICE-fast"}, {"SPICE-fast": [0, 0]}, "--best_metric=BLEU-4"),
        ({"val_images": 7}, {"CIDEr": [0, 0]}, "or raise --val_images"),
        ({"val_images": 8}, {"CIDEr": [0, 0]}, "or give more validation images"),  # there are only 7
        ({"patience": 3}, {"CIDEr": [0, 0]}, "and --patience counts nothing; choose"),
    ],
)
def test_another_metric_is_advised(settings, metrics, advised):
    assert advised in selection_notes(config_of(**settings), "mle", progress_of(**metrics), 7)["best metric"]
