"""What a reward and a list of metrics may say."""

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics.registry import (
    GROUPS,
    METRICS,
    parse_metrics,
    parse_reward,
    single_terms,
    spelled,
    term_of,
)
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.flags import parse
from spidercap.pipeline.settings.saved import differences


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
        ("CIDEr:1,cider-d:2", "cider comes twice"),
        ("ROUGE-W", "did you mean rouge?"),
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


SPELLINGS = {
    "cider": ("CIDEr", "cider", "CIDEr-D", "CIDER_D", "Cider"),
    "rouge": ("ROUGE-L", "rouge_l", "rougeL", "ROUGE", " rouge "),
    "bleu4": ("Bleu_4", "BLEU-4", "bleu4", "BLEU 4"),
    "bleu": ("BLEU", "Bleu"),
    "spice": ("SPICE", "Spice"),
    "meteor": ("METEOR",),
    "spice_fast": ("SPICE-fast", "spicefast"),
}


@pytest.mark.parametrize("term", SPELLINGS)
def test_every_spelling_is_one_metric(term):
    for name in SPELLINGS[term]:
        assert parse_metrics(name) == GROUPS.get(term, (term,)), name
        if term in METRICS:
            assert parse_reward(f"{name}:2") == {term: 2}
            config = Config.of(mode="score", references="a", results="b", reward=name, best_metric=name, metrics=name)
            assert config.rewards.reward == config.metrics.metrics == term
            assert config.training.best_metric == METRICS[term].column


def test_one_spelling_is_kept_and_compared():
    words = ["--mode=score", "--references=a", "--results=b", "--metrics=Bleu_4, CIDEr-D,ROUGE-L"]
    assert parse(["main", *words]).metrics.metrics == "bleu4,cider,rouge"
    assert parse_metrics("ALL") == parse_metrics("all")
    assert not differences({"reward": "CIDEr:1, bleu_4:0.5"}, {"reward": "cider:1,bleu4:0.5"})
    assert differences({"reward": "CIDEr:1"}, {"reward": "cider:2"})
    assert spelled("all_good") == "all_good"


def test_no_two_metrics_share_a_spelling():
    names = [*METRICS, *GROUPS]
    assert len({spelled(name) for name in names}) == len(names)
    assert all(spelled(metric.column) == term for term, metric in METRICS.items())
