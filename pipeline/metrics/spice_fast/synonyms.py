"""Synonyms by WordNet 3.0, which SPICE treats as equal.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016): two words
match if they are in the same synset. The synsets of a word are those of the Java matcher, which agrees on 150,000
pairs:

- They are those of the word itself and of its base forms, of all parts of speech.
- Base forms are those of WordNet's lists of exceptions. For a word without exception it is the result of the first of
  RULES that gives a word of WordNet, of any part of speech.
- Several words ("hot dog") are one entry, to which RULES apply as to one word.
- A synset is identified by its offset in WordNet 3.0's files. Two synsets of different parts of speech with the same
  offset are one, so that "low" and "catch" match.
"""

import gzip
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence

DATA = "wordnet_synonyms.txt.gz"

# WordNet's detachment rules (its manual page "morphy"), in order of application.
RULES = (
    *(
        ("s", ""),
        ("ses", "s"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    *(("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)
SHORTEST = 3  # letters of the shortest word to which RULES apply


class Synonyms:
    """The synsets of words, as arbitrary numbers."""

    def __init__(self, synsets: Iterable[Sequence[str]], exceptions: Mapping[str, Sequence[str]]):
        """Takes the words of each synset, and the base forms of irregular words, in WordNet's spelling."""
        self._synsets: dict[str, list[int]] = {}
        for number, words in enumerate(synsets):
            for word in words:
                self._synsets.setdefault(word, []).append(number)
        self._exceptions = exceptions

    def __call__(self, term: str) -> frozenset[int]:
        """Returns the numbers of the term's synsets; none if it is not in WordNet.

        Two terms match if they are equal or have one in common.
        """
        word = term.lower().replace(" ", "_")
        entries = [word, *self._base_forms(word)]
        return frozenset(number for entry in entries for number in self._synsets.get(entry, ()))

    def _base_forms(self, word: str) -> Sequence[str]:
        if word in self._exceptions:
            return self._exceptions[word]
        if len(word) < SHORTEST or word.endswith("ss"):
            return ()
        forms = (word.removesuffix(ending) + instead for ending, instead in RULES if word.endswith(ending))
        return [form for form in forms if form in self._synsets][:1]


def wordnet_synonyms() -> Synonyms:
    """Returns the packaged synonyms; reading them takes a third of a second."""
    synsets, exceptions = gzip.decompress(synonyms_data()).decode("ascii").split("\n\n")
    irregular = (line.split() for line in exceptions.splitlines())
    return Synonyms([line.split() for line in synsets.splitlines()], {form: bases for form, *bases in irregular})


def synonyms_data() -> bytes:
    """Returns the packaged synonyms as they are stored."""
    return importlib.resources.files(__package__).joinpath(DATA).read_bytes()
