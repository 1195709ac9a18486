"""What SPICE's parser made of each caption, kept in memory and on disk: a caption is parsed once in its life."""

import collections
import json
import pathlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import UserError

Tuples = list[list[str]]  # [object], [object, attribute], [subject, object, relation], in the parser's order

KEPT = 200_000  # captions in memory, some 0.5 kB each
ASKED = 500  # captions in one question to the database, which takes at most 999 (SQLite's oldest limit)
PATIENCE = 60.0  # seconds to wait for another process that is writing


class TupleStore:
    """Captions -> tuples, in an SQLite database that several processes may use at once.

    The file's name holds the parser's version: tuples of another one would be other tuples.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens or makes the store in `folder`.

        Raises:
          UserError: the file cannot be opened or is no such database.
        """
        self.path = folder / "spice-1.0-corenlp-3.6.0.sqlite"
        self._memory: collections.OrderedDict[str, Tuples] = collections.OrderedDict()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
            # Readers go on while one writes; after a power cut the last captions may have to be parsed again.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS tuples (caption TEXT PRIMARY KEY, tuples TEXT) STRICT"
                )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def get(self, captions: Sequence[str]) -> dict[str, Tuples]:
        """Returns the tuples of those captions that are known."""
        found = {}
        for caption in captions:
            if caption in self._memory:
                self._memory.move_to_end(caption)
                found[caption] = self._memory[caption]
        missing = [caption for caption in dict.fromkeys(captions) if caption not in found]
        for i in range(0, len(missing), ASKED):
            asked = missing[i : i + ASKED]
            marks = ",".join("?" * len(asked))
            try:
                rows = self._database.execute(f"SELECT caption, tuples FROM tuples WHERE caption IN ({marks})", asked)
                found.update((caption, json.loads(tuples)) for caption, tuples in rows)
            except (sqlite3.Error, ValueError) as error:
                raise self._unusable(error) from error
        self._remember((caption, found[caption]) for caption in missing if caption in found)
        return found

    def put(self, tuples: Mapping[str, Tuples]) -> None:
        """Keeps the tuples of captions."""
        rows = [(caption, json.dumps(of_caption, ensure_ascii=False)) for caption, of_caption in tuples.items()]
        try:
            with self._database:
                self._database.executemany("INSERT OR IGNORE INTO tuples VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._remember(tuples.items())

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def _remember(self, tuples: Iterable[tuple[str, Tuples]]) -> None:
        self._memory.update(tuples)
        while len(self._memory) > KEPT:
            self._memory.popitem(last=False)

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path} cannot be used as store of parsed captions ({error}); "
            "move it away (captions are then parsed anew), or name another folder with --metric_cache_dir"
        )
