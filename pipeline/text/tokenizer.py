"""Splits captions into lower-case Penn Treebank words without punctuation, like the COCO caption evaluation.

The rules reproduce the output of the evaluation's Java tokenizer (Stanford, 3.4.1), so that training and rewards need
no Java. tests/golden/tokenizer.json holds examples of that output.
"""

import functools
import re
import unicodedata

# Abbreviations keep their dot: always, with a capital, before a number.
_ABBREVIATIONS = (
    "adj|adm|adv|al|ala|alex|apr|ariz|assn|assoc|asst|atty|attys|aug|ave|bancorp|bhd|bldg|blvd|brig|"
    "bros|calif|capt|cf|cie|cmdr|co|col|colo|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|elec|ens|esq|"
    "est|etc|ext|feb|fla|fri|ft|ga|gen|gov|govs|hon|inc|ind|insp|intl|invt|jan|jos|jr|jul|jun|kan|kans|"
    "ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mont|mr|mrs|ms|msgr|mt|mtg|natl|"
    "neb|nev|nov|oct|okla|penn|pfc|ph|ph[.]d|plc|ppte|ppty|pres|prof|pte|ptes|pty|ptys|pvt|rd|rep|reps|rev|"
    "rt|sen|sens|sep|sept|seq|sfc|sgt|spc|sq|sr|st|ste|supt|sys|tel|tenn|thu|thurs|tue|tues|univ|va|vs|vt|"
    "wed|wis|wisc|wm|wyo"
)
_CAPITAL_ABBREVIATIONS = "ark|az|del|ill|la|mass|miss|ore|pa|tex|wash"
_NUMBER_ABBREVIATIONS = "art|ca|fig|figs|no|nos|op|pp|prop"

# After a letter and a dot, one of these with a capital begins a sentence: "plan b. The", but "John B. Smith".
_STARTERS = (
    "a|about|according|after|an|as|at|but|earlier|he|her|here|however|if|in|it|last|many|more|now|once|"
    "one|other|our|she|since|so|some|such|that|the|their|then|there|these|they|this|we|what|when|while|"
    "yet|you"
)

# The evaluation lower-cases these names, and then does not recognise them as punctuation to drop.
_PARENTHESES = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
_BRACKETS = {"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&lt;": "<", "&gt;": ">"}


class _Folding(dict[int, str]):
    """A table for str.translate. Beyond ASCII it keeps word characters, and puts spaces around symbols."""

    def __missing__(self, code: int) -> str:
        char, category = chr(code), unicodedata.category(chr(code))
        # The evaluation drops all of these planes, and with them nearly every emoji.
        if code > 0xFFFF:
            return " "
        if category[0] in "LM" or category == "Nd":
            return char
        return f" {char} " if category[0] in "NPS" and code < 0x3100 else " "


_FOLDED = {
    **{chr(code): chr(code) for code in range(32, 127)},
    **dict.fromkeys("\u2018\u2019\u201b\u2039\u203a\x91\x92", "'"),
    **dict.fromkeys("\u201c\u201d\u00ab\u00bb\x93\x94", '"'),
    **dict.fromkeys("\u2013\u2014\u2015\u2026\x96\x97", " "),
    **dict.fromkeys("\u20ac\u20a0\u00a4\x80", " $ "),
    **dict.fromkeys("\u2010\u2011", "-"),
    **{"\u00a3": " # ", "\u00a2": " cents ", "\u00ad": ""},
    **{"\u00bc": " 1/4 ", "\u00bd": " 1/2 ", "\u00be": " 3/4 ", "\u2153": " 1/3 ", "\u2154": " 2/3 "},
}
_FOLDING = _Folding({ord(char): text for char, text in _FOLDED.items()})


@functools.cache  # at first use, as it takes a quarter of a second
def _pattern() -> re.Pattern[str]:
    """Returns the pattern of one token; the first alternative that matches wins, and punctuation has no group 1.

    No alternative looks much further ahead than it, or a later one, then consumes. That keeps `tokenize` linear.
    """
    a = r"[A-Za-z0-9\x80-\U0010ffff]"
    z = r"[A-Za-z\x80-\U0010ffff]"
    # An apostrophe within a word: d'oeuvres, O'Neil; Hawai'i.
    elided = rf"(?:[dlnoDLNO]|[A-CE-HJKMP-XZ])'(?={z}{{2}})"
    piece = rf"(?:{elided})?{a}+(?:(?<={z}[aeiouyAEIOUY])'(?=[aeiouAEIOU])(?!(?i:em)){a}+)?(?:_{a}+)*"
    hyphened = rf"{piece}(?:-{piece})*"
    clitic = rf"'(?i:s|d|m|re|ve|ll|n)(?!{z})"
    number = r"(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)"
    abbreviation = (
        rf"(?:(?i:{_ABBREVIATIONS})|(?=[A-Z])(?i:{_CAPITAL_ABBREVIATIONS})"
        rf"|(?i:{_NUMBER_ABBREVIATIONS})(?=\.\s*\d))\."
    )
    ended = rf"\s*\Z|\s+(?=[A-Z])(?i:{_STARTERS})(?!{a})"
    kept = [
        # Most words by far.
        r"[A-Za-z]++(?=,?\s|\Z)(?<!(?i:cannot))(?<!(?i:gonna|gotta|lemme|gimme|wanna))",
        # Left whole: mark-up, addresses, tags, faces.
        r"</?[A-Za-z][\w.:-]*(?:\s[^<>]*)?/?>|&(?:lt|gt|#\d{2,5});",
        r"(?i:https?://)[\w-]+\.[^\s\"<>()|]*[^\s\"<>()|.,;:!?']",
        r"\w[\w.+-]{0,63}@[\w-]+(?:\.[\w-]+)*",
        r"@[A-Za-z_]\w*|#[A-Za-z]+",
        rf"[:;=][-'o]?[()\[\]{{|\\@DOPdp](?!{a})",
        # Contractions, and words that count as two.
        rf"(?i:can(?=not)|gon(?=na)|got(?=ta)|lem(?=me)|gim(?=me)|wan(?=na))(?={z}{{2,3}}(?!{a}|-))",
        rf"(?i:'t(?=is|was)|'em|'till?|'cause|'n'|n't(?!{z})|(?:ma'am|c'mon|c'est|e'er|dunkin'|ol')(?!\w))",
        rf"{clitic}|'\d\d(?:s(?!{a})|(?=\s|\Z))|[Yy]'(?={z})(?!.'s)|j'(?={z})(?!.{clitic})",
        rf"{a}*?(?![nN]){z}(?=(?i:n't))",
        # Numbers: (555) 555-5555, 1 1/2-inch, 3.5-inch, 1,000.50, -5, :30.
        r"\(\d{3}\) ?\d{3}-\d{4}",
        r"[-+]?\d+[- ]\d+/\d+",
        rf"\d+(?:[.,]\d+)+(?:-{piece})+",
        rf"\d+(?:[.:,]\d+)+|[-+]{number}|(?:[.:,]\d+)+",
        # Words with dots: p.m., U.S.-made; St., jr.-size; site.com, T.V; the B. in a name; "shop., and".
        rf"{z}(?:\.{z})+\.(?:-{piece})*(?!{z})",
        rf"{abbreviation}(?!{z})(?:-{piece})*",
        rf"{z}{a}*(?:\.{z}{a}*)+(?:-{piece})*",
        rf"[A-Za-z]\.(?!{ended})",
        rf"{hyphened}\.(?=[,;:])",
        # Words: AT&T, US$, and/or, what?no, t-shirt; symbols.
        r"[A-Z]+(?:&[A-Z]+)+|[A-Z]+\$",
        rf"{hyphened}(?:/{hyphened}){{1,2}}",
        rf"{z}+[!?]{z}+|{hyphened}",
        r"[!?]{2,}|-{6,}|_+|\*+|#+|@+|<<|>>|[^\s.?!,:;'\"`-]",
    ]
    return re.compile(rf"\.{{2,}}|-{{2,5}}(?!-)|''|({'|'.join(kept)})|\S")


# Nearly all captions are letters, spaces, commas after words, and a full stop. They need none of the rules, unless
# they have a word that counts as two, or an abbreviation before the stop.
_PLAIN = re.compile(r"(?:[A-Za-z]++,? ++(?=[A-Za-z]))*+[A-Za-z]{2,}+ *\.? *")
_TWO_WORDS = ("cannot", "gonna", "gotta", "lemme", "gimme", "wanna")
_STOPPED = frozenset(f"{_ABBREVIATIONS}|{_CAPITAL_ABBREVIATIONS}|{_NUMBER_ABBREVIATIONS}".split("|"))
_STOPS = str.maketrans("", "", ".,")


def tokenize(caption: str) -> list[str]:
    """Returns the words of a caption: lower case, without punctuation and white space.

    Takes any string, in time proportional to its length. White space of any kind separates words. In the evaluation,
    the first word of the next caption decides whether a single letter keeps a dot that ends this one. Here that word
    is taken to be a capitalised "A" or "The", which it mostly is.
    """
    if _PLAIN.fullmatch(caption):
        words = caption.translate(_STOPS).lower().split()
        # "gonnaa." counts as two, "gonnaa dog" does not.
        if (
            words[-1] not in _STOPPED
            and not words[-1].startswith(_TWO_WORDS)
            and not any(word in _TWO_WORDS for word in words)
        ):
            return words
    return _by_rules(caption)


def _by_rules(caption: str) -> list[str]:
    words = []
    for token in filter(None, _pattern().findall(_folded(caption))):
        words += (_BRACKETS.get(token) or token.translate(_PARENTHESES).lower()).split()
    return words


def has_words(caption: str) -> bool:
    """Returns whether `tokenize` finds a word; looks no further than the first."""
    return any(match[1] for match in _pattern().finditer(_folded(caption)))


def _folded(caption: str) -> str:
    text = caption.translate(_FOLDING)
    for entity, meaning in (("&nbsp;", " "), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, meaning)
    return text
