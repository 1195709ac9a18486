"""The public names: scores from Python, an exported model from Python, and what is listed is there."""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import spidercap
from spidercap.export.saved_model import export
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.pipeline import modes
from spidercap.pipeline.main import main
from tests.small_exports import small_encoder, unchecked

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "dog")


def test_every_public_name_is_there():
    for name in spidercap.__all__:
        assert getattr(spidercap, name).__doc__, name
        assert name in dir(spidercap)
    with pytest.raises(AttributeError, match="public are score, load"):
        spidercap.scores  # noqa: B018


REFERENCES = {30: ["A dog runs on grass.", "The dog is running."], 4: ["Two cats, sleeping"], 5: ["not scored"]}
CANDIDATES = {30: "a dog running on the grass", 4: "two cats."}


class TestScore:
    def test_it_is_what_mode_score_writes(self, tmp_path):
        annotations = [{"image_id": i, "caption": c} for i, of in REFERENCES.items() for c in of]
        (tmp_path / "refs.json").write_text(json.dumps({"annotations": annotations}))
        results = [{"image_id": i, "caption": c} for i, c in CANDIDATES.items()]
        (tmp_path / "results.json").write_text(json.dumps(results))
        words = [f"--references={tmp_path}/refs.json", f"--results={tmp_path}/results.json"]
        words += [f"--output={tmp_path}/scores.json", "--metrics=bleu,rouge,cider"]
        assert main(["main", "--mode=score", *words]) == 0
        written = json.loads((tmp_path / "scores.json").read_text())
        scores = spidercap.score(REFERENCES, CANDIDATES)
        assert scores.corpus == written["corpus"]
        assert {str(i): image for i, image in scores.images.items()} == written["images"]

    def test_ids_may_be_anything_and_their_order_does_not_matter(self):
        as_text = spidercap.score(
            {str(i): of for i, of in reversed(REFERENCES.items())},
            {str(i): caption for i, caption in reversed(CANDIDATES.items())},
        )
        assert as_text.corpus == pytest.approx(spidercap.score(REFERENCES, CANDIDATES).corpus, abs=1e-12)
        mixed = spidercap.score({1: ["a dog"], "b": ["a cat"]}, {1: "a dog", "b": "a cow"}, metrics="rouge")
        assert mixed.images[1]["ROUGE-L"] == pytest.approx(1) and mixed.images["b"]["ROUGE-L"] < 1

    @pytest.mark.parametrize(
        ("references", "candidates", "metrics", "words"),
        [
            ({1: ["a"]}, {}, "rouge", "at least one caption"),
            ({}, {7: "a"}, "rouge", "1 candidates without references (7)"),
            ({1: "a dog"}, {1: "a"}, "rouge", "not a list of texts"),
            ({1: []}, {1: "a"}, "rouge", "not a list of texts"),
            ({1: ["a"]}, {1: ["a"]}, "rouge", "candidates that are not text"),
            ({1: ["a"]}, {1: "a"}, "cidre", "did you mean cider"),
            ({1: ["a"]}, {1: "a"}, ["cider"], "needed: 'all' or names"),
            ({1: 5}, {1: "a"}, "rouge", "not a list of texts"),
            ({1: {"a": 1}}, {1: "a"}, "rouge", "not a list of texts"),
            ([["a"]], {0: "a"}, "rouge", "references is a list"),
            ({1: ["a"]}, [(1, "a")], "rouge", "candidates is a list"),
            ({1: ["a " * 6000]}, {1: "a"}, "rouge", "over 10,000 characters"),
        ],
    )
    def test_what_cannot_be_scored_is_named(self, references, candidates, metrics, words):
        with pytest.raises(spidercap.UserError) as error:
            spidercap.score(references, candidates, metrics)
        assert words in str(error.value)

    def test_references_of_any_kind_of_list(self):
        expected = spidercap.score(REFERENCES, CANDIDATES).corpus
        for kind in (iter, tuple, np.array, lambda of: (text for text in of)):
            assert spidercap.score({i: kind(of) for i, of in REFERENCES.items()}, CANDIDATES).corpus == expected

    def test_the_published_scores(self, data_folder):
        """As published with the COCO evaluation, from captions as they were written."""
        coco = data_folder / "coco"
        references = {}
        for annotation in json.loads((coco / "demo_references.json").read_text())["annotations"]:
            references.setdefault(annotation["image_id"], []).append(annotation["caption"])
        said = {r["image_id"]: r["caption"] for r in json.loads((coco / "demo_results.json").read_text())}
        corpus = spidercap.score(references, said).corpus
        published = {"BLEU-1": 0.579, "BLEU-4": 0.191, "ROUGE-L": 0.396, "CIDEr": 0.600}
        assert {name: round(corpus[name], 3) for name in published} == published


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir with an exported model of random weights."""
    encoder = small_encoder(32)
    captioner = LstmCaptioner(len(WORDS), encoder.output_shape[1], 4, 3, 0.0)
    workdir = tmp_path_factory.mktemp("run")
    with unchecked():
        export(encoder, captioner, WORDS, 5, workdir / "export", [picture(0)])
    return workdir


class TestLoad:
    def test_files_bytes_and_arrays_get_the_same_captions(self, workdir, tmp_path):
        (tmp_path / "a.png").write_bytes(picture(1))
        array = tf.io.decode_image(picture(1)).numpy()
        captioner = spidercap.load(workdir)
        captions = captioner.caption([tmp_path / "a.png", str(tmp_path / "a.png"), picture(1), array])
        assert captions == [captions[0]] * 4
        ((caption, log_prob),) = captions[0]
        assert set(caption.split()) <= {"a", "dog"} and log_prob <= 0
        for folder in (workdir / "export", workdir / "export" / "1"):
            assert spidercap.load(folder).caption([array]) == captions[:1]
        assert captioner.caption([]) == []

    def test_what_is_no_image_is_named(self, workdir, tmp_path):
        captioner = spidercap.load(workdir)
        (tmp_path / "text.jpg").write_text("no image")
        for image, words in (
            (tmp_path / "none.jpg", "none.jpg cannot be read"),
            (tmp_path / "text.jpg", "text.jpg cannot be decoded"),
            (picture(0)[:80], "image 1 cannot be decoded"),
            (np.zeros([4, 4], np.uint8), r"image 1 is uint8 \[4, 4\]"),
            (np.zeros([4, 4, 3], np.float32), "must be uint8"),
            (7, "image 1 is a int"),
        ):
            with pytest.raises(spidercap.UserError, match=words):
                captioner.caption([picture(0), image])
        with pytest.raises(spidercap.UserError, match="takes a list"):
            captioner.caption("a.jpg")

    def test_a_folder_without_a_model_is_named(self, tmp_path):
        with pytest.raises(spidercap.UserError, match="holds no exported model; name a workdir"):
            spidercap.load(tmp_path)
        for path in (None, 7, b"runs", "x" * 5000, "a\0b", tmp_path / "none"):
            with pytest.raises(spidercap.UserError, match="is no folder; name a workdir"):
                spidercap.load(path)
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(b"no model")
        with pytest.raises(spidercap.UserError, match="cannot be loaded"):
            spidercap.load(tmp_path)
        tf.saved_model.save(tf.Module(), str(tmp_path / "2"))
        with pytest.raises(spidercap.UserError, match=r"cannot be loaded|of something else"):
            spidercap.load(tmp_path)

    def test_what_is_no_version_is_passed_over(self, workdir, tmp_path):
        shutil.copytree(workdir / "export", tmp_path / "export")
        (tmp_path / "export" / "9").mkdir()
        (tmp_path / "export" / "10").write_text("")
        assert spidercap.load(tmp_path).caption([picture(1)]) == spidercap.load(workdir).caption([picture(1)])


def picture(seed):
    return tf.io.encode_png(np.random.default_rng(seed).integers(0, 255, (9, 7, 3), np.uint8)).numpy()


TINY = {
    **{"scenes_train": 24, "scenes_val": 6, "encoder": "VGG16", "encoder_weights": "random", "image_size": 32},
    **{"units": 8, "embedding_size": 6, "max_length": 8, "batch_size": 24, "min_word_count": 2},
    **{"stages": "mle:0.4,leave_one_out:1", "samples": 2, "reward": "rouge:1,brevity:0.5"},
}


class TestTrain:
    @pytest.mark.long
    def test_a_run_with_a_reward_function_and_its_captions(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(modes, "run_caption", lambda *_: None)  # `load` captions with the exported model below
        seen = []

        def brevity(captions, references, image_ids):
            seen.extend(zip(captions, references, image_ids, strict=True))
            return [-float(len(caption.split())) for caption in captions]

        call = functools.partial(spidercap.train, workdir=str(tmp_path / "run"), **TINY)
        with unchecked():
            workdir = call(reward_functions={"brevity": brevity})
        assert workdir == tmp_path / "run" and (workdir / "report.html").is_file()
        assert seen and all(isinstance(c, str) and len(r) == 5 and isinstance(i, int) for c, r, i in seen)
        sample = next((workdir / "samples").iterdir())
        assert len(spidercap.load(workdir).caption([sample])[0]) == 1

        scored = len(seen)
        assert call(reward_functions={"brevity": brevity}) == workdir and len(seen) == scored  # all is done
        capsys.readouterr()
        assert main(["main", "--mode=evaluate", f"--workdir={workdir}"]) == 0
        assert main(["main", f"--workdir={workdir}", *(f"--{n}={v}" for n, v in TINY.items())]) == 1
        assert "unknown 'brevity'" in capsys.readouterr().err
        named = "--reward_functions=brevity=python:brevity"
        assert main(["main", f"--workdir={workdir}", named, *(f"--{n}={v}" for n, v in TINY.items())]) == 1
        assert "brevity was given from Python" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"workdir": ""}, "no workdir given"),
            ({"reward_functions": {"brevity": 3}}, "brevity is a int; needed: a function"),
            ({"reward_functions": {"brevity": lambda captions: captions}}, "brevity cannot be called"),
            ({"reward_functions": {"cider": lambda c, r, i: c}}, "cider is a metric"),
            ({"reward_functions": {"a,b": lambda c, r, i: c}}, "'a,b' cannot be a name"),
            ({"reward_functions": [len]}, "needed: a dict of functions by name"),
            ({"mode": "evaluate"}, "takes no mode"),
            ({"units": 0}, "--units=0 is invalid; allowed: a whole number from 1"),
            ({}, "unknown 'brevity'"),
        ],
    )
    def test_what_cannot_be_is_named_before_any_work(self, tmp_path, more, words):
        with pytest.raises(spidercap.UserError) as error:
            spidercap.train(**{"workdir": str(tmp_path / "run"), **TINY, **more})
        assert words in str(error.value)
        assert not (tmp_path / "run").exists()
