"""What a user can do wrong, by whole command lines: one line that names it, no traceback, nothing begun in vain."""

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.pipeline import digests, main
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.data.records import Split
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.saved import read_settings
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training import identity, kept, workdir
from spidercap.pipeline.training.checkpoint_files import write_checkpoint
from spidercap.pipeline.training.progress import Progress
from tests.conftest import ROOT
from tests.files import coco, write
from tests.test_folder import JPEG, NOT_WHOLE, PNG

SMALL = (
    "--encoder=VGG16",
    "--encoder_weights=random",
    "--image_size=64",
    "--units=8",
    "--embedding_size=8",
    "--baseline_units=8",
    "--min_word_count=1",
    "--stages=mle:1",
)


@pytest.fixture
def refused(capsys):
    """Runs a command line that must end in one line on stderr; returns that line."""

    def run(*flags):
        capsys.readouterr()
        code = main.main(["main", *map(str, flags)])
        error = capsys.readouterr().err
        assert code in (1, 2)
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Flags of a folder data set with six pictures."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(6):
        write(folder / "pictures" / f"{i}.jpg", JPEG + bytes([i]))
    train = write(folder / "train.json", coco({i: f"{i}.jpg" for i in range(4)}))
    val = write(folder / "val.json", coco({i: f"{i}.jpg" for i in (4, 5)}))
    return (
        "--dataset=folder",
        f"--images={folder / 'pictures'}",
        f"--train_captions={train}",
        f"--val_captions={val}",
        f"--cache_dir={folder / 'cache'}",
        *SMALL,
    )


@pytest.fixture(scope="module")
def prepared(data, tmp_path_factory):
    """A workdir whose data are prepared."""
    folder = tmp_path_factory.mktemp("runs") / "prepared"
    assert main.main(["main", "--mode=prepare", f"--workdir={folder}", *data]) == 0
    return folder


@pytest.fixture
def run(prepared, tmp_path):
    """A copy of `prepared` that may be spoiled."""
    return pathlib.Path(shutil.copytree(prepared, tmp_path / "run"))


def config_of(run, **changes):
    return Config.of(**{**read_settings(run / "config.json"), "workdir": str(run), **changes})


def keep_weights(run):
    """Gives a workdir the weights that its first stage would hand on."""
    config = config_of(run)
    captioner, baseline = kept.build_models(config, identity.kept_vocabulary(config), feature_size=1280)
    checkpoint = tf.train.Checkpoint(captioner=captioner, baseline=baseline)
    write_checkpoint(run / "kept" / "mle", checkpoint, keep=1)
    write_checkpoint(run / "checkpoints", checkpoint, keep=2, progress=Progress().to_json())


def test_the_program_ends_with_one_line_and_no_traceback():
    command = [sys.executable, "-m", "spidercap.pipeline.main", "--workdir=runs/x", "--unit=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: unknown flag --unit; did you mean --units?"


# Folders


@pytest.mark.parametrize("flag", ["workdir", "cache_dir", "export_dir"])
def test_folders_that_are_files_are_refused_before_anything_is_made(refused, data, tmp_path, flag):
    file = write(tmp_path / "file", b"precious")
    for folder in (file, file / "below" / "it"):
        flags = {"workdir": tmp_path / "new", flag: folder}
        error = refused(*data, *(f"--{name}={value}" for name, value in flags.items()))
        assert f"--{flag}={folder}: {file} is not a folder; name another" in error
    assert file.read_bytes() == b"precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("flag", ["workdir", "cache_dir", "export_dir"])
def test_folders_that_may_not_be_written_are_refused(refused, data, tmp_path, monkeypatch, flag):
    (tmp_path / "shut").mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "shut" not in str(path) and may(path, mode))
    flags = {"workdir": tmp_path / "new", flag: tmp_path / "shut" / "deep"}
    error = refused(*data, *(f"--{name}={value}" for name, value in flags.items()))
    assert f"--{flag}={tmp_path / 'shut' / 'deep'}: {tmp_path / 'shut'} is not writable" in error
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_refused(refused, data, tmp_path):
    assert "File name too long" in refused(*data, f"--workdir={tmp_path / ('x' * 300)}")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert f"{tmp_path / 'link'} is not a folder" in refused(*data, f"--workdir={tmp_path / 'link'}")


def test_a_full_disk_is_refused(refused, data, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 2**25, 2**25))
    error = refused(*data, f"--workdir={tmp_path / 'new'}")
    assert "32 MiB are free there, at least 300 MiB are needed; make room, or name another folder" in error
    assert not (tmp_path / "new").exists()


def test_a_workdir_at_work_is_refused(refused, data, run):
    with workdir.open_workdir(config_of(run)):
        assert f"another process uses {run}; wait for it" in refused(*data, f"--workdir={run}")
    assert main.main(["main", "--mode=prepare", f"--workdir={run}", *data]) == 0


# Settings of a run that is there


def test_what_was_only_prepared_may_be_prepared_again(refused, data, run, tmp_path):
    """With other settings and other captions, as the page of the data advises."""
    other = write(tmp_path / "other.json", coco({0: "0.jpg", 1: "1.jpg"}))
    flags = ("main", "--mode=prepare", f"--workdir={run}", *data, "--min_word_count=2", f"--train_captions={other}")
    assert main.main(list(flags)) == 0
    assert read_settings(run / "config.json")["min_word_count"] == 2 and not digests.faults(run, digests.recorded(run))
    assert set(identity.kept_images(config_of(run))) == {"train", "val"}
    (run / "checkpoints").mkdir()
    assert "has other settings (min_word_count: 2 -> 1" in refused(*flags[1:3], *data)


def test_other_settings_are_refused_and_shown(refused, data, run):
    (run / "kept").mkdir()
    error = refused(*data, f"--workdir={run}", "--units=9", "--seed=4")
    assert "has other settings (seed: 0 -> 4; units: 8 -> 9); use those, or name a new --workdir" in error
    # Validations by another search are not compared with those that there are.
    error = refused(*data, f"--workdir={run}", "--mode=train", "--decode=beam")
    assert "has other settings (decode: 'greedy' -> 'beam')" in error
    error = refused("--mode=evaluate", f"--workdir={run}", f"--cache_dir={run.parent}", "--stages=mle:2")
    assert "(stages: 'mle:1' -> 'mle:2')" in error


def test_other_data_are_refused_before_they_are_prepared(run, tmp_path):
    other = write(tmp_path / "other.json", coco({0: "0.jpg"}))
    config = config_of(run, val_captions=str(other), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"has other data \(val differs\); restore the data, or name a new"):
        prepare_data(config, lambda fingerprints: identity.keep_data(config, fingerprints))


def test_other_weights_of_the_encoder_are_refused(run):
    with pytest.raises(UserError, match=r"encoder.txt differs"):
        identity.keep_encoder(config_of(run), _Encoder(), 3)


class _Encoder:
    def get_weights(self):
        return [np.ones(3, np.float32)]


def test_a_start_that_failed_binds_to_nothing(refused, data, tmp_path):
    flags = ("--mode=prepare", f"--workdir={tmp_path / 'new'}", *data)
    assert "no word occurs 99 times" in refused(*flags, "--min_word_count=99", "--units=4")
    assert "8 of 8 training captions are longer than --max_length=4" in refused(*flags, "--max_length=4")
    assert main.main(["main", *flags]) == 0
    assert read_settings(tmp_path / "new" / "config.json")["units"] == 8


def test_settings_of_another_version_are_named(refused, data, run):
    saved = json.loads((run / "config.json").read_text())
    del saved["rollouts"]
    (run / "config.json").write_text(json.dumps(saved | {"hoops": 3}))
    digests.record(run, ["config.json"])
    (run / "kept").mkdir()
    for mode in ("train", "evaluate", "export"):
        error = refused(f"--mode={mode}", f"--workdir={run}", *(data if mode != "export" else ()))
        assert "config.json was written by another version (unknown: hoops; missing: rollouts)" in error


# Encoder and data


def stored_weights(prepared, folder):
    """The encoder's weights of a prepared run, as a user would bring them: without pooling and preprocessing."""
    path = folder / "stored.weights.h5"
    keras.models.load_model(prepared / "encoder.keras", compile=False).layers[-1].save_weights(path)
    return path


@pytest.mark.parametrize(
    "flag, shown",
    [
        ("--image_size=10", "Input size must be at least 32x32"),
        ("--encoder_weights=", "allowed: imagenet, random, or a .weights.h5 file"),
        ("--encoder_weights=none.weights.h5", "none.weights.h5 is not a file"),
        ("--encoder_weights=text.weights.h5", "give weights made for this encoder"),
        ("--encoder_weights=empty.weights.h5", "give weights made for this encoder"),
        ("--encoder_weights=text.txt", "give weights made for this encoder"),
        ("--encoder_weights=half.weights.h5", "give weights made for this encoder"),
    ],
)
def test_encoders_that_cannot_be_built_are_named(refused, data, prepared, tmp_path, monkeypatch, flag, shown):
    monkeypatch.chdir(tmp_path)
    whole = stored_weights(prepared, tmp_path).read_bytes()
    contents = {
        "text.weights.h5": b"text",
        "empty.weights.h5": b"",
        "text.txt": b"text",
        "half.weights.h5": whole[:-99],
    }
    for name, content in contents.items():
        write(tmp_path / name, content)
    assert shown in refused(*data, "--mode=prepare", f"--workdir={tmp_path / 'new'}", flag)


def test_weights_of_another_encoder_are_refused(refused, data, prepared, tmp_path):
    weights = stored_weights(prepared, tmp_path)
    flags = ("--mode=prepare", f"--workdir={tmp_path / 'new'}", f"--encoder_weights={weights}")
    assert "cannot build MobileNet with" in refused(*data, *flags, "--encoder=MobileNet")
    assert main.main(["main", *data, *flags]) == 0


def test_broken_captions_and_pictures_are_told_through_the_program(refused, data, tmp_path):
    flags = ("--mode=prepare", *data, f"--workdir={tmp_path / 'new'}")
    spoiled = write(tmp_path / "spoiled.json", b"{")
    assert f"{spoiled} is not JSON" in refused(*flags, f"--train_captions={spoiled}")
    assert "none.json cannot be read" in refused(*flags, f"--val_captions={tmp_path / 'none.json'}")
    assert "is not a folder" in refused(*flags, f"--images={tmp_path / 'none'}")
    pictures = tmp_path / "pictures"
    for i in range(6):
        write(pictures / f"{i}.jpg", JPEG + bytes([i]) if i != 3 else JPEG[:99])
    error = refused(*flags, f"--images={pictures}")
    assert "1 of 6 images cannot be decoded" in error and "3.jpg" in error and "--skip_bad_images" in error


# Modes that need a run


@pytest.mark.parametrize("mode", ["evaluate", "caption", "export"])
def test_a_workdir_without_a_run_is_named(refused, tmp_path, mode):
    error = refused(f"--mode={mode}", f"--workdir={tmp_path / 'none'}", *["--images=a.jpg"] * (mode == "caption"))
    assert f"{tmp_path / 'none'} holds no run (there is no such folder)" in error
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("mode", ["evaluate", "caption", "export"])
def test_a_run_that_has_kept_no_weights_is_named(refused, run, tmp_path, mode):
    more = {"evaluate": f"--cache_dir={tmp_path}", "caption": f"--images={write(tmp_path / 'a.jpg', JPEG)}"}
    error = refused(f"--mode={mode}", f"--workdir={run}", *filter(None, [more.get(mode)]))
    assert "has kept no weights yet; run --mode=train first" in error


def test_a_start_that_failed_is_no_run(refused, data, tmp_path):
    new, picture = tmp_path / "new", write(tmp_path / "a.jpg", JPEG)
    refused("--mode=prepare", *data, f"--workdir={new}", "--image_size=10")
    for mode in ("evaluate", "export"):
        more = [f"--cache_dir={tmp_path}"] * (mode == "evaluate")
        assert "has kept no weights yet" in refused(f"--mode={mode}", f"--workdir={new}", *more)
    assert "has trained nothing yet" in refused("--mode=caption", f"--workdir={new}", f"--images={picture}")


# Captions of pictures


@pytest.fixture
def exported(run):
    """A workdir with a model that says of one picture how many bytes it has, and that all others are damaged."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes):
        length = tf.strings.length(image_bytes)
        error = tf.where(image_bytes == PNG, "", "is damaged")
        return {"caption": tf.strings.as_string(length), "log_prob": tf.zeros_like(length, tf.float32), "error": error}

    tf.saved_model.save(module, str(run / "export" / "1"), signatures={"serving_default": serve})
    return run


def test_pictures_to_caption_that_are_not_there_are_named(refused, exported, tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "texts" / "a.txt", b"text")
    flags = ("--mode=caption", f"--workdir={exported}")
    assert "--mode=caption needs --images: image files or folders" in refused(*flags)
    assert "--mode=caption needs --images" in refused(*flags, "--images=")
    assert "names no files; name image files or folders" in refused(*flags, "--images= , ")
    assert f"{tmp_path / 'none'} does not exist" in refused(*flags, f"--images={tmp_path / 'none'}")
    for folder in ("empty", "texts"):
        assert f"{tmp_path / folder} holds no images" in refused(*flags, f"--images={tmp_path / folder}")


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_pictures_to_caption_that_are_not_whole_are_named_or_left_out(refused, exported, tmp_path, capsys, name):
    pictures = tmp_path / "pictures"
    for path in ("a.jpg", "sub/Z.PNG"):
        write(pictures / path, PNG)
    bad = write(pictures / name, NOT_WHOLE[name])
    flags = ("--mode=caption", f"--workdir={exported}", f"--images={pictures}")
    # What a model exported with the default limit keeps beside it.
    write(exported / "export" / "1" / "assets.extra" / "max_pixels.txt", b"50000000\n")
    error = refused(*flags)
    assert f"1 of 3 images cannot be decoded ({bad}): is " in error and "--skip_bad_images" in error
    assert main.main(["main", *flags, "--skip_bad_images"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[:2] for line in out] == [
        [f"{pictures / path}:", str(len(PNG))] for path in ("a.jpg", "sub/Z.PNG")
    ]
    error = refused("--mode=caption", f"--workdir={exported}", f"--images={bad}", "--skip_bad_images")
    assert "1 of 1 images cannot be decoded" in error


def test_pixels_are_limited_also_where_the_model_would_take_more(refused, exported, tmp_path):
    picture = write(tmp_path / "a.png", PNG)
    write(exported / "export" / "1" / "assets.extra" / "max_pixels.txt", b"50000000\n")
    error = refused("--mode=caption", f"--workdir={exported}", f"--images={picture}", "--max_pixels=100")
    assert "has 64 x 64 pixels, more than the 100 allowed" in error


# Warm starts


def test_warm_starts_that_do_not_fit_are_refused_before_the_data_are_read(refused, data, run, tmp_path):
    flags = [*data, f"--workdir={tmp_path / 'new'}", f"--cache_dir={tmp_path / 'cache'}"]
    error = refused(*flags, f"--warm_start={tmp_path / 'none'}")
    assert f"--warm_start={tmp_path / 'none'} holds no run (no config.json)" in error
    assert f"{run} has kept no weights yet" in refused(*flags, f"--warm_start={run}")
    keep_weights(run)
    error = refused(*flags, f"--warm_start={run}", "--units=9", "--encoder=MobileNet")
    assert "holds another model (encoder: 'VGG16' -> 'MobileNet'; units: 8 -> 9); use the same" in error
    assert "is the --workdir itself" in refused(*flags, f"--warm_start={tmp_path / 'new'}")
    (run / "config.json").write_text("{}")
    assert "written by another version" in refused(*flags, f"--warm_start={run}")
    assert not (tmp_path / "cache").exists()


def test_a_warm_start_without_common_words_or_of_another_encoder_is_refused(run):
    keep_weights(run)
    config = config_of(run, workdir=str(run.parent / "new"), warm_start=str(run))
    vocabulary, encoder = identity.kept_vocabulary(config_of(run)), identity.kept_encoder(config_of(run))
    with pytest.raises(UserError, match="shares no word with these captions; leave it out, or name a run"):
        kept.check_warm_start(config, {}, Vocabulary((*SPECIAL_TOKENS, "chien"), ()), encoder)
    (run / "encoder.txt").write_text("0\n")
    with pytest.raises(UserError, match=r"encoder.txt is damaged or was changed; .*name another --warm_start"):
        kept.check_warm_start(config, {}, vocabulary, encoder)
    digests.record(run, ["encoder.txt"])
    with pytest.raises(UserError, match="has another encoder; use its --encoder_weights"):
        kept.check_warm_start(config, {}, vocabulary, encoder)


def test_a_warm_start_that_fits_gives_its_weights(run):
    keep_weights(run)
    config = config_of(run, workdir=str(run.parent / "new"), warm_start=str(run), seed=5)
    vocabulary, encoder = identity.kept_vocabulary(config_of(run)), identity.kept_encoder(config_of(run))
    kept.check_warm_start(config, {}, vocabulary, encoder)
    models = kept.build_models(config, vocabulary, feature_size=1280)
    before = models[0].words.kernel.numpy()
    kept.load_warm_start(config, vocabulary, *models)
    assert (models[0].words.kernel.numpy() != before).any()


def test_images_to_score_that_a_warm_start_was_trained_on_are_told(run, capsys):
    keep_weights(run)
    config = config_of(run, workdir=str(run.parent / "new"), warm_start=str(run))
    vocabulary, encoder = identity.kept_vocabulary(config_of(run)), identity.kept_encoder(config_of(run))
    learned = identity.kept_images(config_of(run))["train"]
    assert len(learned.names) == 4
    source = prepare_data(config_of(run, mode="prepare"))["train"]
    known = dataclasses.replace(source, file_names=tuple("abcd"))
    named = Split(("7", "8"), ("2.jpg", "new.jpg"), (("a dog",),) * 2, ("0a", "0b"), None)
    kept.check_warm_start(config, {"train": source, "val": known, "test": named}, vocabulary, encoder)
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2
    assert f"4 of 4 images of val are among those that --warm_start={run} was trained on (a, b, " in error[0]
    assert "1 of 2 images of test have names of those that" in error[1] and "(2.jpg); they may be the same" in error[1]

    (run / identity.IMAGES).unlink()  # as of an earlier version
    recorded = digests.recorded(run)
    (run / digests.NAME).write_text(json.dumps({n: d for n, d in recorded.items() if n != identity.IMAGES}))
    kept.check_warm_start(config, {"val": known}, vocabulary, encoder)
    assert not capsys.readouterr().err


def test_a_warm_start_may_have_another_baseline_where_one_of_them_reads_none(run):
    keep_weights(run)
    vocabulary = identity.kept_vocabulary(config_of(run))
    (run / "config.json").write_text(config_of(run, stages="mle:1,pg:1").to_json())
    digests.record(run, ["config.json"])
    changes = {"workdir": str(run.parent / "new"), "warm_start": str(run), "seed": 5, "baseline_units": 9}
    with pytest.raises(UserError, match=r"holds another model \(baseline_units: "):
        kept.warm_start_of(config_of(run, **changes, stages="pg:1"))
    config = config_of(run, **changes, stages="vine:1")
    same, other = (kept.build_models(c, vocabulary, feature_size=1280) for c in (config_of(run), config))
    kept.load_warm_start(config, vocabulary, *other)
    kept.load_kept(run, "mle", *same)
    for one, another in zip(same[0].weights, other[0].weights, strict=True):
        np.testing.assert_array_equal(one, another)


def test_a_warm_start_on_images_is_none_for_features(run):
    keep_weights(run)
    config = config_of(run, workdir=str(run.parent / "new"), warm_start=str(run), features="some.npz", images="")
    with pytest.raises(UserError, match="was trained on images, and this run is on features; name a run on features"):
        kept.warm_start_of(config)


def test_a_warm_start_on_other_captions_gives_the_words_that_both_have(run, capsys):
    keep_weights(run)
    config = config_of(run, workdir=str(run.parent / "new"), warm_start=str(run), seed=5)
    known, encoder = identity.kept_vocabulary(config_of(run)), identity.kept_encoder(config_of(run))
    other = Vocabulary((*known.words[:-1], "chien", "chat"), ())
    kept.check_warm_start(config, {}, other, encoder)
    count = len(known.words) - len(SPECIAL_TOKENS) - 1
    expected = f"{count} words are taken over from {run}; 2 words are new to it, and 1 of its words are left out"
    assert expected in capsys.readouterr().out
    same, models = (kept.build_models(config, words, feature_size=1280) for words in (known, other))
    for words, of_words in ((known, same), (other, models)):
        kept.load_warm_start(config, words, *of_words)
    kernels = [one.words.kernel.numpy()[:, : len(known.words) - 1] for one, _ in (same, models)]
    np.testing.assert_array_equal(*kernels)


def test_a_run_that_goes_on_needs_its_warm_start_no_more(run):
    write_checkpoint(run / "checkpoints", tf.train.Checkpoint(), keep=2, progress=Progress().to_json())
    config = config_of(run, warm_start="gone")
    (run / "config.json").write_text(config.to_json())
    digests.record(run, ["config.json"])
    with workdir.open_workdir(config):
        pass
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="gone holds no run"), workdir.open_workdir(config.with_values()):
        pass
