"""What a reward and a list of metrics may say."""

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.registry import METRICS, parse_metrics, parse_reward, single_terms, term_of


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("cider", {"cider": 1}),
        ("spider", {"spice": 0.5, "cider": 0.5}),
        ("cider:1, spice:2 ,bleu4:0.5", {"cider": 1, "spice": 2, "bleu4": 0.5}),
        ("spider:2,cider:1", {"spice": 1, "cider": 2}),
        (
            "bcmr",
            {"bleu1": 0.5, "bleu2": 0.5, "bleu3": 1, "bleu4": 1, "cider": 1, "meteor": 5, "rouge": 2},
        ),
    ],
)
def test_rewards(text, weights):
    assert parse_reward(text) == weights


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--reward is empty"),
        (",", "--reward is empty"),
        ("cidre", "did you mean cider?"),
        ("bleu", "unknown 'bleu'"),
        ("cider:", "'cider:' is not metric:weight"),
        ("cider:-1", "above 0"),
        ("cider:0", "above 0"),
        ("cider:nan", "above 0"),
        ("cider:inf", "at most 1e6"),
        ("cider:1,cider:2", "cider comes twice"),
        ("CIDEr", "did you mean cider?"),
    ],
)
def test_rewards_that_are_refused(text, words):
    with pytest.raises(UserError) as error:
        parse_reward(text)
    assert words in str(error.value)


def test_metrics():
    assert parse_metrics("all") == tuple(term for term in METRICS if term not in ("spice_fast", "spider_fast"))
    assert parse_metrics("spice,bleu,cider") == ("bleu1", "bleu2", "bleu3", "bleu4", "cider", "spice")
    assert single_terms(("spider", "meteor")) == ("meteor", "cider", "spice")
    assert term_of("ROUGE-L") == "rouge"
    for text, words in (("", "--metrics is empty"), ("spicy", "did you mean spice?")):
        with pytest.raises(UserError, match=words):
            parse_metrics(text)
