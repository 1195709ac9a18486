"""Runs the recipes for data that are not at hand on stand-ins of the very same layout: `make recipes-check`.

The stand-in of COCO has two folders of JPEGs, Karpathy's dataset_coco.json and COCO's annotations. That of Clotho has
three CSV files and features by file name. Runs are short; the scores mean nothing.
"""

import csv
import json
import pathlib
import sys
import tempfile

import h5py
import numpy as np
import tensorflow as tf

from spidercap.pipeline.data.scenes.dataset import draw_scene
from spidercap.pipeline.main import main
from tests.conftest import ROOT

IMAGES = {"train": 200, "restval": 60, "val": 20, "test": 20}
SHORT = ("--units=32", "--embedding_size=32", "--baseline_units=32", "--batch_size=16", "--min_word_count=2")
STAGES = {
    "coco_mle": "mle:1",
    "coco_pg_cider": "baseline:0.1,pg:0.2",
    "coco_pg_spider": "baseline:0.1,pg:0.2",
    "coco_leave_one_out": "leave_one_out:0.2",
    "coco_scst": "scst:0.2",
    "coco_vine": "vine:0.2",
}
WITH_JAVA = {"coco_pg_bcmr": "baseline:0.1,pg:0.2", "coco_mixer": "mixer:0.2"}


def make_coco(folder: pathlib.Path) -> None:
    """Writes train2014, val2014, annotations/ and dataset_coco.json of rendered images of several sizes."""
    splits = [split for split, count in IMAGES.items() for _ in range(count)]
    karpathy, annotations = [], {"train2014": [], "val2014": []}
    for number, split in enumerate(splits):
        of = "train2014" if split == "train" else "val2014"
        name = f"COCO_{of}_{number:012d}.jpg"
        scene = draw_scene(7, number, size=64 + 16 * (number % 5))
        path = folder / of / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(scene.image).numpy())
        sentences = [{"raw": caption, "sentid": 5 * number + k} for k, caption in enumerate(scene.captions)]
        karpathy.append(
            {
                "filepath": of,
                "filename": name,
                "cocoid": number,
                "imgid": number,
                "split": split,
                "sentences": sentences,
            }
        )
        annotations[of] += [{"image_id": number, "id": s["sentid"], "caption": s["raw"]} for s in sentences]
    write_json(folder / "dataset_coco.json", {"dataset": "coco", "images": karpathy})
    for of, rows in annotations.items():
        listed = [{"id": i["cocoid"], "file_name": i["filename"]} for i in karpathy if i["filepath"] == of]
        write_json(folder / "annotations" / f"captions_{of}.json", {"images": listed, "annotations": rows})


def make_clotho(folder: pathlib.Path) -> None:
    """Writes three CSV files and clotho.h5 with a feature per sound."""
    rng, first = np.random.default_rng(0), 0
    with h5py.File(folder / "clotho.h5", "w") as features:
        for split, count in (("development", 120), ("validation", 20), ("evaluation", 20)):
            with open(folder / f"clotho_captions_{split}.csv", "w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(["file_name", *(f"caption_{k}" for k in range(1, 6))])
                for number in range(first, first + count):
                    name = f"Sound, number {number}.wav"
                    rows.writerow([name, *(f"{caption}, twice." for caption in draw_scene(3, number).captions)])
                    features[name] = rng.normal(size=128).astype(np.float32)
            first += count


def write_json(path: pathlib.Path, content: object) -> None:
    """Writes content as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def run(recipe: str, *flags: str) -> None:
    """Runs a recipe; exits if it fails."""
    print(f"\n== {recipe} ==", flush=True)
    if main(["main", f"--flagfile={ROOT}/recipes/{recipe}.flags", *flags]):
        sys.exit(f"{recipe} failed")


def check(folder: pathlib.Path, with_java: bool) -> None:
    """Runs all recipes below `folder`."""
    coco, runs = folder / "coco", folder / "runs"
    make_coco(coco)
    data = (f"--images={coco}/train2014,{coco}/val2014", f"--captions={coco}/dataset_coco.json")
    for recipe, stages in (STAGES | (WITH_JAVA if with_java else {})).items():
        start = (f"--warm_start={runs}/coco_mle",) if recipe != "coco_mle" else ()
        flags = (f"--workdir={runs}/{recipe}", f"--stages={stages}", "--encoder_weights=random", *SHORT, *start)
        run(recipe, *flags, *data)
    metrics = () if with_java else ("--metrics=bleu,rouge,cider,spice_fast",)
    run("coco_evaluate", f"--workdir={runs}/coco_pg_spider", *data, *metrics)
    official = (
        f"--train_captions={coco}/annotations/captions_train2014.json",
        f"--val_captions={coco}/annotations/captions_val2014.json",
    )
    run(
        "coco_mle",
        *("--encoder_weights=random", f"--workdir={runs}/official", "--stages=mle:0.2", *SHORT, data[0], *official),
    )
    make_clotho(folder)
    files = [
        f"--{split}_captions={folder}/clotho_captions_{name}.csv"
        for split, name in (("train", "development"), ("val", "validation"), ("test", "evaluation"))
    ]
    flags = (f"--workdir={runs}/clotho", "--stages=mle:2,vine:0.5", *SHORT, *files)
    run("audio_clotho", *flags, f"--features={folder}/clotho.h5")
    rng, listed = np.random.default_rng(0), json.loads((coco / "dataset_coco.json").read_text())["images"]
    np.savez(folder / "clip.npz", **{image["filename"]: rng.normal(size=64) for image in listed})
    flags = (f"--workdir={runs}/clip", "--stages=mle:1,vine:0.2", *SHORT, data[1])
    run("clip_features", *flags, f"--features={folder}/clip.npz")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        check(pathlib.Path(place), "--java" in sys.argv[1:])
    print("\nall recipes ran")
