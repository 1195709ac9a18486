"""Several captioners as one: plain-Python means of probabilities, runs of the command line, and what is refused."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import spidercap
from spidercap.models import sampling
from spidercap.models.captioners import CAPTIONERS
from spidercap.models.decoder import DECODERS, Decoder
from spidercap.models.ensemble import Ensemble
from spidercap.models.special_tokens import END, PAD, START
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import build_decoder
from spidercap.pipeline.main import main
from spidercap.pipeline.settings.workdirs import named_workdirs
from tests import faults
from tests.conftest import ROOT, make_toy
from tests.enumeration import CAPTIONS
from tests.oracles import word_probabilities
from tests.test_beam import captions, plain_search
from tests.test_gpu_ready import host_only

T = 3
DECODED = [
    Decoder(),
    Decoder("beam", 4, n_best=4),
    Decoder("diverse_beam", 4, beam_groups=2, diversity=0.5, n_best=4),
    Decoder("sample", n_best=4),
    Decoder("top_k", top_k=2, n_best=4),
    Decoder("nucleus", top_p=0.7, n_best=4),
]


def moved(captioner, seed):
    """The captioner with other weights."""
    rng = np.random.default_rng(seed)
    for weight in captioner.trainable_variables:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return captioner


@pytest.fixture(params=[("lstm", "lstm"), ("lstm", "attention"), ("attention", "transformer")], ids="-".join)
def two(request):
    """Two captioners of one vocabulary, and the features of each, of two images."""
    toys = [make_toy(kind) for kind in request.param]
    return [moved(toy[0], 10 + i) for i, toy in enumerate(toys)], tuple(toy[2] for toy in toys)


def mean_step(members, features, image):
    """A step in plain Python for one image: the state is the tokens read, the logits are of the mean probability."""
    begun = [c.begin(tf.constant(f[image : image + 1])) for c, f in zip(members, features, strict=True)]

    def step(states, token):
        after = [step(state, token) for (step, _), state in zip(begun, states, strict=True)]
        each = []
        for _, logits in after:
            logits = np.asarray(logits, np.float64)[0]
            odds = np.exp(logits - logits.max())
            each.append(odds / odds.sum())
        with np.errstate(divide="ignore"):
            mean = np.maximum(np.log(np.mean(each, axis=0)), -1e9)
        return [state for state, _ in after], tf.constant(mean[None], tf.float32)

    return step, [state for _, state in begun]


@pytest.mark.parametrize("decoder", DECODED, ids=lambda d: d.decode)
@pytest.mark.parametrize("toy", CAPTIONERS, indirect=True)
def test_an_ensemble_of_one_is_the_captioner(toy, decoder):
    captioner, _, features = toy
    alone = build_decoder(captioner, T, decoder, seed=4)(features)
    found = build_decoder(Ensemble([captioner]), T, decoder, seed=4)((features,))
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_prob, alone.log_prob, atol=1e-4)


def test_greedy_takes_the_likeliest_word_of_the_mean(two):
    members, features = two
    found = build_decoder(Ensemble(members), T)(features)
    for image in range(2):
        step, state = mean_step(members, features, image)
        said, total = [], 0.0
        while len(said) < T and END not in said:
            state, logits = step(state, tf.constant([said[-1] if said else START]))
            said.append(int(np.argmax(logits)))
            total += float(logits[0, said[-1]])
        assert [int(w) for w in found.tokens[image, 0] if w != PAD] == said
        assert found.log_prob[image, 0] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("width", [2, 5])
def test_beam_search_of_the_mean(two, width):
    members, features = two
    found = build_decoder(Ensemble(members), T, Decoder("beam", width, n_best=width))(features)
    for image in range(2):
        expected = plain_search(*mean_step(members, features, image), T, width)
        assert captions(found, image)[: len(expected)] == [said for _, _, said in expected]
        np.testing.assert_allclose(found.log_prob[image, : len(expected)], [lp for _, lp, _ in expected], atol=1e-4)


def test_it_differs_from_the_mean_of_logits_and_from_its_members(two):
    """Or the tests above would not tell them apart."""
    members, features = two
    firsts = []
    for member, of in zip(members, features, strict=True):
        step, state = member.begin(tf.constant(of))
        firsts.append(step(state, tf.fill([2], START))[1])
    step, state = Ensemble(members).begin([tf.constant(of) for of in features])
    found = tf.nn.softmax(step(state, tf.fill([2], START))[1])
    np.testing.assert_allclose(found, (tf.nn.softmax(firsts[0]) + tf.nn.softmax(firsts[1])) / 2, atol=1e-6)
    for other in (tf.nn.softmax((firsts[0] + firsts[1]) / 2), *map(tf.nn.softmax, firsts)):
        assert np.abs(found - other).max() > 1e-3


def test_frequencies_of_samples_are_the_product_of_mean_probabilities(two):
    members, features = two
    count = 20_000
    uniform = sampling.uniforms(tf.constant([3, 4]), count, 1, T)
    repeated = [tf.repeat(tf.constant(of[:1]), count, axis=0) for of in features]
    decode = tf.function(lambda: Decoder("sample").captions(Ensemble(members), repeated, T, uniform), autograph=False)
    tokens, log_prob = decode()
    exact = {c: float(np.prod(word_probabilities(*mean_step(members, features, 0), c))) for c in CAPTIONS}
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
    counts = dict.fromkeys(CAPTIONS, 0)
    for row, total in zip(tokens.numpy()[:, 0], log_prob.numpy()[:, 0], strict=True):
        said = tuple(int(w) for w in row if w != PAD)
        counts[said] += 1
        assert total == pytest.approx(np.log(exact[said]), abs=1e-3)
    for said, probability in exact.items():
        bound = 5 * np.sqrt(count * probability * (1 - probability)) + 1e-6
        assert abs(counts[said] - count * probability) <= bound


def test_a_member_with_non_finite_logits_spoils_its_images_alone(two):
    members, features = two
    spoilt = tuple(of.copy() for of in features)
    spoilt[1][0] = np.nan
    fine, found = (build_decoder(Ensemble(members), T)(of) for of in (features, spoilt))
    assert found.tokens[0, 0].tolist() == [END, PAD, PAD] and np.isnan(found.log_prob[0, 0])
    np.testing.assert_array_equal(found.tokens[1], fine.tokens[1])


def test_other_sizes_of_vocabulary_are_refused():
    captioner = make_toy()[0]
    other = CAPTIONERS["lstm"](vocabulary_size=8, feature_size=3, units=5, embedding_size=4, dropout=0.0)
    with pytest.raises(ValueError, match=r"one vocabulary; theirs have \[7, 8\] tokens"):
        Ensemble([captioner, other])


def test_it_stays_on_the_device(two):
    members, features = two

    @tf.function(autograph=False)
    def search(*features):
        return DECODERS["beam"](*Ensemble(members).begin(features), T, Decoder("beam", 3), False, None)

    assert host_only(search.get_concrete_function(*map(tf.constant, features))) == set()


# --- by the command line ---


def run(*flags):
    """Returns (exit code, what was printed, what was printed on stderr)."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["main", *map(str, flags)])
    return code, out.getvalue(), err.getvalue()


def fine(*flags):
    """Returns what a command printed that succeeds."""
    code, out, err = run(*flags)
    assert code == 0, err
    return out


def refused(*flags):
    """Returns the line of a command that fails."""
    code, _, err = run(*flags)
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1, err
    return err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of runs on regions: `a` and its copy, `b` with another network, `few` with fewer words."""
    folder = tmp_path_factory.mktemp("runs")
    data = faults.make_data(folder / "data")
    path = folder / "data" / "features.npz"
    rng = np.random.default_rng(1)
    with np.load(path) as vectors:
        parts = {name: rng.normal(size=(1 + i % 4, 6)) for i, name in enumerate(vectors.files)}
    np.savez(path, **parts)
    common = (*faults.FLAGS, *data, "--stages=mle:6", "--learning_rate=mle:3e-2", f"--cache_dir={folder / 'cache'}")
    train(common, folder / "a", "--decoder=lstm")
    train(common, folder / "b", "--decoder=transformer", "--seed=1", "--units=6", "--max_length=6")
    train(common, folder / "few", "--min_word_count=24")
    shutil.copytree(folder / "a", folder / "copy")
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """The folder of two runs on images, of which one attends to their cells."""
    folder = tmp_path_factory.mktemp("seeing")
    tiny = (f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--stages=mle:3", "--scenes_test=0")
    train(tiny, folder / "mean")
    train(tiny, folder / "cells", "--decoder=attention", "--seed=1")
    return folder


def train(common, workdir, *more):
    """Trains a run, which is not exported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spidercap.pipeline.modes.export_once", lambda config: None)
        patch.setattr("spidercap.pipeline.modes.run_caption", lambda config, images: None)
        patch.setattr("spidercap.pipeline.modes.caption_examples", lambda *_: None)
        fine(*common, f"--workdir={workdir}", *more)


def content(path):
    return json.loads(path.read_text())


def files(folder):
    """What a folder holds, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_and_its_copy_score_as_the_run_and_nothing_of_them_is_written(trained):
    before = files(trained / "a"), files(trained / "copy")
    together = f"--workdir={trained / 'a'},{trained / 'copy'}"
    out = fine("--mode=evaluate", together, f"--cache_dir={trained / 'cache'}")
    assert (files(trained / "a"), files(trained / "copy")) == before
    folder = trained / "ensembles" / "a+copy"
    assert f"results:     {folder}" in out and "6 validation images:" in out and "4 test images:" in out
    for split in ("val", "test"):
        found, alone = folder / "results" / split, trained / "a" / "results" / split
        assert content(found / "ensemble.json") == content(alone / "mle.json")
        assert content(found / "ensemble.metrics.json") == content(alone / "mle.metrics.json")
    summary = content(folder / "summary.json")
    assert summary["decoding"] == {"decode": "greedy"} and list(summary["splits"]) == ["val", "test"]
    assert summary["members"][0] == {"workdir": str(trained / "a"), "stage": "mle"}


def test_evaluation_and_captioning_of_two_networks_agree(trained, tmp_path):
    """Also with beams: an LSTM that reads the mean of regions, and a Transformer that attends to them."""
    together = f"--workdir={trained / 'a'},{trained / 'b'}"
    beam = ("--decode=beam", "--beam_width=3", "--n_best=2")
    out = fine("--mode=evaluate", together, *beam, f"--output={tmp_path / 'both'}", f"--cache_dir={trained / 'cache'}")
    assert "at most 6 tokens" in out
    said = {
        f"{split}{row['image_id']}.jpg": [caption["caption"] for caption in row["captions"]]
        for split in ("val", "test")
        for row in content(tmp_path / "both" / "results" / split / "ensemble.n_best.json")
    }
    output = tmp_path / "captions.json"
    features = f"--features={trained / 'data' / 'features.npz'}"
    out = fine("--mode=caption", together, *beam, features, f"--output={output}")
    captioned = {row["image_id"]: row["caption"] for row in content(output)}
    assert {name: captions[0] for name, captions in said.items()}.items() <= captioned.items()
    for name, captions in said.items():
        assert [line.split(": ")[1].split(" (log")[0] for line in out.splitlines() if line.startswith(name)] == captions
    alone = content(trained / "a" / "results" / "val" / "mle.json")
    assert any(captioned[f"val{row['image_id']}.jpg"] != row["caption"] for row in alone)

    captioner = spidercap.load([trained / "a", trained / "b"], decode="beam", beam_width=3, n_best=2)
    assert captioner.takes_features and captioner.takes_parts
    with np.load(trained / "data" / "features.npz") as parts:
        of_image = captioner.caption_features(parts["val0.jpg"][None])[0]
    assert [caption for caption, _ in of_image] == said["val0.jpg"]


def test_images_with_two_networks(seeing, tmp_path):
    together = f"--workdir={seeing / 'mean'},{seeing / 'cells'}"
    fine("--mode=evaluate", together, f"--output={tmp_path / 'both'}")
    said = [row["caption"] for row in content(tmp_path / "both" / "results" / "val" / "ensemble.json")]
    images = seeing / "mean" / "samples"
    out = fine("--mode=caption", together, f"--images={images}")
    assert [line.split(": ")[1].split(" (log")[0] for line in out.splitlines() if "val_" in line] == said[:2]
    captioner = spidercap.load([seeing / "mean", seeing / "cells"], decode="nucleus", n_best=2)
    paths = [images / "val_0.png", images / "val_1.png"]
    found = captioner.caption(paths, seed=1)
    assert captioner.caption(paths[1:], seed=1) == found[1:] and len(found[0]) == 2
    with pytest.raises(UserError, match="take images alone"):
        captioner.caption_features(np.zeros([1, 512], np.float32))


class TestRefusals:
    @pytest.mark.parametrize("mode", ["train", "prepare", "export", "status", "demo"])
    def test_modes_of_one_run(self, mode, trained):
        error = refused(f"--mode={mode}", f"--workdir={trained / 'a'},{trained / 'b'}")
        assert f"names 2 runs, and --mode={mode} takes one" in error
        assert "--mode=evaluate and --mode=caption" in error

    def test_training_from_python(self, tmp_path):
        with pytest.raises(UserError, match="takes one"):
            spidercap.train(workdir=f"{tmp_path}/a,{tmp_path}/b")
        assert not list(tmp_path.iterdir())

    def test_other_words_are_named(self, trained):
        error = refused("--mode=evaluate", f"--workdir={trained / 'a'},{trained / 'few'}")
        assert f"{trained / 'few'} has another vocabulary than {trained / 'a'}: '" in error
        assert f"in {trained / 'a'} alone" in error and "--min_word_count" in error
        with pytest.raises(UserError, match="another vocabulary"):
            spidercap.load([trained / "a", trained / "few"])

    def test_words_in_another_order_are_named(self, trained, monkeypatch):
        read = spidercap.pipeline.ensembles.identity.kept_vocabulary
        vocabulary = read(spidercap.pipeline.settings.config.Config.of(workdir=str(trained / "a")))
        turned = type(vocabulary)((*vocabulary.words[:4], *vocabulary.words[:3:-1]), ())
        monkeypatch.setattr(
            "spidercap.pipeline.ensembles.identity.kept_vocabulary",
            lambda config: turned if "copy" in config.run.workdir else read(config),
        )
        with pytest.raises(UserError, match=f"token 4 is '{vocabulary.words[4]}' in .*a and '{turned.words[4]}' in"):
            spidercap.load([trained / "a", trained / "copy"])

    def test_features_and_images(self, trained, seeing):
        error = refused("--mode=evaluate", f"--workdir={trained / 'a'},{seeing / 'mean'}")
        assert f"{trained / 'a'} was trained on features and {seeing / 'mean'} on images" in error

    def test_one_run_twice_and_no_run(self, trained):
        link = trained / "link"
        link.symlink_to(trained / "a")
        assert "is named twice" in refused("--mode=evaluate", f"--workdir={trained / 'a'},{link}")
        assert "none holds no run" in refused("--mode=evaluate", f"--workdir={trained / 'a'},{trained / 'none'}")
        with pytest.raises(UserError, match="none holds no run"):
            spidercap.load([trained / "a", trained / "none"])

    def test_places_of_other_results(self, trained):
        together = ("--mode=evaluate", f"--workdir={trained / 'a'},{trained / 'copy'}")
        assert "is the folder of a run" in refused(*together, f"--output={trained / 'b'}")
        other = trained / "other"
        other.mkdir()
        (other / "summary.json").write_text(json.dumps({"members": [{"workdir": "/c"}, {"workdir": "/d"}]}))
        assert "holds results of /c, /d" in refused(*together, f"--output={other}")
        assert "those of one are in its workdir" in refused(
            "--mode=evaluate", f"--workdir={trained / 'a'}", f"--output={other}"
        )

    def test_settings_that_are_not_of_decoding(self, trained):
        with pytest.raises(UserError, match="units is no setting of decoding"):
            spidercap.load([trained / "a", trained / "copy"], units=3)
        with pytest.raises(UserError, match="decode is for a list"):
            spidercap.load(trained / "a", decode="beam")
        with pytest.raises(UserError, match="names no workdir"):
            spidercap.load([])


def test_a_folder_with_a_comma_is_one_run(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert named_workdirs(f"{tmp_path}/a,b") == [f"{tmp_path}/a,b"]
    assert named_workdirs(f"{tmp_path}/a, {tmp_path}/b,") == [f"{tmp_path}/a", f"{tmp_path}/b"]
