"""The arithmetic of `benchmarks.scaling`; `make machines-check` runs it."""

import pytest

from benchmarks.scaling import Line, Network, lines_of, measured_table, modelled_table

LINE = Line(seconds=1.0, half=0.6, together=0.8, sent=3 * 2**20, images=10)
NETWORK = Network(bandwidth=100.0, latency=0.5)


def run_of(one, half, sent):
    return {"lines": {"mle": {"10": {"seconds": one, "sent": sent}, "5": {"seconds": half, "sent": 0.0}}}, "sum": 0.1}


def test_medians_of_runs_and_half_of_what_two_send():
    runs = {1: [run_of(s, s / 2, 0) for s in (3.0, 1.0, 2.0)], 2: [run_of(s, 9, 8) for s in (5.0, 4.0, 6.0)]}
    assert lines_of(runs, 10) == {"mle": Line(2.0, 1.0, 5.0, 4.0, 10)}


def test_share_of_the_ideal_is_of_twice_the_speed():
    assert LINE.share() == pytest.approx(1.0 / 1.6)


@pytest.mark.parametrize(("images", "seconds"), [(10, 1.0), (5, 0.6), (0, 0.2), (20, 1.8)])
def test_seconds_lie_on_the_line_through_both_batches(images, seconds):
    assert LINE.of(images) == pytest.approx(seconds)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 0.0), (2, 2 * (0.5 + 0.5)), (5, 8 * (0.2 + 0.5))])
def test_a_ring_sends_each_part_twice_around(workers, seconds):
    """2 (W - 1) messages of 1 / W of the bytes."""
    assert NETWORK.seconds(100, workers) == pytest.approx(seconds)


def test_tables():
    measured = {"mle": LINE}
    first = measured_table(measured, 0.2).splitlines()
    assert first[1].split() == ["mle", "1", "0.8", "62%", "3", "0.2", "25%"]
    rows = {line.split()[0]: line.split()[1:] for line in modelled_table(measured, 100, NETWORK, 10, 80).splitlines()}
    assert rows["1"] == ["0", "100%", "100%"]
    # 10 images each: 1 s and a sum of 2 s; 80 in all: 6.6 s alone, else 3.4 s and the same sum.
    assert rows["2"] == ["2", "33%", f"{6.6 / 2 / 5.4:.0%}"]
    assert len(rows["128"]) == 2  # 80 images are too few for 128 workers
