"""How captions are decoded from a trained captioner, the same in evaluation and in exported models."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from spidercap.models import sampling
from spidercap.models.beam import beam_search
from spidercap.models.captioner import Captioner
from spidercap.models.categorical import draw
from spidercap.models.decoding import Choice, State, Step, batch_size, greedy
from spidercap.models.ensemble import Ensemble

GREEDY, BEAM, DIVERSE_BEAM = "greedy", "beam", "diverse_beam"
MOST_SAMPLES = 100  # of an image


class Captions(NamedTuple):
    """The best captions of each image, best first."""

    tokens: tf.Tensor  # int32 [N, n_best, T]
    log_prob: tf.Tensor  # float32 [N, n_best]; -inf where there is no such caption


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Settings of decoding: `decode`, a key of DECODERS; those of beam search; from `temperature` those of sampling.

    The last two are those of diverse beam search: the number of groups, a divisor of the width, and the penalty.

    All are explained in beam.py and sampling.py.

    Raises:
      ValueError: an unknown decoder, a number out of range, more captions than the decoder finds.
    """

    decode: str = GREEDY
    beam_width: int = 1
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    bad_endings: tuple[int, ...] = ()
    n_best: int = 1
    temperature: float = 1.0
    top_k: int = 10
    top_p: float = 0.9
    beam_groups: int = 1
    diversity: float = 0.0

    def __post_init__(self):
        if self.decode not in DECODERS:
            raise ValueError(f"decode={self.decode!r} is unknown; allowed: {', '.join(DECODERS)}")
        if self.beam_width < 1:
            raise ValueError(f"beam_width={self.beam_width} must be at least 1")
        if not self.length_penalty >= 0:
            raise ValueError(f"length_penalty={self.length_penalty} must be at least 0")
        if self.no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram={self.no_repeat_ngram} must be at least 0 (0: n-grams may repeat)")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be above 0 and finite")
        if self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0, and at most 1 (1: all words are kept)")
        if self.beam_groups < 1 or self.beam_width % self.beam_groups:
            raise ValueError(f"beam_groups={self.beam_groups} must divide beam_width={self.beam_width}")
        if not 0 <= self.diversity < float("inf"):
            raise ValueError(f"diversity={self.diversity} must be at least 0 and finite")
        found = MOST_SAMPLES if self.draws else 1 if self.decode == GREEDY else self.beam_width
        if not 1 <= self.n_best <= found:
            raise ValueError(
                f"n_best={self.n_best} must be in 1..{found}, the captions found by decode={self.decode!r} "
                f"with beam_width={self.beam_width}"
            )

    @property
    def draws(self) -> bool:
        """Whether captions are drawn by random numbers."""
        return self.decode in CHOICES

    def captions(
        self,
        captioner: Captioner | Ensemble,
        features: tf.Tensor | Sequence[tf.Tensor],
        max_length: int,
        uniform: tf.Tensor | None = None,
    ) -> Captions:
        """Returns `n_best` captions for each of the features `[N, F]`.

        Args:
          captioner: the model, or several.
          features: `[N, F]` or `[N, P, F]`, of several models those of each.
          max_length: T.
          uniform: `[N, n_best, T, 2]`, what captions are drawn by (sampling.py); by default they are drawn anew each
            time. Decoders that draw nothing do not read it.
        """
        step, state = captioner.begin(features)
        if self.draws and uniform is None:
            uniform = sampling.uniforms(sampling.fresh_seed(), batch_size(state)[0], self.n_best, max_length)
        return DECODERS[self.decode](step, state, max_length, self, captioner.jit, uniform)

    def to_json(self) -> str:
        """Returns the settings as one line; equal decoders have equal lines.

        Only decoders that draw have the settings of sampling, and only diverse beam search has its own, as the line of
        an exported model must fit for ever.
        """
        values = dataclasses.asdict(self)
        unread = () if self.draws else ("temperature", "top_k", "top_p")
        unread += () if self.decode == DIVERSE_BEAM else ("beam_groups", "diversity")
        return json.dumps({name: value for name, value in values.items() if name not in unread}) + "\n"


def _greedy(
    step: Step, state: State, max_length: int, settings: Decoder, jit: bool, uniform: tf.Tensor | None
) -> Captions:
    del settings, uniform
    tokens, log_prob = greedy(step, state, max_length, jit)
    return Captions(tokens[:, None], log_prob[:, None])


def _beam(
    step: Step, state: State, max_length: int, settings: Decoder, jit: bool, uniform: tf.Tensor | None
) -> Captions:
    del uniform
    beams = beam_search(
        step,
        state,
        max_length,
        width=settings.beam_width,
        length_penalty=settings.length_penalty,
        no_repeat_ngram=settings.no_repeat_ngram,
        bad_endings=settings.bad_endings,
        n_best=settings.n_best,
        groups=settings.beam_groups,
        diversity=settings.diversity,
        jit=jit,
    )
    return Captions(beams.tokens[:, : settings.n_best], beams.log_prob[:, : settings.n_best])


def _sampled(
    step: Step, state: State, max_length: int, settings: Decoder, jit: bool, uniform: tf.Tensor | None
) -> Captions:
    choose = CHOICES[settings.decode](settings)
    return Captions(*sampling.sampled(step, state, max_length, uniform, choose, settings.temperature, jit))


# name -> how a decoder draws the next word, by its settings
CHOICES: dict[str, Callable[[Decoder], Choice]] = {
    "sample": lambda settings: draw,
    "top_k": lambda settings: functools.partial(sampling.draw_top_k, k=settings.top_k),
    "nucleus": lambda settings: functools.partial(sampling.draw_nucleus, p=settings.top_p),
}
# name -> (step, state, max_length, settings, jit, uniform) -> captions; the names are those of the flag --decode
DECODERS: dict[str, Callable[[Step, State, int, Decoder, bool, tf.Tensor | None], Captions]] = {
    GREEDY: _greedy,
    BEAM: _beam,
    DIVERSE_BEAM: _beam,
    **dict.fromkeys(CHOICES, _sampled),
}
