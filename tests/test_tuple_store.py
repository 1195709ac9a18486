"""Parsed captions are found again: by another opening, by other processes and threads, however odd they are."""

import json
import pathlib
import random
import sqlite3
import subprocess
import sys
import threading

import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.metrics import tuple_store
from spidercap.pipeline.metrics.long_captions import LongCaptions
from spidercap.pipeline.metrics.spice import Spice
from spidercap.pipeline.metrics.tuple_store import TupleStore

ROOT = pathlib.Path(__file__).parents[1]

ODD = [
    "",
    " ",
    "a 😀 dog 🏳️‍🌈",
    "\"quoted\" and 'quoted' and `quoted`",
    "'); DROP TABLE tuples; --",
    "caption = ? OR ?1 :name @name $name",
    "100%_like*",
    "nul \0 in the middle",
    "two\nlines\r\nor more\u2028",
    "e\u0301 é",
    "שלום \u202e עולם",
    "\ufeff\u200b",
    "x" * 5000,
    '{"json": [1]}',
    "Dog",
    "dog",
    "dog ",
]


def tuples_of(caption):
    return [[caption], [caption, "big"], [caption, "dog", "on"]]


@pytest.fixture
def store(tmp_path):
    opened = TupleStore(tmp_path)
    yield opened
    opened.close()


def test_odd_captions_come_back_with_their_own_tuples(store, tmp_path):
    wanted = {caption: tuples_of(caption) for caption in ODD} | {"nothing said": []}
    store.put(wanted)
    assert store.get(list(wanted)) == wanted
    again = TupleStore(tmp_path)
    assert again.get([*wanted, "never seen"]) == wanted
    again.close()


def test_more_captions_than_one_question_takes(store, tmp_path):
    wanted = {f"caption {n}": [[str(n)]] for n in range(3 * tuple_store.ASKED + 7)}
    store.put(wanted)
    again = TupleStore(tmp_path)
    captions = [*wanted, *wanted, "unknown"]
    random.Random(1).shuffle(captions)
    assert again.get(captions) == wanted
    again.close()


def test_memory_is_bounded_and_nothing_is_lost_by_that(store, monkeypatch):
    monkeypatch.setattr(tuple_store, "KEPT", 10)
    wanted = {f"caption {n}": [[str(n)]] for n in range(100)}
    store.put(wanted)
    assert len(store._memory) == 10
    assert store.get(list(wanted)) == wanted
    assert len(store._memory) == 10
    # What was asked for last is kept, be it in memory already.
    oldest = next(iter(store._memory))
    store.get([oldest])
    store.get([f"caption {n}" for n in range(9)])
    assert set(store._memory) == {oldest, *(f"caption {n}" for n in range(9))}


def test_what_is_in_memory_is_not_read_again(store):
    store.put({"a dog": [["dog"]]})
    store.close()
    assert store.get(["a dog"]) == {"a dog": [["dog"]]}


def test_several_processes_open_write_and_read_at_once(tmp_path):
    program = """
import json, pathlib, sys
from spidercap.pipeline.metrics.tuple_store import TupleStore
own, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
print(flush=True)
sys.stdin.readline()
for n in range(80):
    TupleStore(folder / str(n)).close()
store = TupleStore(folder)
for n in range(60):
    # Some captions are everybody's, and everybody parses them to the same.
    store.put({f"{own} {n} {k}": [[str(n)]] for k in range(20)} | {f"all {n} {k}": [[str(k)]] for k in range(5)})
    found = store.get([f"{other} {n} {k}" for other in range(4) for k in range(20)])
    assert all(tuples == [[str(n)]] for tuples in found.values())
    assert sum(caption.startswith(f"{own} ") for caption in found) == 20
store.close()
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(own), str(tmp_path / "new" / "cache")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in range(4)
    ]
    for process in running:
        process.stdout.readline()
    for process in running:  # all at once, so that they make the database at once
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=100)[1] for process in running] == [""] * 4
    store = TupleStore(tmp_path / "new" / "cache")
    wanted = {f"{own} {n} {k}": [[str(n)]] for own in range(4) for n in range(60) for k in range(20)}
    wanted |= {f"all {n} {k}": [[str(k)]] for n in range(60) for k in range(5)}
    assert store.get(list(wanted)) == wanted
    store.close()


def test_threads_share_a_store(store, monkeypatch):
    monkeypatch.setattr(tuple_store, "KEPT", 30)  # so that they push each other's captions out of memory
    faults = []

    def run(own):
        try:
            for n in range(400):
                store.put({f"{own} {n}": [[str(n)]]})
                captions = [f"{other} {m}" for other in range(4) for m in range(max(0, n - 20), n + 1)]
                found = store.get(captions)
                assert found[f"{own} {n}"] == [[str(n)]]
                assert all(tuples == [[caption.split()[1]]] for caption, tuples in found.items())
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(own,)) for own in range(4)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert faults == []


class TestUnusable:
    """A store that cannot be used is named, with what to do."""

    def refused(self, folder, use=lambda store: None):
        with pytest.raises(UserError) as refused:
            use(TupleStore(folder))
        message = str(refused.value)
        assert str(folder / "spice-1.0-corenlp-3.6.0.sqlite") in message
        assert "move it away" in message and "--metric_cache_dir" in message and "\n" not in message
        return message

    def test_no_database(self, store, tmp_path):
        store.close()
        store.path.write_text("captions\n" * 1000)
        assert "not a database" in self.refused(tmp_path)

    def test_another_database(self, store, tmp_path):
        store.close()
        store.path.unlink()
        with sqlite3.connect(store.path) as database:
            database.execute("CREATE TABLE tuples (something TEXT)")
        database.close()
        self.refused(tmp_path, lambda opened: opened.get(["a dog"]))
        self.refused(tmp_path, lambda opened: opened.put({"a dog": []}))

    def test_damaged_in_the_middle(self, store, tmp_path):
        captions = {f"caption {n}": [["dog", str(n)]] * 20 for n in range(2000)}
        store.put(captions)
        store.close()
        content = bytearray(store.path.read_bytes())
        content[8192:-8192] = b"\xff" * (len(content) - 16384)
        store.path.write_bytes(content)
        self.refused(tmp_path, lambda opened: opened.get(list(captions)))

    def test_damaged_tuples(self, store, tmp_path):
        store.close()
        with sqlite3.connect(store.path) as database:
            database.execute("INSERT INTO tuples VALUES (?, ?)", ("a dog", '[["dog"]'))
        database.close()
        self.refused(tmp_path, lambda opened: opened.get(["a dog"]))

    def test_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="cannot be used"):
            TupleStore(tmp_path / "file")

    def test_folder_in_the_files_place(self, store, tmp_path):
        store.close()
        for path in tmp_path.iterdir():
            path.unlink()
        store.path.mkdir()
        self.refused(tmp_path)


def test_file_is_readable_json(store):
    """What others may read without this package."""
    store.put({"a big dog": [["dog", "big"], ["dog"]]})
    with sqlite3.connect(store.path) as database:
        rows = database.execute("SELECT caption, tuples FROM tuples").fetchall()
    database.close()
    assert [(caption, json.loads(tuples)) for caption, tuples in rows] == [("a big dog", [["dog", "big"], ["dog"]])]


class InterruptedPool:
    """Answers the first two of the captions; then Ctrl-C comes."""

    def map(self, items, *, keep, **_):
        keep(0, [[[word] for word in item.split()] for item in items[:2]])
        raise KeyboardInterrupt


def test_what_was_parsed_before_an_interruption_is_kept(tmp_path):
    store = TupleStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Spice(InterruptedPool(), None, store, LongCaptions(InterruptedPool(), None, 60.0)).score(
            ["a red dog", "a cat"], [["dogs"], ["cats"]]
        )
    store.close()
    again = TupleStore(tmp_path)
    assert again.get(["a red dog", "a cat", "dogs", "cats"]) == {
        "a red dog": [["a"], ["red"], ["dog"]],
        "a cat": [["a"], ["cat"]],
    }


@pytest.mark.parametrize("content", ["5", '{"a": 1}', '["dog"]', '[["a", "b", "c", "d"]]', "[[1]]", "[[]]", "nonsense"])
def test_what_are_no_tuples_is_the_stores_fault(tmp_path, content):
    store = TupleStore(tmp_path)
    store.put({"a dog": [["dog"]]})
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute("UPDATE tuples SET tuples = ?", [content])
    with pytest.raises(UserError, match="cannot be used as store of parsed captions"):
        TupleStore(tmp_path).get(["a dog"])
