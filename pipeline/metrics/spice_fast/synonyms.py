"""Which words share a meaning, after WordNet 3.0: what SPICE takes for the same.

Anderson, Fernando, Johnson, Gould, "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016): "two words are
the same if they are in the same synset". What a word's synsets are was found by asking the Java matcher about 150,000
pairs; on all of them it says what this does:

- Those of the word itself and of its base form, of all parts of speech alike.
- The base forms are those of WordNet's lists of exceptions; of a word in none of them, what the first of RULES makes of
  it that gives a word of WordNet, of whatever part of speech.
- Several words ("hot dog") are one entry; their last letters are looked at as those of one word's.
- A synset is known by its place in WordNet 3.0's files, and two synsets of different parts of speech at the same place
  are one ("low" and "catch" match).
"""

import gzip
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence

DATA = "wordnet_synonyms.txt.gz"

# WordNet's own detachment rules (its manual page "morphy"), in the order in which they are tried.
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
SHORTEST = 3  # letters of a word that may have an ending


class Synonyms:
    """The synsets of words, as numbers that mean nothing else."""

    def __init__(self, synsets: Iterable[Sequence[str]], exceptions: Mapping[str, Sequence[str]]):
        """Takes the words of each synset, and the base forms of irregular ones, all in WordNet's spelling."""
        self._synsets: dict[str, list[int]] = {}
        for number, words in enumerate(synsets):
            for word in words:
                self._synsets.setdefault(word, []).append(number)
        self._exceptions = exceptions

    def __call__(self, term: str) -> frozenset[int]:
        """Returns the numbers of the term's synsets; none where WordNet does not know it.

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
    """Returns the synonyms of the file that comes with the package; reading it takes a third of a second."""
    packed = importlib.resources.files(__package__).joinpath(DATA).read_bytes()
    synsets, exceptions = gzip.decompress(packed).decode("ascii").split("\n\n")
    irregular = (line.split() for line in exceptions.splitlines())
    return Synonyms([line.split() for line in synsets.splitlines()], {form: bases for form, *bases in irregular})
