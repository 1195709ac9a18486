"""Correlations against their definitions, and the agreement of metrics with people's ratings."""

import itertools
import json

import numpy as np
import pytest

from benchmarks import people
from benchmarks.correlation import kendall_b, kendall_c, pearson

A, B = np.array([1.0, 2, 3, 4, 4]), np.array([1.0, 3, 2, 4, 5])


def test_correlations_of_five():
    assert pearson(A, 2 * A + 1) == pytest.approx(1)
    # Of ten pairs eight agree, one does not, one is tied in A alone.
    assert kendall_b(A, B) == pytest.approx((8 - 1) / (9 * 10) ** 0.5)
    assert kendall_b(A, -A) == pytest.approx(-1)
    assert kendall_c(A, B) == pytest.approx(2 * 4 * (8 - 1) / (25 * 3))
    assert all(np.isnan(of(A, np.ones(5))) for of in (pearson, kendall_b, kendall_c))


def test_tau_c_of_ratings_is_a_sum_over_pairs():
    generator = np.random.default_rng(0)
    scores, ratings = generator.random(40), generator.integers(1, 5, 40)
    pairs = list(itertools.combinations(range(40), 2))
    same = sum((scores[i] - scores[j]) * (ratings[i] - ratings[j]) > 0 for i, j in pairs)
    opposite = sum((scores[i] - scores[j]) * (ratings[i] - ratings[j]) < 0 for i, j in pairs)
    assert kendall_c(scores, ratings) == pytest.approx((same - opposite) / (40**2 * (4 - 1) / (2 * 4)))


def judged(captions):
    return [{"caption": caption, "rating": rating} for caption, ratings in captions.items() for rating in ratings]


RATINGS = {
    "one": {
        "ground_truth": ["A black dog runs on the grass .", "A dog is running ."],
        "human_judgement": judged(
            {"A dog runs .": [4.0, 3.0, float("nan")], "Two men sit on a bench .": [1.0, 1.0, 2.0]}
        ),
    },
    "two": {
        "ground_truth": ["Two men sit on a bench .", "Men on a wooden bench ."],
        "human_judgement": judged({"A dog runs .": [1.0, 1.0, 1.0], "Two men are sitting .": [3.0, 3.0, 4.0]}),
    },
}


class TestBenchmark:
    def test_reads_a_caption_of_two_images_as_two(self, tmp_path):
        (tmp_path / "ratings.json").write_text(json.dumps(RATINGS))
        rated = people.read_ratings(tmp_path / "ratings.json")
        assert list(rated.captions.values()) == [
            "A dog runs .",
            "Two men sit on a bench .",
            "A dog runs .",
            "Two men are sitting .",
        ]
        assert rated.references[0] == RATINGS["one"]["ground_truth"] and len(rated.references) == 4
        assert rated.rating.tolist() == [4, 3, 1, 1, 2, 1, 1, 1, 3, 3, 4]  # without the one that is missing
        assert rated.caption.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert rated.image.tolist() == [0] * 5 + [1] * 6

    def test_metrics_that_agree_with_people(self, tmp_path, capsys):
        (tmp_path / "ratings.json").write_text(json.dumps(RATINGS))
        assert people.main([f"--ratings={tmp_path / 'ratings.json'}", "--metrics=rouge,spice_fast"]) == 0
        said = capsys.readouterr().out
        assert said.startswith("2 images, 4 captions, 11 ratings")
        found = {line.split()[0]: float(line.split()[1]) for line in said.splitlines()[2:4]}
        assert set(found) == {"ROUGE-L", "SPICE-fast"} and min(found.values()) > 50
        assert "an approximation" in said

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("none", "cannot be read"),
            ("[]", "cannot be read"),
            ('{"a": {}}', "human_judgement"),
            ("{}", "no ratings"),
            ("[" * 100_000, "cannot be read"),
            (json.dumps({"a": {"ground_truth": ["a"], "human_judgement": []}}), "no ratings"),
            (
                json.dumps({"a": {"ground_truth": ["a"], "human_judgement": [{"caption": "a", "rating": 10**400}]}}),
                "cannot be read",
            ),
        ],
    )
    def test_other_files_are_refused(self, content, said, tmp_path, capsys):
        (tmp_path / "ratings.json").write_text(content)
        assert people.main([f"--ratings={tmp_path / 'ratings.json'}"]) == 1
        assert said in capsys.readouterr().err
