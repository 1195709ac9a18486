"""The size of the vocabulary as it is printed, and the warning that words are too rare."""

import pytest

from spidercap.pipeline.text.rare_words import rare_words_note, unknown_share, vocabulary_line
from spidercap.pipeline.text.vocabulary import build_vocabulary


@pytest.mark.parametrize(
    ("counts", "least", "line"),
    [
        (dict(cat=5, dog=5), 5, "2 words in the vocabulary, 0 too rare"),
        (dict(cat=5, dog=4), 5, "1 word in the vocabulary, 1 too rare (44.4% of the words of the captions)"),
        (dict(cat=9, dog=1), 2, "1 word in the vocabulary, 1 too rare (10.0% of the words of the captions)"),
    ],
)
def test_special_tokens_are_no_words(counts, least, line):
    assert vocabulary_line(build_vocabulary(counts, least), unknown_share(counts, least)) == line


@pytest.mark.parametrize(
    ("counts", "least", "told"),
    [
        ({"cat": 10}, 5, None),
        ({"cat": 36, "dog": 4}, 5, None),  # a tenth
        ({"cat": 35, "dog": 4}, 5, "10% of the words of the training captions occur less than --min_word_count=5"),
        ({"cat": 30, "dog": 4}, 5, "for example --min_word_count=4,"),
        ({"cat": 40, "dog": 4, "cow": 3, "fox": 2, "emu": 1}, 5, "for example --min_word_count=3,"),
        ({"cat": 5, **{f"w{i}": 1 for i in range(95)}}, 5, "95% of the words"),
        ({"cat": 5, **{f"w{i}": 1 for i in range(95)}}, 5, "for example --min_word_count=1,"),
        ({"cat": 1, "dog": 1}, 1, None),
    ],
)
def test_many_lost_words_are_reported_with_a_lower_count(counts, least, told):
    note = rare_words_note(counts, least)
    assert note == "" if told is None else told in note
