"""The captioners that there are, by the values of the flag --decoder."""

from spidercap.models.attention import AttentionCaptioner
from spidercap.models.captioner import Captioner
from spidercap.models.lstm_captioner import LstmCaptioner
from spidercap.models.transformer import TransformerCaptioner

CAPTIONERS: dict[str, type[Captioner]] = {
    "lstm": LstmCaptioner,
    "attention": AttentionCaptioner,
    "transformer": TransformerCaptioner,
}
