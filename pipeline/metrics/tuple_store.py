"""A cache of captions parsed by SPICE, in memory and on disk."""

import collections
import json
import pathlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.files import held, open_lock

Tuples = list[list[str]]  # [object], [object, attribute], [subject, object, relation], in the parser's order

KEPT = 200_000  # captions in memory, about 0.5 kB each
ASKED = 500  # captions per query, below SQLite's oldest limit of 999
PATIENCE = 60.0  # seconds to wait for another process that is writing


class TupleStore:
    """Captions -> tuples, in an SQLite database that several processes may use at once.

    The file's name holds the version of the parser, because other versions give other tuples.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens or creates the store in `folder`.

        Raises:
          UserError: the file cannot be opened or is not such a database.
        """
        self.path = folder / "spice-1.0-corenlp-3.6.0.sqlite"
        self._memory: collections.OrderedDict[str, Tuples] = collections.OrderedDict()
        self._lock = threading.Lock()  # of memory and database, for threads of this process
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait for another process that creates the same database.
            with held(open_lock(self.path.with_suffix(".lock"))):
                self._database = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def get(self, captions: Sequence[str]) -> dict[str, Tuples]:
        """Returns the tuples of the captions that are in the store."""
        with self._lock:
            found = {caption: self._memory[caption] for caption in captions if caption in self._memory}
            missing = [caption for caption in dict.fromkeys(captions) if caption not in found]
            for i in range(0, len(missing), ASKED):
                found.update(self._read(missing[i : i + ASKED]))
            self._remember(found)
        return found

    def put(self, tuples: Mapping[str, Tuples]) -> None:
        """Stores the tuples of captions."""
        rows = [(caption, json.dumps(of_caption, ensure_ascii=False)) for caption, of_caption in tuples.items()]
        with self._lock:
            try:
                with self._database:
                    self._database.executemany("INSERT OR IGNORE INTO tuples VALUES (?, ?)", rows)
            except sqlite3.Error as error:
                raise self._unusable(error) from error
            self._remember(tuples)

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
        # Readers need not wait for a writer. After a power cut the last captions may have to be parsed again.
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS tuples (caption TEXT PRIMARY KEY, tuples TEXT NOT NULL)")
        return database

    def _read(self, captions: Sequence[str]) -> dict[str, Tuples]:
        marks = ",".join("?" * len(captions))
        try:
            rows = self._database.execute(f"SELECT caption, tuples FROM tuples WHERE caption IN ({marks})", captions)
            found = {caption: json.loads(tuples) for caption, tuples in rows}
        except (sqlite3.Error, ValueError) as error:
            raise self._unusable(error) from error
        wrong = next((caption for caption, tuples in found.items() if not _are_tuples(tuples)), None)
        if wrong is not None:
            raise self._unusable(ValueError(f"its entry of {wrong[:60]!r} does not hold tuples"))
        return found

    def _remember(self, tuples: Mapping[str, Tuples]) -> None:
        """Adds them to the memory, and drops the least recently used ones."""
        for caption, of_caption in tuples.items():
            self._memory[caption] = of_caption
            self._memory.move_to_end(caption)
        while len(self._memory) > KEPT:
            self._memory.popitem(last=False)

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path} cannot be used as store of parsed captions ({error}); "
            "make room on its disk, or move it away (captions are then parsed again), or name another folder with "
            "--metric_cache_dir"
        )


def _are_tuples(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and 1 <= len(one) <= 3 and all(isinstance(word, str) for word in one) for one in value
    )
