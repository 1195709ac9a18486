"""Several captioners that decode as one: the mean of their probabilities at every step.

For decoders a model is a step function and an initial state, which may be any nest (decoding.py). So an ensemble holds
the states of its members side by side, and every decoder works with it.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from spidercap.models.captioner import Captioner
from spidercap.models.decoding import State, Step


class Ensemble:
    """Captioners of one vocabulary; their networks, sizes and features may differ.

    Shapes: B images, N captions, M members, V' logits of a member (captioner.py).
    """

    def __init__(self, members: Sequence[Captioner]):
        """Takes one or more captioners whose token ids mean the same words.

        Raises:
          ValueError: there are none, or they have vocabularies of different sizes.
        """
        sizes = {member.words.units for member in members}
        if len(sizes) != 1:
            raise ValueError(f"an ensemble needs captioners of one vocabulary; theirs have {sorted(sizes)} tokens")
        self.members = tuple(members)
        self.jit = all(member.jit for member in members)

    def encoded(self, features: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """Returns what each member's network reads, of what is stored for it, as Captioner.encoded does."""
        return tuple(member.encoded(of) for member, of in zip(self.members, features, strict=True))

    def begin(self, features: Sequence[tf.Tensor], copies: int = 1) -> tuple[Step, State]:
        """Returns what decodes captions of images, as Captioner.begin does.

        The logits of the step are log(1 / M sum_m softmax(logits of member m)), so their softmax is the mean of the
        members' probabilities. Where those of one member are non-finite, so is their mean.

        Args:
          features: those of each member, in the order of the members: `[B, F]` or `[B, P, F]`.
          copies: rows of the state for each image, one after the other; N = B * copies at first.
        """
        begun = [member.begin(of, copies) for member, of in zip(self.members, features, strict=True)]
        steps = [step for step, _ in begun]

        def step(states: State, tokens: tf.Tensor) -> tuple[State, tf.Tensor]:
            after = [step(state, tokens) for step, state in zip(steps, states, strict=True)]
            return tuple(state for state, _ in after), mean_logits([logits for _, logits in after])

        return step, tuple(state for _, state in begun)


def mean_logits(logits: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the logarithm of the mean of softmaxes of logits `[N, V']`, one tensor per member; `[N, V']`."""
    log_probs = tf.stack([tf.nn.log_softmax(of_member) for of_member in logits])
    return tf.reduce_logsumexp(log_probs, axis=0) - math.log(len(logits))
