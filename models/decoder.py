"""Which captions a trained captioner says of a picture: the one choice that evaluation and export share."""

import dataclasses
import json
from typing import NamedTuple

import tensorflow as tf

from spidercap.models.beam import beam_search
from spidercap.models.captioner import Captioner
from spidercap.models.decoding import greedy

GREEDY = "greedy"
DECODERS = (GREEDY, "beam")


class Captions(NamedTuple):
    """The best captions of each picture, best first."""

    words: tf.Tensor  # int32 [N, n_best, T]
    log_prob: tf.Tensor  # float32 [N, n_best]; -inf where there is no such caption


@dataclasses.dataclass(frozen=True)
class Decoder:
    """How captions are searched for; all but `decode` is for beam search, and explained there."""

    decode: str = GREEDY
    beam_width: int = 1
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    bad_endings: tuple[int, ...] = ()
    n_best: int = 1

    def captions(self, captioner: Captioner, features: tf.Tensor, max_length: int) -> Captions:
        """Returns `n_best` captions for each of the features `[N, F]`."""
        step, state = captioner.stepper(), captioner.start(features)
        if self.decode == GREEDY:
            words, log_prob = greedy(step, state, max_length, captioner.jit)
            return Captions(words[:, None], log_prob[:, None])
        beams = beam_search(
            step,
            state,
            max_length,
            width=self.beam_width,
            length_penalty=self.length_penalty,
            no_repeat_ngram=self.no_repeat_ngram,
            bad_endings=self.bad_endings,
            n_best=self.n_best,
            jit=captioner.jit,
        )
        return Captions(beams.words[:, : self.n_best], beams.log_prob[:, : self.n_best])

    def to_json(self) -> str:
        """Returns the settings as a line; two decoders are the same if these are."""
        return json.dumps(dataclasses.asdict(self)) + "\n"
