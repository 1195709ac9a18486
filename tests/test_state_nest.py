"""The decoder's state is any nest of tensors, and every decoder keeps each caption's rows of it together.

Three toy cells with states of different structure, rank and dtype. The next token's logits depend on the image and on
all tokens read, and allow three of seven tokens; a state that moved to another caption's row generates tokens that
its own caption does not allow. The oracles compute the same logits in plain Python from the tokens read so far.
"""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models import blocks, decoding
from spidercap.models.beam import beam_search
from spidercap.models.categorical import draw, likeliest
from spidercap.models.rollouts import roll_out
from spidercap.models.special_tokens import END, PAD, START
from tests.test_beam import plain_search

T, V, IMAGES, CODES = 7, 10, 16, 97


def logits_table():
    """Logits `[CODES, V]`: for each code of a state three tokens, the end among them in a third of the codes."""
    rng = np.random.default_rng(11)
    table = np.full([CODES, V], -1e9, np.float32)
    for code, row in enumerate(table):
        tokens = rng.choice(np.arange(4, V), 3, replace=False)
        tokens[0] = END if code % 3 == 0 else tokens[0]
        row[tokens] = rng.normal(size=3)
    return table


LOGITS = logits_table()


class DictCell:
    """{"h": float32 [n, 2], "history": int32 [n, 3]}: two counters and the last three tokens."""

    def initial_state(self, images):
        h = tf.cast(tf.stack([images, 2 * images], axis=1), tf.float32)
        return {"h": h, "history": tf.zeros([tf.shape(images)[0], 3], tf.int32)}

    def step(self, state, tokens):
        history = tf.concat([state["history"][:, 1:], tokens[:, None]], axis=1)
        h = tf.math.floormod(3 * state["h"] + tf.cast(tokens, tf.float32)[:, None] + [1.0, 2.0], 31)
        code = tf.cast(tf.reduce_sum(h, axis=1), tf.int32) + tf.reduce_sum(history * [1, 5, 7], axis=1)
        return {"history": history, "h": h}, tf.gather(LOGITS, code % CODES)

    def code(self, image, read):
        h = [image, 2 * image]
        for token in read:
            h = [(3 * h[0] + token + 1) % 31, (3 * h[1] + token + 2) % 31]
        oldest, middle, last = [0, 0, *read][-3:] if len(read) < 3 else read[-3:]
        return (sum(h) + oldest + 5 * middle + 7 * last) % CODES


class TensorCell:
    """One int32 tensor [n]."""

    def initial_state(self, images):
        return 7 * images

    def step(self, state, tokens):
        state = (5 * state + 3 * tokens + 1) % CODES
        return state, tf.gather(LOGITS, state)

    def code(self, image, read):
        code = 7 * image
        for token in read:
            code = (5 * code + 3 * token + 1) % CODES
        return code


class Stack(NamedTuple):
    levels: tf.Tensor  # float32 [n, 2, 2]
    rest: tuple[tf.Tensor, dict[str, tf.Tensor]]  # int32 [n, 1], {"odd": bool [n]}


class NestedCell:
    """A NamedTuple that holds a tuple that holds a dict; leaves of rank 3, 2 and 1, of three dtypes."""

    def initial_state(self, images):
        levels = tf.cast(images, tf.float32)[:, None, None] + [[0.0, 1.0], [2.0, 3.0]]
        return Stack(levels, (images[:, None], {"odd": images % 2 == 1}))

    def step(self, state, tokens):
        total, flags = state.rest
        odd = tf.math.logical_xor(flags["odd"], tokens % 2 == 1)
        new = tf.cast(tokens, tf.float32)[:, None] + state.levels[:, 0]
        levels = tf.stack([state.levels[:, 1], tf.math.floormod(new, 13)], axis=1)
        total = (total + tokens[:, None]) % 41
        code = tf.cast(tf.reduce_sum(levels * [[1.0, 2.0], [3.0, 5.0]], axis=[1, 2]), tf.int32)
        code += 7 * total[:, 0] + 11 * tf.cast(odd, tf.int32)
        return Stack(levels, (total, {"odd": odd})), tf.gather(LOGITS, code % CODES)

    def code(self, image, read):
        upper, lower = [image, image + 1], [image + 2, image + 3]
        total, odd = image, image % 2
        for token in read:
            upper, lower = lower, [(value + token) % 13 for value in upper]
            total, odd = (total + token) % 41, (odd + token) % 2
        levels = upper[0] + 2 * upper[1] + 3 * lower[0] + 5 * lower[1]
        return (levels + 7 * total + 11 * odd) % CODES


CASES = [
    *((DictCell, "eager"), (DictCell, "compiled")),
    *((TensorCell, "compiled"), (TensorCell, "blocks")),
    *((NestedCell, "eager"), (NestedCell, "blocks"), (NestedCell, "xla")),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request, monkeypatch):
    """(a cell, a function that runs run(images, jit) for all images): eagerly, compiled for any batch, or in blocks."""
    kind, way = request.param
    if way in ("blocks", "xla"):
        monkeypatch.setattr(blocks, "ROWS", 8)
        monkeypatch.setattr(blocks, "FEWEST", 8)
    images, jit = tf.range(IMAGES), way == "xla"
    if way == "eager":
        return kind(), lambda run: run(images, jit)
    signature = [tf.TensorSpec([None], tf.int32)]
    return kind(), lambda run: tf.function(lambda x: run(x, jit), input_signature=signature, autograph=False)(images)


def caption_of(row):
    return [int(token) for token in row if token != PAD]


def allowed(cell, image, tokens):
    """The tokens that may follow `tokens` in a caption of an image."""
    row = LOGITS[cell.code(image, [START, *tokens])]
    return {token for token in range(V) if row[token] > -1e8}


def likeliest_after(cell, image, tokens):
    return int(np.argmax(LOGITS[cell.code(image, [START, *tokens])]))


def greedily(cell, image, tokens=()):
    """The caption that begins with `tokens` and goes on with the likeliest token each time."""
    caption = list(tokens)
    while len(caption) < T and END not in caption:
        caption.append(likeliest_after(cell, image, caption))
    return caption


def is_possible(cell, image, caption):
    """Whether the cell allows each token, and the caption stops where it has to."""
    tokens = all(token in allowed(cell, image, caption[:t]) for t, token in enumerate(caption))
    return tokens and END not in caption[:-1] and (len(caption) == T or caption[-1] == END)


def test_greedy(case):
    cell, run_all = case
    tokens, log_prob = run_all(lambda x, jit: decoding.greedy(cell.step, cell.initial_state(x), T, jit))
    log_pi = tf.nn.log_softmax(LOGITS).numpy()
    for image in range(IMAGES):
        caption = greedily(cell, image)
        assert caption_of(tokens.numpy()[image]) == caption
        terms = [log_pi[cell.code(image, [START, *caption[:t]]), token] for t, token in enumerate(caption)]
        np.testing.assert_allclose(log_prob[image], sum(terms), atol=1e-5)
    assert len(set(decoding.lengths(tokens).numpy())) > 2  # captions end at different times, so rows move


@pytest.mark.parametrize("width", [1, 4])
def test_beam_search(case, width):
    cell, run_all = case
    beams = run_all(lambda x, jit: beam_search(cell.step, cell.initial_state(x), T, width=width, n_best=width, jit=jit))

    def plain_step(read, token):
        read = [*read, int(token[0])]
        return read, tf.constant(LOGITS[cell.code(image, read)][None])

    for image in range(IMAGES):
        expected = plain_search(plain_step, [], T, width)
        assert [caption_of(row) for row in beams.tokens.numpy()[image]] == [row for _, _, row in expected]
        np.testing.assert_allclose(beams.log_prob[image], [log_prob for _, log_prob, _ in expected], atol=1e-4)


def test_sample(case):
    cell, run_all = case
    references = tf.constant([[4, 5, END, *[PAD] * (T - 3)]] * IMAGES)

    def run(images, jit):
        given = decoding.Given(tf.gather(references, images), tf.constant(2))
        state, seed = cell.initial_state(images), tf.constant([3, 4])
        return [decoding.sample(cell.step, state, T, seed, g, jit) for g in (None, given)]

    sampled, begun = (tokens.numpy() for tokens in run_all(run))
    assert all(is_possible(cell, image, caption_of(sampled[image])) for image in range(IMAGES))
    for image in range(IMAGES):
        caption = caption_of(begun[image])
        assert caption[:2] == [4, 5]
        assert all(caption[t] in allowed(cell, image, caption[:t]) for t in range(2, len(caption)))
    assert len(np.unique(sampled)) == V - 2  # padding, and every token that a cell can generate


@pytest.mark.parametrize("choose", [draw, likeliest])
def test_forks_and_rollouts(case, choose):
    cell, run_all = case

    def run(images, jit):
        state = cell.initial_state(images)
        tokens, forks = decoding.sample_with_forks(cell.step, state, T, tf.constant([3, 4]), 2, choose, jit)
        return tokens, forks, roll_out(cell.step, tokens, forks, tf.constant([5, 6]), choose, jit)

    tokens, forks, rollouts = run_all(run)
    captions = [caption_of(row) for row in tokens.numpy()]
    assert all(is_possible(cell, image, caption) for image, caption in enumerate(captions))
    tf.nest.assert_same_structure(forks.state, cell.initial_state(tf.range(1)))
    expected, step = [], tf.function(cell.step)
    for row, (image, last) in enumerate(forks.prefix.numpy()):
        prefix = captions[image][: last + 1]
        expected += [(image, prefix)] * 2
        options = allowed(cell, image, prefix) if choose is draw else {likeliest_after(cell, image, prefix)}
        assert set(forks.tokens.numpy()[row]) <= options
        alone = cell.initial_state(tf.constant([image]))
        for token in (START, *prefix):
            alone, _ = step(alone, tf.constant([token]))
        for found, leaf in zip(*map(tf.nest.flatten, (forks.state, alone)), strict=True):
            assert found.dtype == leaf.dtype and found.shape[1:] == leaf.shape[1:]
            np.testing.assert_array_equal(found[row], leaf[0])
    assert len(forks.prefix) == sum(len(caption) - 1 for caption in captions) > 2 * IMAGES
    for (image, prefix), row in zip(expected, rollouts.tokens.numpy(), strict=True):
        caption = caption_of(row)
        assert caption[: len(prefix)] == prefix
        assert is_possible(cell, image, caption) if choose is draw else caption == greedily(cell, image, prefix)


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_read_own_words(case, probability):
    cell, run_all = case
    rng = np.random.default_rng(0)
    references = np.where(np.arange(T) < rng.integers(1, T + 1, [IMAGES, 1]), rng.integers(4, V, [IMAGES, T]), PAD)
    references = references.astype(np.int32)

    def run(images, jit):
        words, seed = tf.gather(references, images), tf.constant([1, 2])
        return decoding.read_own_words(
            cell.step, cell.initial_state(images), words, tf.constant(probability), seed, jit
        )

    read, own = run_all(run).numpy(), 0
    np.testing.assert_array_equal(read != PAD, references != PAD)
    for image, (row, reference) in enumerate(zip(read, references, strict=True)):
        for t in np.flatnonzero(reference):
            own += row[t] != reference[t]
            options = allowed(cell, image, [int(token) for token in row[:t]])
            assert row[t] in options if probability == 1 else row[t] in options | {reference[t]}
    assert own > IMAGES
