"""Settings of decoding, and which of them each decoder reads."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.fields import Group, setting

_BEAM = ("beam_width", "length_penalty", "no_repeat_ngram", "no_bad_endings", "n_best")
_SAMPLING = ("decode_temperature", "decode_seed", "n_best")
# decoder -> settings that it reads; a decoder of models/decoder.py without a row reads all
READ_BY: dict[str, Collection[str]] = {
    "greedy": (),
    "beam": _BEAM,
    "diverse_beam": (*_BEAM, "beam_groups", "diversity"),
    "sample": _SAMPLING,
    "top_k": ("top_k", *_SAMPLING),
    "nucleus": ("top_p", *_SAMPLING),
}
# Told where they are not read, not refused: a width alone asks a decoder for nothing else.
ONLY_TOLD = ("beam_width",)


@dataclasses.dataclass(frozen=True)
class DecodingSettings(Group):
    """How captions are decoded."""

    decode: str = setting(
        "greedy",
        "Decoder: greedy; beam search; beam search in groups that avoid each other's words (diverse_beam); or captions "
        "drawn among all words (sample), the k likeliest (top_k) or those that together have probability p (nucleus).",
        fixed=False,
        added=True,
    )
    beam_width: int = setting(
        5,
        "beam, diverse_beam: number of hypotheses (W); 1 is greedy decoding.",
        fixed=False,
        added=True,
        most=100,
    )
    beam_groups: int = setting(
        0,
        "diverse_beam: number of groups (G) of W / G hypotheses each; 0: W groups of one hypothesis.",
        fixed=False,
        added=True,
        least=0,
        most=100,
    )
    diversity: float = setting(
        0.5,
        "diverse_beam: a group subtracts it from the log-probability of a word for each hypothesis of an earlier group "
        "that took the word at the same place (lambda).",
        fixed=False,
        added=True,
        least=0,
        most=1000,
    )
    length_penalty: float = setting(
        0.0,
        "beam, diverse_beam: hypotheses are ranked by log-probability / length ** this.",
        fixed=False,
        added=True,
        least=0,
        most=10,
    )
    no_repeat_ngram: int = setting(
        0,
        "beam, diverse_beam: block repeated n-grams of this length; 0: off.",
        fixed=False,
        added=True,
        least=0,
        most=1000,
    )
    no_bad_endings: bool = setting(
        False, "beam, diverse_beam: block captions that end in words such as 'a' or 'with'.", fixed=False, added=True
    )
    n_best: int = setting(
        1,
        "beam, diverse_beam, sample, top_k, nucleus: captions returned per image, best first.",
        fixed=False,
        added=True,
        most=100,
    )
    decode_temperature: float = setting(
        1.0,
        "sample, top_k, nucleus: the logits are divided by it; below 1 likely words become likelier.",
        fixed=False,
        added=True,
        least=0.05,
        most=10,
    )
    top_k: int = setting(10, "top_k: number of words to draw among (k).", fixed=False, added=True)
    top_p: float = setting(
        0.9,
        "nucleus: draw among the fewest words that together have this probability (p).",
        fixed=False,
        added=True,
        least=0.001,
        most=1,
    )
    decode_seed: int = setting(
        0,
        "sample, top_k, nucleus: seed of the captions; the same seed draws the same. Exported models draw anew for "
        "each call.",
        fixed=False,
        added=True,
        least=0,
    )

    def check(self) -> None:
        """Raises UserError for settings that do not fit the decoder."""
        refused = [name for name in self.unread() if name not in ONLY_TOLD]
        if refused:
            name, value = refused[0], _spelled(getattr(self, refused[0]))
            readers = [decoder for decoder, read in READ_BY.items() if name in read]
            resets = " ".join(f"--{other}={_spelled(_default(other))}" for other in refused)
            raise UserError(
                f"--{name}={value} is for --decode={_listed(readers)}, not for --decode={self.decode}; "
                f"add --decode={readers[0]}, or {resets}"
            )
        if "beam_width" in self.read() and self.n_best > self.beam_width:
            raise UserError(
                f"--n_best={self.n_best} is more than --beam_width={self.beam_width}; allowed: at most as many; lower "
                "--n_best, or raise --beam_width"
            )
        if "beam_groups" in self.read() and self.beam_width % self.groups():
            divisors = [n for n in range(1, self.beam_width + 1) if self.beam_width % n == 0]
            raise UserError(
                f"--beam_groups={self.beam_groups} does not divide --beam_width={self.beam_width}; allowed: "
                f"{_listed([str(n) for n in divisors])}, or another --beam_width"
            )

    def groups(self) -> int:
        """Returns the number of groups of diverse beam search."""
        return self.beam_groups or self.beam_width

    def read(self) -> Collection[str]:
        """Returns the names of the settings that the decoder reads."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "decode"]
        return READ_BY.get(self.decode, names)

    def unread(self) -> list[str]:
        """Returns the names of changed settings that the decoder does not read."""
        rest = [f.name for f in dataclasses.fields(self) if f.name != "decode" and f.name not in self.read()]
        return [name for name in rest if getattr(self, name) != _default(name)]

    def without_effect(self) -> Iterator[str]:
        """Yields a line for each changed setting that the decoder does not read."""
        for name in self.unread():
            readers = _listed([decoder for decoder, read in READ_BY.items() if name in read])
            value = getattr(self, name)
            yield f"--{name}={value} has no effect with --decode={self.decode}; it is for --decode={readers}"


def told_of(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what tells how captions were decoded: the decoder and the settings that it reads, of those given."""
    decoder = str(decoding.get("decode", _default("decode")))
    read = READ_BY.get(decoder, decoding.keys())
    return {"decode": decoder} | {name: value for name, value in decoding.items() if name in read}


def _default(name: str) -> Any:
    return DecodingSettings.__dataclass_fields__[name].default


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(names: Collection[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} or {last}" if some else last
