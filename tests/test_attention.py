"""Captioners that attend to parts of an image: their equations, their time steps, and parts that are not there."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import attention, decoding
from spidercap.models.attending import ABSENT, Values, attend, attend_by_image, in_heads
from spidercap.models.attention import AttentionCaptioner
from spidercap.models.beam import beam_search
from spidercap.models.fixed_greedy import fixed_greedy
from spidercap.models.packing import pack
from spidercap.models.special_tokens import END, PAD
from spidercap.models.transformer import positions
from spidercap.models.word_loss import log_probs
from spidercap.pipeline.training.gradients import policy_gradients
from spidercap.pipeline.training.steps import scored_captions, split_rewards
from tests import plain
from tests.conftest import make_toy
from tests.enumeration import CAPTIONS, distribution, flat, table_reward
from tests.oracles import word_probabilities
from tests.test_invariance import batch_of, every_objective

T = 5
WORDS = tf.constant([[4, 5, 6, END, PAD], [6, END, PAD, PAD, PAD], [5, 5, 4, 6, 4]])
ROW = tf.constant([1, 0, 1])  # the second image has three parts, one less


@pytest.fixture(params=["attention", "transformer"])
def toy(request):
    return make_toy(request.param)


@pytest.mark.parametrize("few", [False, True])
def test_hidden_states_are_those_of_the_equation(toy, few, monkeypatch):
    monkeypatch.setattr(attention, "_few", lambda features, tokens: few)
    captioner, _, features = toy
    packing = pack(WORDS)
    found = captioner.hidden(tf.constant(features), WORDS, packing, feature_row=ROW)
    expected = plain.hidden(captioner, features[ROW.numpy()], WORDS)
    np.testing.assert_allclose(found, packing.of(expected), atol=1e-6)
    elsewhere = plain.hidden(captioner, features[1 - ROW.numpy()], WORDS)
    assert np.abs(found - packing.of(elsewhere)).max() > 0.1


@pytest.mark.parametrize(("samples", "few"), [(1, True), (3, True), (5, False), (20, False)])
def test_many_samples_of_an_image_multiply_kernels_with_its_parts(samples, few):
    tokens, features = tf.zeros([64 * samples, 20], tf.int32), tf.zeros([64, 49, 3])
    assert attention._few(features, tokens) is few


def test_teacher_forcing_is_what_the_steps_say(toy):
    captioner, _, features = toy
    packing = pack(WORDS)
    hidden = captioner.hidden(tf.constant(features), WORDS, packing, feature_row=ROW)
    found = packing.of(
        tf.scatter_nd(packing.index, log_probs(captioner.projection(), hidden, packing.of(WORDS)), [3, T])
    )
    place = packing.places(T).numpy()
    for i, row in enumerate(ROW.numpy()):
        caption = [w for w in WORDS.numpy()[i] if w != PAD]
        steps = word_probabilities(*captioner.begin(tf.constant(features[row : row + 1])), caption)
        np.testing.assert_allclose(found.numpy()[place[i, : len(caption)]], np.log(steps), atol=1e-5)


def test_rows_of_an_image_share_its_parts(toy):
    """Each row of the state knows its image's number, and nothing of its parts."""
    captioner, _, features = toy
    step, state = captioner.begin(tf.constant(features), 3)
    sizes = {size for leaf in tf.nest.flatten(state) for size in leaf.shape[1:]}
    assert not sizes & {4, 3}  # P and F
    np.testing.assert_array_equal(state[-1], [0, 0, 0, 1, 1, 1])
    same_step, same = captioner.begin(tf.constant(np.repeat(features, 3, axis=0)))
    words = tf.constant([4, 5, 6, 4, 5, 6])
    for _ in range(2):
        (state, logits), (same, expected) = step(state, words), same_step(same, words)
        np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_parts_that_are_not_there_change_nothing(toy):
    captioner, _, features = toy
    padded = np.pad(features, [(0, 0), (0, 3), (0, 0)])
    packing = pack(WORDS)
    few, many = (captioner.hidden(tf.constant(x), WORDS, packing, feature_row=ROW) for x in (features, padded))
    np.testing.assert_allclose(few, many, atol=1e-6)
    drawn = [decoding.sample(*captioner.begin(tf.constant(x), 20), T, tf.constant([1, 2])) for x in (features, padded)]
    np.testing.assert_array_equal(*drawn)
    dropped = [captioner.drop_features(tf.constant(x), 0.5, tf.constant([3, 4])).numpy() for x in (features, padded)]
    np.testing.assert_array_equal(dropped[0], dropped[1][:, :4])
    assert not dropped[1][:, 4:].any() and not dropped[0][1, 3].any()
    other = type(captioner)(7, 3, 5, 4, 0.0)
    captioner.adapt(features)
    other.adapt(padded)
    np.testing.assert_allclose(captioner.feature_mean, features.reshape(-1, 3)[:7].mean(axis=0), atol=1e-6)
    for name in ("feature_mean", "feature_deviation"):
        np.testing.assert_allclose(getattr(captioner, name), getattr(other, name), atol=1e-6)


def test_the_order_of_parts_changes_nothing(toy):
    captioner, _, features = toy
    turned = captioner.hidden(tf.constant(features[:, ::-1]), WORDS, pack(WORDS), feature_row=ROW)
    np.testing.assert_allclose(
        turned, captioner.hidden(tf.constant(features), WORDS, pack(WORDS), feature_row=ROW), atol=1e-6
    )


def test_an_image_without_parts_is_finite(toy):
    captioner, _, features = toy
    hidden = captioner.hidden(tf.zeros_like(features), WORDS, pack(WORDS), feature_row=ROW)
    assert np.isfinite(hidden).all()


def test_the_same_features_are_dropped_in_all_parts(toy):
    captioner, _, _ = toy
    captioner.feature_mean.assign([1.0, 2.0, 3.0])
    features = tf.constant(np.random.default_rng(0).normal(size=(50, 4, 3)), tf.float32)
    dropped = captioner.drop_features(features, 0.5, tf.constant([1, 5])).numpy()
    is_mean = np.isclose(dropped, [1, 2, 3])
    assert (is_mean.all(axis=1) == is_mean.any(axis=1)).all()
    assert 0.35 < is_mean.mean() < 0.65
    np.testing.assert_allclose(
        dropped[~is_mean], ((features - [1.0, 2, 3]) * 2 + [1.0, 2, 3]).numpy()[~is_mean], rtol=1e-4
    )


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.long)])
def test_all_decoders_find_what_plain_python_finds(toy, jit):
    captioner, _, features = toy
    captioner.jit = jit
    for row in range(2):
        image = tf.constant(features[row : row + 1])
        probability = distribution(captioner, features[row : row + 1])
        best = max(CAPTIONS, key=probability.get)
        beams = tf.function(lambda x: beam_search(*captioner.begin(x), 3, width=40, n_best=1, jit=jit))(image)
        assert tuple(w for w in beams.tokens.numpy()[0, 0] if w != PAD) == best
        tokens, log_prob = decoding.greedy(*captioner.begin(image), 3, jit)
        fixed, fixed_log_prob = fixed_greedy(*captioner.begin(image), 3)
        np.testing.assert_array_equal(tokens, fixed)
        said = tuple(w for w in tokens.numpy()[0] if w != PAD)
        np.testing.assert_allclose([log_prob[0], fixed_log_prob[0]], np.log(probability[said]), atol=1e-5)


@pytest.mark.parametrize("which", range(6))
def test_gradients_are_those_of_the_plain_pass(toy, which, monkeypatch):
    """All objectives, with several samples an image: what is packed and shared out, against one after the other.

    Kernels are multiplied with the words in one of them, and with the parts in the other.
    """
    few = iter([True, False])
    monkeypatch.setattr(attention, "_few", lambda features, tokens: next(few))
    captioner, baseline, features = toy
    captioner.apply_temperature(3.0)  # or most samples would be the greedy caption
    objective = every_objective(captioner)[which]
    experience = objective.sample(batch_of(features), tf.constant([2, 6]), tf.constant(0.0))
    rewards = split_rewards(experience, table_reward(*scored_captions(experience)))
    credit = objective.credit(experience, *rewards)
    found = policy_gradients(captioner, baseline, experience, credit).captioner
    alone = experience._replace(
        features=tf.gather(experience.features, experience.feature_row), feature_row=None
    )  # each sample with parts of its own
    expected = policy_gradients(captioner, baseline, alone, credit).captioner
    assert np.abs(flat(found)).max() > 1e-3
    np.testing.assert_allclose(flat(found), flat(expected), atol=1e-6)


def test_it_has_the_weights_of_the_other_one_and_three_layers():
    own, other = (make_toy(kind)[0] for kind in ("attention", "lstm"))
    extra = {layer.name for layer in own.layers} - {layer.name for layer in other.layers}
    assert extra == {"query", "key", "value"} and isinstance(own, AttentionCaptioner)


def some_values(rng, images):
    """Queries `[N, 3, 128]`, and keys, values and what is added for two heads, four values an image."""
    queries, keys, values = (rng.normal(size=(images, n, 128)).astype(np.float32) for n in (3, 4, 4))
    added = np.where(rng.random((images, 1, 1, 4)) < 0.3, ABSENT, 0).astype(np.float32)
    return queries, keys, values, added


def as_seen(keys, values, added):
    return Values(*(in_heads(tf.constant(part), 2) for part in (keys, values)), tf.constant(added))


def test_heads_attend_each_on_their_own():
    queries, *given = some_values(np.random.default_rng(0), 2)
    found = attend(tf.constant(queries), as_seen(*given))[0].numpy()
    keys, values, added = given
    for n, s, head in itertools.product(range(2), range(3), (slice(0, 64), slice(64, 128))):
        scores = keys[n, :, head] @ queries[n, s, head] / 8 + added[n, 0, 0]
        shares = np.exp(scores - scores.max())
        np.testing.assert_allclose(found[n, s, head], shares @ values[n, :, head] / shares.sum(), atol=1e-5)


def test_weights_times_values_are_what_is_seen():
    queries, *given = some_values(np.random.default_rng(0), 2)
    seen, weights = attend(tf.constant(queries), as_seen(*given))
    expected = np.einsum("nhsk,nkhd->nshd", weights, given[1].reshape(2, 4, 2, 64)).reshape(2, 3, 128)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(weights, axis=3), 1, atol=1e-6)


@pytest.mark.parametrize("image", [[2, 0, 2, 2, 0], [1], [3, 3, 3, 3], [0, 1, 2, 3], [3, 2, 1, 0], []])
@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_rows_in_any_order_see_their_own_image(image, fixed_shapes):
    """Images without rows, all rows of one image, and no row at all."""
    rng = np.random.default_rng(1)
    _, *given = some_values(rng, 4)
    queries = rng.normal(size=(len(image), 128)).astype(np.float32)
    run = tf.function(attend_by_image, jit_compile=fixed_shapes, autograph=False)
    found = run(tf.constant(queries), as_seen(*given), tf.constant(image, tf.int32), fixed_shapes)
    assert found.shape == (len(image), 128)
    for row, query in enumerate(queries):
        own = as_seen(*(part[image[row]][None] for part in given))
        np.testing.assert_allclose(found[row], attend(tf.constant(query[None, None]), own)[0][0, 0], atol=1e-5)


def test_rows_of_an_image_copy_nothing_of_it():
    """Nothing that is gathered for the rows has the image's 49 parts."""
    rng = np.random.default_rng(1)
    parts = [tf.constant(rng.normal(size=(2, 1, 49, 64)), tf.float32) for _ in range(2)]
    seen = Values(*parts, tf.zeros([2, 1, 1, 49]))
    graph = (
        tf.function(attend_by_image, autograph=False)
        .get_concrete_function(tf.TensorSpec([None, 64]), seen, tf.TensorSpec([None], tf.int32))
        .graph
    )
    shapes = [out.shape for op in graph.get_operations() if "Gather" in op.type for out in op.outputs]
    assert shapes and all(shape.rank is not None and 49 not in shape[1:] for shape in shapes)


def test_attention_weights_are_those_of_the_equation(toy):
    captioner, _, features = toy
    of_captions = features[ROW.numpy()]
    found = captioner.attention_weights(tf.constant(of_captions), WORDS).numpy()
    expected = plain.attention_weights(captioner, of_captions, WORDS)
    said, there = WORDS.numpy() != PAD, of_captions.any(axis=2)
    for of_caption, weights, words, parts in zip(found, expected, said, there, strict=True):
        np.testing.assert_allclose(of_caption[words][:, parts], weights[words], atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=2), said, atol=1e-6)
    assert not found[0, :, 3].any() and not found[1][~said[1]].any()
    assert not captioner.attention_weights(tf.zeros_like(of_captions), WORDS).numpy().any()


def test_attention_weights_with_the_values_are_what_predicts_a_word():
    captioner, _, features = make_toy("attention")
    of_captions, packing = tf.constant(features[ROW.numpy()]), pack(WORDS)
    values = captioner.value((of_captions - captioner.feature_mean) / captioner.feature_deviation)
    context = captioner.attention_weights(of_captions, WORDS) @ values
    found = captioner.hidden(of_captions, WORDS, packing)
    captioner.value.kernel.assign(tf.zeros_like(captioner.value.kernel))
    captioner.value.bias.assign(tf.zeros_like(captioner.value.bias))
    read = captioner.hidden(of_captions, WORDS, packing)
    np.testing.assert_allclose(found, read + packing.of(context), atol=1e-5)


def test_a_captioner_without_parts_has_no_attention_weights():
    captioner, _, features = make_toy("lstm")
    with pytest.raises(NotImplementedError):
        captioner.attention_weights(tf.constant(features), WORDS[:2])


def test_positions_of_tokens():
    found = positions(tf.constant([0, 3]), 4).numpy()
    np.testing.assert_allclose(found[0], [0, 0, 1, 1])
    np.testing.assert_allclose(found[1], [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], atol=1e-6)
