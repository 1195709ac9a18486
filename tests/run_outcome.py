"""What a run left that must be the same however often it was stopped."""

import collections
import json

import numpy as np
import tensorflow as tf

from spidercap.export import saved_model
from spidercap.export.versions import versions
from spidercap.pipeline.training.checkpoint_files import checkpoints


def outcome(runs):
    """Returns what the run in `runs`/run left, by kind."""
    workdir = runs / "run"
    return {
        "results": {path.name: path.read_text() for path in sorted((workdir / "results").rglob("*.json"))},
        "summary": _without_seconds(json.loads((workdir / "summary.json").read_text())),
        "weights": {folder.name: _tensors(folder) for folder in _checkpoint_folders(workdir)},
        "points": points(workdir / "logs"),
        "export": _export(versions(workdir / "export")[-1]),  # a damaged one stays, beside the next version
        "left over": [str(path.relative_to(runs)) for path in runs.rglob(".writing-*")],
    }


def differing(runs, whole):
    """Returns the kinds in which a run ended otherwise than the outcome `whole`, as text; '' for none."""
    found = outcome(runs)
    return ", ".join(f"{kind} differ" for kind, value in found.items() if value != whole[kind])


def points(logs):
    """Returns how often TensorBoard has each point: (tag, step, its value as bytes; none for rates)."""
    found = collections.Counter()
    for step, value in summaries(logs):
        is_rate = value.tag.endswith("_a_second")
        found[value.tag, step, b"" if is_rate else value.tensor.SerializeToString()] += 1
    return found


def summaries(logs):
    """Yields (step, value) of all points in TensorBoard's files, in the order of files and in them."""
    for path in sorted(logs.rglob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            yield from ((event.step, value) for value in event.summary.value)


def _export(folder):
    """The files of an exported model, the numbers of its weights, and what is wrong with its files."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    dtypes = reader.get_variable_to_dtype_map()
    numbers = [np.asarray(reader.get_tensor(name)) for name, dtype in dtypes.items() if dtype != tf.string]
    names = sorted(path.name for path in folder.rglob("*"))
    return names, sorted(value.tobytes() for value in numbers), saved_model.faults(folder)


def _checkpoint_folders(workdir):
    """Those of the run, and of what each stage kept."""
    return (workdir / "checkpoints", *sorted((workdir / "kept").iterdir()))


def _tensors(folder):
    """The numbers in the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(checkpoints(folder)[-1] / "weights"))
    names = reader.get_variable_to_dtype_map()
    return {n: np.asarray(reader.get_tensor(n)).tobytes() for n, dtype in names.items() if dtype != tf.string}


def _without_seconds(item):
    if isinstance(item, dict):
        return {key: _without_seconds(value) for key, value in item.items() if key != "seconds"}
    return [_without_seconds(one) for one in item] if isinstance(item, list) else item
