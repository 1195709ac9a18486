"""What is logged of sampled captions, held against plain Python that reads them word by word."""

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END, PAD
from spidercap.pipeline.training.moments import moments
from spidercap.pipeline.training.sample_logs import distinct_captions, repeated_trigrams, sample_logs, sample_statistics
from tests.oracles import padded


def random_captions(seed, length):
    """40 captions of 1 to `length` words, the end counted, which many lack; most come more than once."""
    rng = np.random.default_rng(seed)
    captions = []
    for _ in range(20):
        words = [int(w) for w in rng.integers(4, 6, length)]
        end = rng.integers(0, length + length // 2)
        captions.append([*words[:end], END] if end < length else words)
    return [captions[i] for i in rng.integers(0, 20, 40)]


def slow_repeated(captions):
    total = repeated = 0
    for caption in captions:
        grams = [tuple(caption[i : i + 3]) for i in range(len(caption) - 2)]
        total += len(grams)
        repeated += sum(gram in grams[:i] for i, gram in enumerate(grams))
    return repeated / total if total else 0.0


def slow_logs(captions, rewards):
    mean = sum(rewards) / len(rewards)
    return {
        "reward": mean,
        "best_reward": max(rewards),
        "reward_std": (sum((r - mean) ** 2 for r in rewards) / len(rewards)) ** 0.5,
        "length": sum(map(len, captions)) / len(captions),
        "unfinished": sum(caption[-1] != END for caption in captions) / len(captions),
        "repeated_trigrams": slow_repeated(captions),
        "distinct": len(set(map(tuple, captions))) / len(captions),
    }


def logs_of(tokens, rewards, scores):
    """Of the only replica."""
    return sample_logs(sample_statistics(tokens, rewards, scores), tokens)


def share_repeated(captions, length):
    return float(moments(repeated_trigrams(tf.constant(padded(captions, length)))).mean)


def plain(logs):
    """Without those of metrics."""
    return {name: float(value) for name, value in logs._asdict().items() if name != "metrics"}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("length", [2, 3, 8])
def test_logs_are_those_of_the_slow_way(length, compiled):
    logs = tf.function(logs_of) if compiled else logs_of
    for seed in range(5):
        captions = random_captions(seed, length)
        rewards = np.random.default_rng(seed).uniform(0, 3, len(captions)).astype(np.float32)
        got = plain(logs(tf.constant(padded(captions, length)), tf.constant(rewards), {}))
        assert got == pytest.approx(slow_logs(captions, rewards.tolist()), abs=1e-6)


def test_random_captions_have_what_the_oracles_are_to_see():
    """Else the comparison above would be one of zeros and ones."""
    many = [random_captions(seed, 8) for seed in range(5)]
    assert all(0.05 < slow_repeated(captions) < 0.95 for captions in many)
    assert all(0.1 < slow_logs(captions, [0.0])["distinct"] < 0.9 for captions in many)
    assert {len(caption) for captions in many for caption in captions} == set(range(1, 9))
    assert {caption[-1] == END for captions in many for caption in captions} == {True, False}


def test_trigrams_that_occur_earlier_are_counted():
    """Stars are those that occur earlier in the same caption; the end is a word.

    4 5 4 5 4 2       454  545  454* 542            1 of 4
    4 4 4 4 4 2       444  444* 444* 442            2 of 4
    4 5 2 0 0 0       452                           0 of 1   (in another caption 452 would not count)
    5 2 0 0 0 0       none
    4 5 4 4 5 4       454  544  445  454*           1 of 4
    """
    captions = [[4, 5, 4, 5, 4, END], [4, 4, 4, 4, 4, END], [4, 5, END], [5, END], [4, 5, 4, 4, 5, 4]]
    shares = [share_repeated([caption], 6) for caption in captions]
    assert shares == pytest.approx([1 / 4, 2 / 4, 0, 0, 1 / 4])
    # Of all trigrams of the batch, not a mean over captions: long ones weigh more.
    assert share_repeated(captions, 6) == pytest.approx(4 / 13)


def test_captions_below_three_words_have_no_trigrams():
    for length in (2, 3, 8):
        assert share_repeated([[END], [4, END], [4, 4]], length) == 0


@pytest.mark.parametrize(
    ("captions", "share"),
    [
        ([[4, 5, END]] * 4, 1 / 4),
        ([[4, 5, END], [5, 4, END], [4, END], [5, 4, 6]], 1),  # order and end make a difference
        ([[4, 5, END], [4, 5], [4, 5, END], [4, 5]], 2 / 4),
        ([[4, 5, END]], 1),
    ],
    ids=["all equal", "none equal", "pairs", "one"],
)
def test_distinct_captions(captions, share):
    assert float(distinct_captions(tf.constant(padded(captions, 3)))) == share


def test_many_captions_that_differ_little_stay_distinct():
    """All 250,000 captions of 2 words out of 500: weighted sums with small weights would merge many of them."""
    every = np.stack(np.meshgrid(np.arange(4, 504), np.arange(4, 504)), axis=-1).reshape(-1, 2).astype(np.int32)
    assert float(distinct_captions(tf.constant(every))) == 1


@pytest.mark.parametrize("more", [1, 5])
def test_padding_changes_nothing(more):
    captions = random_captions(7, 8)
    rewards = tf.constant(np.random.default_rng(7).uniform(0, 1, len(captions)).astype(np.float32))
    short, long = (padded(captions, length) for length in (8, 8 + more))
    assert (long[:, 8:] == PAD).all()
    assert plain(logs_of(tf.constant(long), rewards, {})) == plain(logs_of(tf.constant(short), rewards, {}))


def test_metrics_of_the_reward_are_logged_by_term_and_of_samples_alone():
    """Two samples, and three other captions of theirs that were scored with them."""
    scores = {"cider": tf.constant([1.0, 2.0, 50.0, 50.0, 50.0]), "bleu4": tf.constant([0.25, 0.5, 9.0, 9.0, 9.0])}
    logs = logs_of(tf.constant([[4, END], [5, 4]]), tf.constant([3.0, 5.0]), scores)
    assert {name: float(value) for name, value in logs.metrics.items()} == {"cider": 1.5, "bleu4": 0.375}
    assert (logs.reward, logs.best_reward, logs.reward_std) == (4, 5, 1)
