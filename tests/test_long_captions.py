"""Captions of more words than SPICE's parser gets in a batch: limits of their own, and what is cut is reported."""

import contextlib
import pathlib
import threading
import time

import numpy as np
import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics import long_captions
from spidercap.pipeline.metrics.java import memory
from spidercap.pipeline.metrics.java.pool import Pool
from spidercap.pipeline.metrics.java.process import DoesNotStart, OutOfMemory, OutOfTime, WorkerFailed
from spidercap.pipeline.metrics.long_captions import LongCaptions, beginning, is_long
from spidercap.pipeline.metrics.meteor import MOST_PIECES, Meteor
from spidercap.pipeline.metrics.scores import score_captions
from spidercap.pipeline.metrics.spice import Spice
from spidercap.pipeline.metrics.tuple_store import TupleStore
from tests.fake_worker import service


class Parsers:
    """A pool whose parser makes an object of each word, but fails at captions of more than `room` words."""

    def __init__(self, room=10**6, failure=OutOfMemory):
        self.room, self.failure, self.asked, self.timeouts = room, failure, [], []

    def map(self, items, *, names, chunk, done=lambda count: None, keep):
        answers = [self._parsed(item) for item in items]
        keep(0, answers)
        done(len(items))
        return answers

    def try_each(self, items, *, timeouts, done=lambda count: None, keep=lambda place, answers: None):
        self.timeouts += timeouts
        answers = [self._parsed(item) for item in items]
        for place, answer in enumerate(answers):
            keep(place, [answer])
            done(1)
        return answers

    def _parsed(self, item):
        self.asked.append(item)
        return self.failure("too much") if long_captions.words(item) > self.room else [[w] for w in item.split(" ")]


class Matchers:
    """Matches words."""

    def map(self, items, *, names, chunk):
        return [[self._counts(c, item["references"]) for c in item["candidates"]] for item in items]

    def _counts(self, candidate, references):
        words, true = {w for (w,) in candidate}, {w for reference in references for (w,) in reference}
        return [[len(words & true), len(words), len(true)]] * 7


def caption(words, name="w"):
    return " ".join(f"{name}{k}" for k in range(words))


@pytest.fixture
def opened(tmp_path):
    """(pool, large pool, timeout) -> Spice; the store is the same for all."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(TupleStore(tmp_path)))

        def spice(pool, large, timeout=60.0):
            long = LongCaptions(pool, lambda: contextlib.nullcontext(large), timeout)
            return Spice(pool, Matchers(), store, long)

        yield spice


class TestParsing:
    def test_up_to_200_words_are_parsed_by_the_pool_and_more_by_the_large_one(self, opened):
        pool, large = Parsers(), Parsers()
        captions = [caption(n) for n in (1, 60, 61, 200, 201, 300)]
        spice = opened(pool, large)
        counted = []
        assert spice.to_parse(captions) == 6
        scores = spice.score(captions, [[c] for c in captions], counted.append)
        assert scores[:, 0, 0].tolist() == [1, 60, 61, 200, 201, 300] and sum(counted) == 6
        assert sorted(map(long_captions.words, pool.asked)) == [1, 60, 61, 200]
        assert sorted(map(long_captions.words, large.asked)) == [201, 300]
        assert spice.to_parse(captions) == 0
        assert spice.evaluate(captions, [[c] for c in captions]).remark == ""

    def test_time_grows_with_the_square_of_the_words(self, opened):
        pool, large = Parsers(), Parsers()
        opened(pool, large, timeout=10.0).tuples([caption(120), caption(600)])
        assert pool.timeouts == [40.0] and large.timeouts == [1000.0]

    def test_what_the_pool_has_no_memory_for_is_parsed_by_the_large_one(self, opened):
        pool, large = Parsers(room=100), Parsers()
        assert opened(pool, large).tuples([caption(150), caption(70)])[0][-1] == ["w149"]
        assert large.asked == [caption(150)]

    def test_what_runs_out_of_time_is_not_tried_with_more_memory(self, opened):
        pool, large = Parsers(room=60, failure=OutOfTime), Parsers()
        assert len(opened(pool, large).tuples([caption(150)])[0]) == 60
        assert large.asked == []

    @pytest.mark.parametrize("failure", [OutOfMemory, OutOfTime, WorkerFailed])
    def test_what_cannot_be_parsed_is_cut_once_and_never_stored_as_whole(self, opened, failure):
        pool, large = Parsers(), Parsers(room=100, failure=failure)
        spice = opened(pool, large)
        long = caption(300)
        for _ in range(2):
            assert spice.tuples([long]) == [[[f"w{k}"] for k in range(60)]]
        assert large.asked == [long] and pool.asked == [beginning(long)] == [caption(60)]
        assert spice.to_parse([long]) == 0
        # Another process, which may have more memory, tries again.
        again = opened(Parsers(), Parsers())
        assert again.to_parse([long, beginning(long)]) == 1
        assert len(again.tuples([long])[0]) == 300

    def test_a_large_process_that_does_not_start_is_too_little_memory(self, tmp_path):
        class Dead(Parsers):
            def try_each(self, *items, **options):
                raise DoesNotStart("its process does not start")

        pool = Parsers()
        long = LongCaptions(pool, lambda: contextlib.nullcontext(Dead()), 60.0)
        counted = []
        long.parse([caption(201), caption(300)], counted.append, lambda tuples: None)
        assert long.cut == {caption(201), caption(300)} and sum(counted) == 2

    def test_a_full_disk_is_no_lack_of_memory(self):
        def keep(tuples):
            raise UserError("no room for the store")

        long = LongCaptions(Parsers(), lambda: contextlib.nullcontext(Parsers()), 60.0)
        for words in (100, 300):
            with pytest.raises(UserError, match="no room"):
                long.parse([caption(words)], lambda count: None, keep)
        assert not long.cut

    def test_closing_stops_the_large_process_from_another_thread(self):
        pool = Pool(service(), 1, 60.0)
        long = LongCaptions(pool, lambda: Pool(service("mute"), 1, 60.0), 60.0)
        failures = []

        def parse():
            try:
                long.parse([caption(300)], lambda count: None, lambda tuples: None)
            except WorkerFailed as error:
                failures.append(error)

        thread = threading.Thread(target=parse)
        with pool:
            thread.start()
            while not (long._large and long._large.processes()):
                time.sleep(0.01)
            long.close()
            thread.join(20)
        assert not thread.is_alive() and len(failures) == 1 and not long.cut

    def test_limits(self):
        assert not is_long("") and not is_long(caption(60)) and is_long(caption(61))
        assert beginning(caption(61)) == caption(60) and beginning("a dog") == "a dog"


class TestReports:
    def test_evaluation_says_how_many_captions_were_cut(self, opened):
        long, other = caption(300), caption(400, "v")
        spice = opened(Parsers(), Parsers(room=350))
        scores = score_captions(
            [[long], [other, "a dog"], [other]], ["a dog", other, long], ("spice",), {"spice": spice}
        )
        assert scores.remarks["spice"].startswith("SPICE read only the first 60 words of 3 captions, ")
        assert "--metric_timeout" in scores.remarks["spice"]
        assert score_captions([[long]], ["a dog"], ("spice",), {"spice": spice}).remarks == {}
        mixed = score_captions([["dog"]], [other], ("spider",), {"spice": spice})
        assert mixed.remarks["spice"].startswith("SPICE read only the first 60 words of 1 caption, ")

    def test_rewards_warn_once(self, opened, capsys):
        spice = opened(Parsers(), Parsers(room=1))
        assert spice.rewards(["a dog"], [["a dog"]])[0] == 1
        assert "warning" not in capsys.readouterr().err
        for name in "vw":
            spice.rewards(["a dog"] * 3, [[caption(300, name)]] * 3)
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert len(told) == 1 and "SPICE read only the first 60 words of 1 caption, " in told[0]

    def test_meteor_too(self, capsys):
        class Pool:
            def map(self, items, **options):
                return [0.5 if "stats" in item else {"stats": "", "score": 0.5} for item in items]

        meteor = Meteor(Pool())
        long = caption(MOST_PIECES + 1)
        remark = meteor.evaluate([long, caption(MOST_PIECES)], [["dog"], [long, "x" * 2000]]).remark
        assert remark.startswith("METEOR read only the first 500 words and punctuation marks of 2 captions, ")
        assert meteor.evaluate(["dog"], [["dog"]]).remark == ""
        for _ in range(2):
            np.testing.assert_array_equal(meteor.rewards([long], [["dog"]]), [0.5])
        assert capsys.readouterr().err.count("warning: METEOR read only") == 1


class TestMemory:
    """What is available, on machines made of files."""

    def machine(self, root: pathlib.Path, files):
        for path, content in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n", **files}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        return memory.available_memory(root)

    def test_of_the_machine(self, tmp_path):
        assert self.machine(tmp_path, {}) == 4000 << 10

    def test_of_a_container(self, tmp_path):
        files = {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "2000000\n",
            "sys/fs/cgroup/memory.current": "1500000\n",
            "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 200000\nactive_file 7\n",
        }
        assert self.machine(tmp_path, files) == 700_000

    def test_of_a_group_and_those_above_it(self, tmp_path):
        files = {"proc/self/cgroup": "0::/user/job\n"}
        for group, most in (("", "max"), ("user/", "1000"), ("user/job/", "3000")):
            files |= {f"sys/fs/cgroup/{group}memory.max": most, f"sys/fs/cgroup/{group}memory.current": "400"}
        assert self.machine(tmp_path, files) == 600

    def test_of_the_first_version_of_groups(self, tmp_path):
        top = "sys/fs/cgroup/memory"
        files = {
            "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/docker/of_the_host\n0::/\n",
            f"{top}/memory.limit_in_bytes": "1000",
            f"{top}/memory.usage_in_bytes": "900",
            f"{top}/memory.stat": "inactive_file 9\ntotal_inactive_file 50\n",
        }
        assert self.machine(tmp_path, files) == 150

    def test_of_a_full_container(self, tmp_path):
        files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "5", "sys/fs/cgroup/memory.current": "9"}
        assert self.machine(tmp_path, files) == 0

    def test_without_proc(self, tmp_path):
        assert memory.available_memory(tmp_path) > 0

    def test_heap_is_a_part_of_it(self, monkeypatch):
        monkeypatch.setattr(memory, "available_memory", lambda: 8 << 30)
        assert memory.large_heap() == "6144m"
