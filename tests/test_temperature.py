"""A policy is sharpened once, where rewards take over from likelihood; what is likeliest stays so."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import START
from spidercap.pipeline.errors import Interrupted
from spidercap.pipeline.evaluation.evaluate import build_decoder
from spidercap.pipeline.training.kept import build_models, load_kept, takes_over
from tests.tiny_runs import LENGTH, VOCABULARY, assert_same_end, config_of, make_arrays, run


@pytest.fixture
def arrays():
    return make_arrays()


def log_probabilities(captioner, features):
    words = tf.fill([len(features)], START)
    step, start = captioner.begin(tf.constant(features))
    _, logits = step(start, words)
    return tf.nn.log_softmax(logits[:, : len(VOCABULARY.words)]).numpy()


def test_logits_are_divided_and_greedy_captions_stay(tmp_path, arrays):
    config = config_of(tmp_path, stages="mle:2")
    run(config, arrays)
    captioner, baseline = build_models(config, VOCABULARY, 5)
    load_kept(tmp_path, "mle", captioner, baseline)
    captioner.words.bias.assign_add(np.linspace(-1, 1, len(VOCABULARY.words)))
    features, decode = arrays.features[:, 0], build_decoder(captioner, LENGTH)
    said, before = decode(features).tokens, log_probabilities(captioner, features)
    captioner.apply_temperature(0.5)
    after = log_probabilities(captioner, features)
    sayable = before[0] > -1e6
    expected = 2 * before[:, sayable] - np.log(np.exp(2 * before[:, sayable]).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(after[:, sayable], expected, atol=1e-5)
    assert (after[:, ~sayable] < -1e6).all() and not sayable.all()
    np.testing.assert_array_equal(build_decoder(captioner, LENGTH)(features).tokens, said)


def test_it_is_done_once_and_before_the_baseline_learns(tmp_path, arrays):
    """Whoever begins with the run of rewards finds a sharpened policy, and leaves it."""

    def trained(name, **settings):
        config = config_of(tmp_path / name, temperature=0.25, **settings)
        config.workdir_path().mkdir()
        # What --warm_start reads.
        (config.workdir_path() / "config.json").write_text(config.to_json())
        (config.workdir_path() / "vocabulary.json").write_text(VOCABULARY.to_json())
        run(config, arrays)
        return config

    still = ",".join(f"{name}:1e-9" for name in ("baseline", "pg", "scst"))
    first = trained("mle", stages="mle:1")
    second = trained("pg", stages="baseline:0.4,pg:0.4", learning_rate=still, warm_start=first.run.workdir)
    third = trained("scst", stages="scst:0.4", learning_rate=still, warm_start=second.run.workdir)
    kernels = []
    for config, label in ((first, "mle"), (second, "baseline"), (second, "pg"), (third, "scst")):
        captioner, baseline = build_models(config, VOCABULARY, 5)
        load_kept(config.workdir_path(), label, captioner, baseline)
        kernels.append(captioner.words.kernel.numpy())
    for kernel in kernels[1:]:
        np.testing.assert_allclose(kernel, 4 * kernels[0], atol=1e-6)


def test_stopped_runs_sharpen_as_others_do(tmp_path, arrays):
    settings = {"stages": "mle:1,leave_one_out:1", "samples": 2, "temperature": 0.5, "weight_average": 0.9}
    whole = run(config_of(tmp_path / "whole", **settings), arrays)
    for validation in (2, 1):  # at mle's end, where the checkpoint is not sharpened yet, and within leave_one_out
        with pytest.raises(Interrupted):
            run(config_of(tmp_path / "stopped", **settings), arrays, validation)
    assert_same_end(run(config_of(tmp_path / "stopped", **settings), arrays), whole)


def test_a_run_that_begins_with_rewards_has_nothing_to_take_over_from(tmp_path):
    config = config_of(tmp_path, stages="pg:1,mle:1,scst:1,pg:1")
    assert [takes_over(config, k) for k in range(4)] == [False, False, True, False]


def test_a_temperature_that_changes_nothing_is_told(tmp_path, arrays, capsys):
    for stages, told in (("mle:0.4", True), ("scst:0.4", True), ("mle:0.4,scst:0.4", False)):
        run(config_of(tmp_path / stages, stages=stages, temperature=0.5), arrays)
        assert ("--temperature=0.5 changes nothing" in capsys.readouterr().err) == told
    run(config_of(tmp_path / "usual", stages="scst:0.4"), arrays)
    assert "temperature" not in capsys.readouterr().err


def test_a_stopped_run_needs_its_warm_start_no_more(tmp_path, arrays):
    first = config_of(tmp_path / "first", stages="mle:0.4")
    first.workdir_path().mkdir()
    (first.workdir_path() / "config.json").write_text(first.to_json())
    (first.workdir_path() / "vocabulary.json").write_text(VOCABULARY.to_json())
    run(first, arrays)
    settings = {"stages": "leave_one_out:1", "samples": 2, "temperature": 0.5, "warm_start": first.run.workdir}
    whole = run(config_of(tmp_path / "whole", **settings), arrays)
    stopped = config_of(tmp_path / "stopped", **settings)
    with pytest.raises(Interrupted):
        run(stopped, arrays, 1)
    first.workdir_path().rename(tmp_path / "moved")
    assert_same_end(run(stopped, arrays), whole)
