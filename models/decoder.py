"""How captions are decoded from a trained captioner, the same in evaluation and in exported models."""

import dataclasses
import json
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.beam import beam_search
from spidercap.models.captioner import Captioner
from spidercap.models.decoding import State, Step, greedy

GREEDY = "greedy"


class Captions(NamedTuple):
    """The best captions of each image, best first."""

    tokens: tf.Tensor  # int32 [N, n_best, T]
    log_prob: tf.Tensor  # float32 [N, n_best]; -inf where there is no such caption


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Settings of decoding; all but `decode`, a key of DECODERS, are those of beam search and explained there.

    Raises:
      ValueError: an unknown decoder, a number out of range, more captions than the decoder finds.
    """

    decode: str = GREEDY
    beam_width: int = 1
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    bad_endings: tuple[int, ...] = ()
    n_best: int = 1

    def __post_init__(self):
        if self.decode not in DECODERS:
            raise ValueError(f"decode={self.decode!r} is unknown; allowed: {', '.join(DECODERS)}")
        if self.beam_width < 1:
            raise ValueError(f"beam_width={self.beam_width} must be at least 1")
        if not self.length_penalty >= 0:
            raise ValueError(f"length_penalty={self.length_penalty} must be at least 0")
        if self.no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram={self.no_repeat_ngram} must be at least 0 (0: n-grams may repeat)")
        found = 1 if self.decode == GREEDY else self.beam_width
        if not 1 <= self.n_best <= found:
            raise ValueError(
                f"n_best={self.n_best} must be in 1..{found}, the captions found by decode={self.decode!r} "
                f"with beam_width={self.beam_width}"
            )

    def captions(self, captioner: Captioner, features: tf.Tensor, max_length: int) -> Captions:
        """Returns `n_best` captions for each of the features `[N, F]`."""
        step, state = captioner.begin(features)
        return DECODERS[self.decode](step, state, max_length, self, captioner.jit)

    def to_json(self) -> str:
        """Returns the settings as one line; equal decoders have equal lines."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def _greedy(step: Step, state: State, max_length: int, settings: Decoder, jit: bool) -> Captions:
    del settings
    tokens, log_prob = greedy(step, state, max_length, jit)
    return Captions(tokens[:, None], log_prob[:, None])


def _beam(step: Step, state: State, max_length: int, settings: Decoder, jit: bool) -> Captions:
    beams = beam_search(
        step,
        state,
        max_length,
        width=settings.beam_width,
        length_penalty=settings.length_penalty,
        no_repeat_ngram=settings.no_repeat_ngram,
        bad_endings=settings.bad_endings,
        n_best=settings.n_best,
        jit=jit,
    )
    return Captions(beams.tokens[:, : settings.n_best], beams.log_prob[:, : settings.n_best])


# name -> (step, state, max_length, settings, jit) -> captions; the names are those of the flag --decode
DECODERS: dict[str, Callable[[Step, State, int, Decoder, bool], Captions]] = {GREEDY: _greedy, "beam": _beam}
