"""A run that is stopped at seeded moments, again and again, ends as one that never was; `make torture` has 200."""

import itertools
import json

import pytest

from tests import faults
from tests.run_outcome import differing, outcome


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    return (*faults.FLAGS, *faults.make_data(tmp_path_factory.mktemp("faults") / "data"))


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    runs = tmp_path_factory.mktemp("whole")
    code, printed = faults.run(runs, flags)
    assert code == 0, printed
    return runs


@pytest.mark.parametrize(("seed", "stops"), [(5, 8), pytest.param(0, 20, marks=pytest.mark.long)])
def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_never_was(flags, whole, tmp_path, seed, stops):
    assert {moment.what for moment in itertools.islice(faults.moments(seed), stops)} == {
        what for what, _ in faults.ENDS
    }
    cases = list(faults.stopped_runs(tmp_path / "runs", flags, seed, stops, outcome(whole)))
    assert not [f"{case}: {wrong}" for case, wrong in cases if wrong]
    assert sum("[0]" not in case for case, _ in cases) == stops


def test_other_ends_are_seen(whole):
    """The comparison fails for every kind of what a run leaves."""
    found = outcome(whole)
    assert differing(whole, found) == ""
    for kind in found:
        other = found | {kind: None}
        assert differing(whole, other) == f"{kind} differ"
    assert any(tag.startswith("eval/") for tag, _, _ in found["points"])
    assert max(found["points"].values()) == 1
    assert set(json.loads((whole / "run" / "summary.json").read_text())) == set(found["summary"])
