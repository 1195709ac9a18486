"""Steps of a toy captioner, on the devices of a strategy or on one."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from spidercap.models.baseline import Baseline
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.special_tokens import END
from spidercap.pipeline.data.batches import TrainingArrays, caption_batches, image_batches
from spidercap.pipeline.training import replicas
from spidercap.pipeline.training.logs import as_floats, named_scalars
from spidercap.pipeline.training.rewards import Reward
from spidercap.pipeline.training.steps import likelihood_step, policy_gradient_step
from tests.variants import OBJECTIVES, adam, learned_baseline

IMAGES, STEPS, T = 7, 3, 3
REFERENCES = np.array([[4, END, 0], [5, 6, END], [6, 5, 4], [3, 6, END], [END, 0, 0]] * 3, np.int32)


def arrays():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(IMAGES, 2, 3)).astype(np.float32)
    image_index = np.sort(np.arange(len(REFERENCES)) % IMAGES).astype(np.int32)
    return TrainingArrays(features, REFERENCES, image_index, REFERENCES[:IMAGES, None])


def rewarded(tokens, image_index):
    """An arbitrary number for each caption of each image."""
    code = tf.reduce_sum(tokens * tf.constant([1, 10, 100]), axis=1) + 7 * image_index
    return {"cider": tf.sin(tf.cast(code, tf.float32)) ** 2}


def on_host(tokens, image_index):
    return rewarded(tf.constant(tokens), tf.constant(image_index))["cider"].numpy()


REWARDS = {
    "compiled": lambda: Reward({"cider": 1.0}, rewarded, {}),
    "host": lambda: Reward({"cider": 1.0, "meteor": 0.5}, rewarded, {"meteor": on_host}),
}


def trained(name, batch_size, strategy=None, reward="compiled", device=None, **options):
    """Weights, optimizer states and the logs after some steps; `device` is where models and steps are, not the data."""
    with strategy.scope() if strategy else contextlib.nullcontext(), tf.device(device):
        keras.utils.set_random_seed(3)
        captioner = LstmCaptioner(vocabulary_size=7, feature_size=3, units=5, embedding_size=4, dropout=0.4)
        rng = np.random.default_rng(5)
        for weight in captioner.trainable_variables:
            weight.assign(rng.normal(0, 0.8, weight.shape))
        baseline = learned_baseline(name, Baseline(5, 6), T)
        settings = {"global_clipnorm": 0.05, "weight_decay": 0.1, "use_ema": True, "ema_momentum": 0.9}
        optimizers = adam(captioner, **settings), adam(baseline)
        if name == "mle":
            more = {"label_smoothing": 0.1, "scheduled_sampling": True}
            step = likelihood_step(captioner, optimizers[0], feature_dropout=0.3, **more)
        else:
            objective = OBJECTIVES[name](captioner, T)
            step = policy_gradient_step(
                captioner, baseline, REWARDS[reward](), objective, *optimizers, feature_dropout=0.3, **options
            )
        by_caption = name in ("mle", "mixer")
        batches = caption_batches if by_caption else image_batches
        more = {} if by_caption else {"with_captions": "likelihood_weight" in options}
        with tf.device(None):
            dataset = batches(arrays(), batch_size, 0, STEPS, (1, 0), parts=replicas.parts(), **more)
        logs = []
        for number, batch in enumerate(replicas.batches(dataset)):
            found = step(batch, tf.constant([2, number]), tf.constant(1.0 if by_caption else 0.0))
            logs.append(named_scalars(as_floats(replicas.local(found)[0])))
        models = [captioner, *filter(None, [baseline, *optimizers])]
        assert len(logs) == STEPS
        return [np.array(v) for model in models for v in model.variables], logs


def assert_as_on_one_device(name, batch_size, strategy, **options):
    """Asserts that weights, optimizers and logs are those of one device, to rounding; returns the logs."""
    several = trained(name, batch_size, strategy, **options)
    assert_close(trained(name, batch_size, **options), several)
    return several[1]


def assert_close(one, several, weights=(2e-5, 2e-6), of_logs=(2e-4, 2e-5)):
    """Asserts that two results of `trained` are equal, to rounding; tolerances are relative and absolute."""
    for a, b in zip(one[0], several[0], strict=True):
        np.testing.assert_allclose(a, b, *weights)
    for a, b in zip(one[1], several[1], strict=True):
        assert a.keys() == b.keys()
        for term, value in a.items():
            np.testing.assert_allclose(value, b[term], *of_logs, err_msg=term)
