"""The captioners that there are, by the values of the flag --decoder."""

from spidercap.models.attention import AttentionCaptioner
from spidercap.models.captioner import Captioner

CAPTIONERS: dict[str, type[Captioner]] = {"lstm": Captioner, "attention": AttentionCaptioner}
