"""What an objective hands on: what it sampled, how it gives credit, and the pair of functions that do both.

Shapes: B images (mixer: captions), M samples an image, N = B * M samples, T steps, Q other captions, P states from
which words of samples were chosen, S words drawn from each of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.rollouts import Rollouts
from spidercap.models.row_random import Seed
from spidercap.pipeline.data.batches import Batch


class Likelihood(NamedTuple):
    """What mixer learns by likelihood in the same step."""

    mask: tf.Tensor  # bool [N, T]: tokens that were given, not sampled
    weight: tf.Tensor  # scalar in 0..1; the reward has the rest


class References(NamedTuple):
    """A reference caption of each image, learned by likelihood beside the samples."""

    tokens: tf.Tensor  # [B, T]
    weight: tf.Tensor  # scalar in 0..1; the reward has the rest


class Source(NamedTuple):
    """What features were made of."""

    stored: tf.Tensor  # what `Captioner.encoded` takes, of B images
    seed: Seed  # of feature dropout


class WordsDrawn(NamedTuple):
    """Words drawn from each state beside the caption's own next word (vine)."""

    prefix: tf.Tensor  # [P, 2]: (sample, index of the last token before the state, -1 at the start)
    tokens: tf.Tensor  # [P, S]
    log_prob: tf.Tensor  # [P], of the caption's own


class Experience(NamedTuple):
    """What was sampled from the policy, before anything is scored."""

    features: tf.Tensor  # [B, F] or [B, P, F]
    image_index: tf.Tensor  # [N]
    tokens: tf.Tensor  # [N, T]
    rollouts: Rollouts  # other captions to be scored: tokens [Q, T], prefix [Q, 2]
    leaders: tf.Tensor | None = None  # [N, T], where samples share rollouts
    likelihood: Likelihood | None = None
    references: References | None = None
    drawn: WordsDrawn | None = None
    feature_row: tf.Tensor | None = None  # int32 [N], row of `features` of each sample; None: its own, and N = B
    source: Source | None = None  # of `features`, where layers of the encoder are tuned


class Siblings(NamedTuple):
    """Words that could follow in the same state, each with its weight in the loss; those of a state sum to 0."""

    state: tf.Tensor  # int32 [W, 2]: (sample, step at which the word was chosen)
    token: tf.Tensor  # int32 [W]
    advantage: tf.Tensor  # [W]


class Credit(NamedTuple):
    """The return of each token of a sample, and the return that was expected before it was chosen."""

    values: tf.Tensor  # Q, [N, T]
    baseline: tf.Tensor | None  # b, [N, T]; None: a learned baseline gives it
    siblings: Siblings | None = None  # the words that learn, in place of the samples' own


class Objective(NamedTuple):
    """The two functions."""

    # (batch, seed of its rows, level: scalar, what the stage anneals) -> experience
    sample: Callable[[Batch, Seed, tf.Tensor], Experience]
    # (experience, rewards of its samples [N], of its other captions [Q]) -> credit
    credit: Callable[[Experience, tf.Tensor, tf.Tensor], Credit]
