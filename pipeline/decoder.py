"""The decoder that the settings ask for."""

from collections.abc import Sequence

from models.decoders import GREEDY, Decoder
from pipeline.config import Config

# Words that a caption is cut off after rather than closed by: articles, prepositions, forms of to be, conjunctions.
BAD_ENDINGS = (
    *("a", "an", "the", "this", "that", "its", "his", "her", "their", "some"),
    *("in", "on", "at", "of", "for", "with", "by", "to", "from", "into", "onto", "upon", "near", "next", "over"),
    *("under", "behind", "before", "after", "above", "below", "beside", "between", "through", "while", "as"),
    *("is", "are", "am", "was", "were", "be", "being", "has", "have"),
    *("and", "or", "but", "very"),
)


def decoder_of(config: Config, words: Sequence[str]) -> Decoder:
    """Returns the decoder of the settings; `words` is the vocabulary, in which bad endings are looked up."""
    if config.decode == GREEDY:
        return Decoder()
    return Decoder(
        decode=config.decode,
        beam_width=config.beam_width,
        length_penalty=float(config.length_penalty),
        no_repeat_ngram=config.no_repeat_ngram,
        bad_endings=tuple(i for i, word in enumerate(words) if word in BAD_ENDINGS) if config.no_bad_endings else (),
        n_best=config.n_best,
    )
