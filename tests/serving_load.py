"""Callers that ask one exported model for captions at once, some of them with images that are none.

A server must give every good image its caption whatever comes beside it, refuse every bad one with its reason, and
need no more memory after an hour than after a minute.
"""

import dataclasses
import random
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence

BATCHES = (1, 1, 1, 2, 4)  # sizes of requests
WARM = 1 / 3  # of the time, after which memory must stay
GROWTH = 1.05

# encoded images -> (captions, errors)
Ask = Callable[[Sequence[bytes]], tuple[Sequence[str], Sequence[str]]]


@dataclasses.dataclass
class Load:
    """What a load did."""

    requests: int = 0
    images: int = 0
    refused: int = 0
    seconds: float = 0.0
    wrong: list[str] = dataclasses.field(default_factory=list)  # answers that are not those expected
    memory: list[float] = dataclasses.field(default_factory=list)  # MiB, through the time

    def faults(self) -> list[str]:
        """Returns what went wrong, in words."""
        found = self.wrong[:5]
        if len(self.wrong) > 5:
            found.append(f"and {len(self.wrong) - 5} more")
        if not self.refused or self.refused == self.images:
            found.append(f"{self.refused} of {self.images} images were bad ones; the load says nothing")
        before, after = self.memory_before_and_after()
        if after > GROWTH * before:
            found.append(f"memory grew from {before:.0f} to {after:.0f} MiB")
        return found

    def memory_before_and_after(self) -> tuple[float, float]:
        """Returns the largest memory in the middle third of the time, and in the last."""
        third = max(1, len(self.memory) // 3)
        return max(self.memory[third : -third or None], default=0.0), max(self.memory[-third:], default=0.0)


def run(
    ask: Ask, good: Mapping[bytes, str], bad: Mapping[bytes, str], callers: int, seconds: float, hostile: float = 0.1
) -> Load:
    """Returns what happened when so many callers sent requests, one after the other, for so many seconds.

    Args:
      ask: sends one request.
      good: captions by image.
      bad: reasons by image.
      callers: threads.
      seconds: how long.
      hostile: share of requests that hold a bad image, alone or among good ones.
    """
    load, lock = Load(), threading.Lock()
    load.wrong += _wrong(ask, [*good, *bad], good, bad)  # also warms the model, which takes seconds
    begin = time.monotonic()

    def call(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < begin + seconds:
            images = rng.choices(list(good), k=rng.choice(BATCHES))
            if rng.random() < hostile:
                images[rng.randrange(len(images))] = rng.choice(list(bad))
            wrong = _wrong(ask, images, good, bad)
            with lock:
                load.requests += 1
                load.images += len(images)
                load.refused += sum(image in bad for image in images)
                load.wrong += wrong

    threads = [threading.Thread(target=call, args=[seed]) for seed in range(callers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load.memory.append(_resident())
        time.sleep(min(0.5, seconds / 30))
    load.seconds = time.monotonic() - begin
    return load


def _wrong(ask: Ask, images: Sequence[bytes], good: Mapping[bytes, str], bad: Mapping[bytes, str]) -> list[str]:
    """What is wrong with the answer to a request."""
    expected = [("", bad[one]) if one in bad else (good[one], "") for one in images]
    try:
        found = list(zip(*ask(images), strict=True))
    except Exception as error:  # whatever the server raises is a wrong answer, and the load goes on
        return [f"{type(error).__name__}: {str(error)[:200]}"]
    if len(found) != len(expected):
        return [f"{len(found)} rows for {len(expected)} images"]
    return [f"{a} instead of {b}" for a, b in zip(found, expected, strict=True) if a != b]


def _resident() -> float:
    """MiB of this process now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
