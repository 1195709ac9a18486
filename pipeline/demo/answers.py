"""What the page of `--mode=demo` shows for an image: captions of an exported model, scores, or why there are none."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from spidercap.models.decoder import GREEDY
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.served_captioner import captions_of
from spidercap.pipeline.metrics.registry import METRICS, terms_without_java
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.text_metrics import TextMetric
from spidercap.pipeline.text.coco_json import LONGEST
from spidercap.pipeline.text.tokenizer import tokenize

BEAM = "beam"
# CIDEr weighs n-grams by how few images they come with, so that it is 0 for the references of a single image.
SINGLE_TERMS = tuple(term for term in terms_without_java() if term != "cider")

# The function of a signature: image_bytes=string [N] -> outputs by name.
Signature = Callable[..., Mapping[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Found:
    """A caption of an image."""

    decoder: str
    rank: int  # among those of the decoder, from 1
    caption: str
    log_prob: float

    @property
    def probability(self) -> float:
        """The probability that the model gives to the whole caption."""
        return math.exp(self.log_prob)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is shown for an image; `refusal` is '' or why there are no captions."""

    found: tuple[Found, ...] = ()
    refusal: str = ""

    def of(self, decoder: str) -> list[Found]:
        """Returns the captions of a decoder, best first."""
        return [one for one in self.found if one.decoder == decoder]

    def summary(self) -> str:
        """Returns a line that compares greedy decoding with beam search."""
        greedy, beam = self.of(GREEDY), self.of(BEAM)
        if not greedy or not beam:
            return ""
        if greedy[0].caption == beam[0].caption:
            return "Greedy decoding and beam search find the same caption."
        times = math.exp(min(abs(beam[0].log_prob - greedy[0].log_prob), 700))
        better, worse = ("Beam search", "greedy decoding")
        if beam[0].log_prob < greedy[0].log_prob:  # with a length penalty, or blocked n-grams
            better, worse = ("Greedy decoding", "beam search")
        return f"{better} finds a caption {times:,.2g} times as probable as that of {worse}."


class Answerer:
    """Answers for images, by the signatures of an exported model."""

    def __init__(self, signatures: Mapping[str, Signature], text_metrics: Mapping[str, TextMetric]):
        """Takes `greedy` and `beam` of the signatures, and metrics on text by term, which are shown, too.

        Raises:
          UserError: the model has no such signatures.
        """
        missing = [name for name in (GREEDY, BEAM) if name not in signatures]
        if missing:
            raise UserError(
                f"the model has no signature {' and '.join(missing)}: it takes features, or an earlier version has "
                "exported it; export a model of images with --mode=export"
            )
        self._signatures = {name: signatures[name] for name in (GREEDY, BEAM)}
        self._text_metrics = dict(text_metrics)

    def answer(self, path: str) -> Answer:
        """Returns the captions of an image file, or why it is refused."""
        try:
            encoded = pathlib.Path(path).read_bytes()
        except OSError as error:
            return Answer(refusal=f"The file cannot be read ({error.strerror}).")
        found: list[Found] = []
        for name, signature in self._signatures.items():
            outputs = signature(image_bytes=tf.constant([encoded]))
            if error := outputs["error"].numpy()[0]:
                return Answer(refusal=f"The file {error.decode()}.")
            (captions,) = captions_of(outputs)
            found += [Found(name, rank, caption, log_prob) for rank, (caption, log_prob) in enumerate(captions, 1)]
        return Answer(tuple(found))

    def scores(self, answer: Answer, references: Sequence[str]) -> list[dict[str, float | None]]:
        """Returns the scores of each caption of an answer by column, against the same references.

        Raises:
          UserError: a reference has no words, or too many.
        """
        tokens = [" ".join(tokenize(reference)) for reference in references if len(reference) <= LONGEST]
        if len(tokens) < len(references):
            raise UserError(f"a reference has more than {LONGEST:,} characters; shorten it")
        if not all(tokens):
            raise UserError("a reference has no words; write one caption per line")
        captions = [one.caption for one in answer.found]
        terms = (*SINGLE_TERMS, *self._text_metrics)
        return list(score_captions([tokens] * len(captions), captions, terms, self._text_metrics).images)

    def columns(self) -> list[str]:
        """Returns the columns of the scores."""
        return [METRICS[term].column for term in (*SINGLE_TERMS, *self._text_metrics)]
