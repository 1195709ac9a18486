"""Made-up workdirs as finished runs leave them, and what tests read from the comparisons of such."""

import json
import pathlib
import xml.etree.ElementTree

import tensorflow as tf

from spidercap.pipeline.main import main
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.checkpoint_files import write_checkpoint
from spidercap.pipeline.training.progress import Progress, Validation

CAPTIONS = ("a dog runs", "a cat sits on the", "two birds fly")
SVG = "{http://www.w3.org/2000/svg}"
GREEDY = {"decode": "greedy", "beam_width": 5}


def make_run(
    folder: pathlib.Path,
    captions=CAPTIONS,
    *,
    stage="pg",
    metrics=(),
    history=(),
    seconds=90.0,
    best_step=2,
    ids=(7, 3, 5),
    decoding=GREEDY,
    **settings,
) -> pathlib.Path:
    """Returns a workdir as a run leaves it, of what is compared; its stages are mle, baseline and `stage`."""
    config = Config.of(workdir=str(folder), max_length=6, encoder="MobileNetV2", **settings)
    (folder / "results" / "val").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    names = {"mle": True, "baseline": False, stage: True}
    stages = [{"name": n, "moves_policy": m, "seconds": seconds, "best_step": best_step} for n, m in names.items()]
    (folder / "summary.json").write_text(json.dumps({"split": "val", "decoding": decoding, "stages": stages}))
    said = [{"image_id": i, "caption": c} for i, c in zip(ids, captions, strict=True)]
    scores = {"CIDEr": 0.5, "mean length": 3.5, "distinct captions": 3.0} | dict(metrics)
    for name in ("mle", stage):
        (folder / "results" / "val" / f"{name}.json").write_text(json.dumps(said))
        (folder / "results" / "val" / f"{name}.metrics.json").write_text(json.dumps(scores))
    write_progress(folder, Progress(history=list(history)))
    return folder


def make_unfinished(folder: pathlib.Path, history, *, finished=(), best_step=2, **settings) -> pathlib.Path:
    """Returns a workdir as a killed run leaves it: in the stage of the newest validation, which is not evaluated."""
    config = Config.of(workdir=str(folder), max_length=6, encoder="MobileNetV2", **settings)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    progress = Progress(stage=len(finished), step=5, seconds=50.0, best_step=best_step, finished=list(finished))
    progress.history.extend(history)
    write_progress(folder, progress)
    return folder


def write_progress(folder: pathlib.Path, progress: Progress) -> None:
    """Writes the next checkpoint of a run."""
    write_checkpoint(folder / "checkpoints", tf.train.Checkpoint(), keep=2, progress=progress.to_json())


def row(step, stage="pg", **more):
    """Returns a validation as the loop writes it."""
    fields = {"stage": stage, "step": step, "epoch": step / 4, "images_seen": step * 8, "seconds": 10.0 * step}
    return Validation.from_dict(fields | more)


def references_file(path: pathlib.Path, ids=(7, 3, 5), texts=CAPTIONS) -> pathlib.Path:
    """Returns a COCO captions file of two references a picture, the second one 'another'."""
    annotations = [{"image_id": i, "caption": c} for i, c in zip(ids, texts, strict=True)]
    annotations += [{"image_id": i, "caption": "Another | one."} for i in ids]
    content = {"images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids], "annotations": annotations}
    path.write_text(json.dumps(content))
    return path


def texts_of(svg: str) -> list[str]:
    """Returns the texts of a picture."""
    return [element.text for element in xml.etree.ElementTree.fromstring(svg).iter(f"{SVG}text")]


def table_of(text: str) -> dict[str, dict[str, str]]:
    """Returns the cells of the first Markdown table by row and head."""
    lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip("| "): dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def compared(capsys, workdirs: str, *more) -> str:
    """Returns what --mode=compare prints."""
    code = main(["main", "--mode=compare", f"--workdirs={workdirs}", *map(str, more)])
    out, error = capsys.readouterr()
    assert (code, error) == (0, ""), error
    return out


def failed(capsys, workdirs: str, *more) -> str:
    """Returns the one line that --mode=compare ended with."""
    assert main(["main", "--mode=compare", f"--workdirs={workdirs}", *map(str, more)]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ") and error.count("\n") == 1
    return error
