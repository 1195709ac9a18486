"""Lemmas of words: a table of known ones, and rules for others."""

from collections.abc import Collection, Mapping

VOWELS = "aeiou"


class Lemmas:
    """The lemma of a word as a noun and as a verb."""

    def __init__(self, nouns: Mapping[str, str], verbs: Mapping[str, str], known: Collection[str]):
        """`nouns` and `verbs` are exceptions to the rules; rules prefer lemmas that are `known`."""
        self.nouns, self.verbs, self.known = dict(nouns), dict(verbs), frozenset(known)

    def forms(self, word: str) -> tuple[str, str, str]:
        """Returns the word itself, its lemma as a noun, and as a verb (spidercap.models.scene_parser.FORMS)."""
        return word, self.noun(word), self.verb(word)

    def noun(self, word: str) -> str:
        """Returns the singular."""
        return self.nouns.get(word) or next(iter(self._noun_choices(word)), word)

    def verb(self, word: str) -> str:
        """Returns the infinitive."""
        return self.verbs.get(word) or next(iter(self._verb_choices(word)), word)

    def _noun_choices(self, word: str) -> list[str]:
        if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "'s")):
            return []
        if word.endswith("ies") and len(word) > 4:
            return [word[:-3] + "y"]
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            return self._known_first([word[:-1], word[:-2]], otherwise=1 - word.endswith(("ses", "zes")))
        if word.endswith("ves"):
            return self._known_first([word[:-1], word[:-3] + "f", word[:-3] + "fe"], otherwise=0)
        return [word[:-1]]

    def _verb_choices(self, word: str) -> list[str]:
        for ending in ("ing", "ed"):
            stem = word.removesuffix(ending)
            if stem != word and len(stem) > 1 and any(c in VOWELS + "y" for c in stem):
                return self._stems(stem, ending)
        if word.endswith("ies") and len(word) > 4:
            return [word[:-3] + "y"]
        if word.endswith(("sses", "xes", "zzes", "ches", "shes", "oes")):
            return self._known_first([word[:-2], word[:-1]], otherwise=0)
        return [word[:-1]] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "'s")) else []

    def _stems(self, stem: str, ending: str) -> list[str]:
        if ending == "ed" and stem.endswith("i"):
            return [stem[:-1] + "y"]
        double = len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in VOWELS
        choices = [stem, stem + "e", *([stem[:-1]] if double else [])]
        if double and stem[-1] not in "lsfz":
            return self._known_first(choices, otherwise=2)
        # After consonant, vowel, consonant the stem has lost its e (hike), else its last letter would be doubled (hop).
        short = len(stem) > 2 and stem[-1] not in VOWELS + "wxy" and stem[-2] in VOWELS and stem[-3] not in VOWELS
        silent = stem.endswith(("c", "g", "s", "u", "v", "z", "dl", "tl", "bl", "pl")) and not stem.endswith("ng")
        return self._known_first(choices, otherwise=int((short and len(stem) < 5) or silent))

    def _known_first(self, choices: list[str], otherwise: int) -> list[str]:
        known = [choice for choice in choices if choice in self.known]
        if choices[otherwise] in known or not known:
            return [choices[otherwise]]
        return known[:1]
