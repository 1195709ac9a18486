"""How many training captions are longer than a caption may be."""

import sys

import numpy as np

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.data_settings import MOST_TOKENS

FEW, NEARLY_ALL = 0.01, 0.9  # shares of the captions: no warning below, an error above
HELD = 0.99  # share that the named --max_length would hold


def check_lengths(words: np.ndarray, max_length: int) -> None:
    """Reports on stderr how many training captions, of so many words `[C]`, are cut at `max_length` tokens.

    Raises:
      UserError: nearly all are cut, so that a model would hardly learn to end a caption.
    """
    lengths = np.sort(words) + 1  # with the end token
    cut = lengths[lengths > max_length]
    if not len(cut):
        return
    share = len(cut) / len(lengths)
    lost = (cut - 1 - max_length).sum() / (lengths - 1).sum()
    told = (
        f"{len(cut):,} of {len(lengths):,} training captions are longer than --max_length={max_length} "
        f"(the end token counts) and are cut there, {lost:.2%} of all words"
    )
    if share > NEARLY_ALL:
        raise UserError(f"{told}; the model would hardly learn to end a caption; {_remedy(lengths, cut)}")
    if share < FEW:
        print(f"data: {told}", file=sys.stderr)
    else:
        print(f"warning: {told}; {_remedy(lengths, cut)}", file=sys.stderr)


def _remedy(lengths: np.ndarray, cut: np.ndarray) -> str:
    """What to do, for sorted lengths of all captions and of those that are cut."""
    enough = max(lengths[int(np.ceil(HELD * len(lengths))) - 1], cut[0])
    raised = min(enough, MOST_TOKENS)
    held = (lengths <= raised).mean()
    if raised < cut[0]:
        return f"{MOST_TOKENS} is the most, so shorten those captions"
    return f"--max_length={raised} would hold {int(100 * held)}% of them"
