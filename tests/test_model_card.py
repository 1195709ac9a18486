"""The model card tells what the run has stored, and says what is not known."""

import json
import os

import pytest

from spidercap.export.model_card import DATA, PAGE, UNKNOWN, Facts, Scores, model_card, page_of
from spidercap.pipeline.card_facts import _recipe, _scores
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config

SUMMARY = {"decoding": {"decode": "greedy", "beam_width": 5}, "splits": {"val": {"metrics": {"pg": {"CIDEr": 0.5}}}}}


def facts(**changes):
    known = Facts(
        name="first",
        date="2030-01-02",
        data_set="files",
        splits={"train": {"images": 6000, "captions": 30000}, "val": {"images": 1000, "captions": None}},
        model={"encoder": "VGG16, weights imagenet"},
        recipe=["--stages=mle:3"],
        stages=[{"name": "mle", "steps": 1406, "images_seen": 89984, "seconds": 240.0}],
        decoding={"decode": "greedy"},
        scores=[Scores("val", "mle", 1000, "2030-01-01", None, {"CIDEr": 0.33043, "distinct captions": 465.0})],
        notes=["A note."],
        limits=["A limit."],
        versions={"tensorflow": "2.21.0"},
    )
    return known.__class__(**vars(known) | changes)


def test_page_holds_every_fact():
    files = model_card(facts())
    page = files[PAGE]
    for line in (
        "exported on 2030-01-02",
        "| train | 6,000 | 30,000 |",
        f"| val | 1,000 | {UNKNOWN} |",
        "    --stages=mle:3",
        "| mle | 1,406 | 89,984 | 4.0 |",
        f"Split `val`, 1,000 images, stage `mle`, 2030-01-01, decoding {UNKNOWN}:",
        "| CIDEr | 0.330 |",
        "| distinct captions | 465 |",
        "- A limit.",
        "Apache-2.0",
        "- tensorflow 2.21.0",
    ):
        assert line in page.split("\n") or line in page
    stored = json.loads(files[DATA])
    assert stored["scores"][0]["metrics"]["CIDEr"] == 0.33043 and stored["splits"]["val"]["captions"] is None
    assert stored["licence"] and stored["intended_use"] and stored["not_intended_for"]


def test_no_scores_is_said():
    assert f"{UNKNOWN.capitalize()}: no results are stored in the run." in page_of(facts(scores=[]))


def store(workdir, split, metrics, label="pg"):
    folder = workdir / "results" / split
    folder.mkdir(parents=True)
    (folder / f"{label}.metrics.json").write_text(json.dumps(metrics))
    (folder / f"{label}.json").write_text(json.dumps([{"image_id": i, "caption": "a dog"} for i in range(3)]))
    os.utime(folder / f"{label}.metrics.json", (1.5e9, 1.5e9))  # 14 July 2017


def test_scores_are_those_of_the_files_with_their_date(tmp_path):
    store(tmp_path, "test", {"CIDEr": 0.4})
    store(tmp_path, "val", {"CIDEr": 0.5})
    store(tmp_path, "train", {"CIDEr": 0.9}, label="mle")  # of another stage
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    val, test = _scores(tmp_path, "pg")
    assert val == Scores("val", "pg", 3, "2017-07-14", {"decode": "greedy"}, {"CIDEr": 0.5})
    assert test == Scores("test", "pg", 3, "2017-07-14", None, {"CIDEr": 0.4})  # the summary is of another evaluation
    (tmp_path / "summary.json").unlink()
    assert [of.decoding for of in _scores(tmp_path, "pg")] == [None, None]


def test_damaged_results_are_reported(tmp_path):
    store(tmp_path, "val", {"CIDEr": 0.5})
    (tmp_path / "results" / "val" / "pg.metrics.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        list(_scores(tmp_path, "pg"))


def test_recipe_is_what_differs_without_private_folders():
    config = Config.of(
        workdir="/home/me/run",
        dataset="files",
        images="/home/me/a,/home/me/b",
        captions="/home/me/captions.json",
        val_fraction=0.1,
        encoder="VGG16",
        encoder_weights="/home/me/vgg.weights.h5",
        reward="cider,brevity:0.1",
        reward_functions="brevity=/home/me/mine.py:brevity",
        share_rollouts=True,
        samples=2,
        stages="pg:2",
        log_every=7,  # changes nothing that is learned
    )
    assert _recipe(json.loads(config.to_json())) == [
        "--dataset=files",
        "--images=a,b",
        "--captions=captions.json",
        "--val_fraction=0.1",
        "--encoder=VGG16",
        "--encoder_weights=vgg.weights.h5",
        "--image_size=224",  # of VGG16
        "--stages=pg:2",
        "--reward=cider,brevity:0.1",
        "--reward_functions=brevity=mine.py:brevity",
        "--samples=2",
        "--share_rollouts=true",
    ]
