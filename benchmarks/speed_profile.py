"""Profiles a policy-gradient step with three rollouts: the time of its parts, and of its kinds of operations."""

import collections
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import Report, aligned, timed
from benchmarks.speed_lines import learning_call, rolled_out
from benchmarks.speed_measure import Yardstick, settled
from benchmarks.speed_work import learned_images, rollout_steps, words_in
from benchmarks.speed_world import Setting, World
from spidercap.models import decoding
from spidercap.models.categorical import draw
from spidercap.pipeline.training.steps import scored_captions

ROLLOUTS = 3
ROUNDS = 7  # in each of which all parts are timed
PROFILED = 3  # steps
PRODUCTS, GATES, NOTHING = "matrix products", "gates of the LSTM", "no operation runs"
GATE_KINDS = ("Sigmoid", "SigmoidGrad", "Tanh", "TanhGrad")
ELEMENTWISE = ("Add", "AddV2", "AddN", "BiasAdd", "BiasAddGrad", "Mul", "Split", "ConcatV2", *GATE_KINDS)
SMALL = 0.005  # kinds below this share are summed up


class Piece(NamedTuple):
    """A time span of one operation."""

    begin: float  # seconds
    end: float
    kind: str


def profile(setting: Setting, report: Report) -> str:
    """Returns two tables as text: the parts of the step and its kinds of operations, with their shares of its time."""
    with tempfile.TemporaryDirectory() as folder:
        report.log("building the captioner")
        world = World(setting, pathlib.Path(folder))
        objective = rolled_out(world, ROLLOUTS)
        step = learning_call(world, objective, learns_baseline=True)
        report.log("parts")
        parts = _parts(world, objective.sample, step)
        report.log("operations")
        pieces, wall = _profiled(step, pathlib.Path(folder))
    return f"{parts}\n\n{_kinds(shared_time(pieces), wall)}"


def shared_time(pieces: Iterable[Piece]) -> dict[str, float]:
    """Returns seconds by kind; time with several concurrent operations is shared equally among them."""
    changes = sorted((time, sign, piece.kind) for piece in pieces for time, sign in ((piece[0], 1), (piece[1], -1)))
    running: collections.Counter[str] = collections.Counter()
    total: collections.Counter[str] = collections.Counter()
    last = 0.0
    for time, sign, kind in changes:
        if (count := running.total()) and time > last:
            for each, times in running.items():
                total[each] += (time - last) * times / count
        running[kind] += sign
        last = time
    return dict(total)


def own_pieces(events: Iterable[Piece]) -> list[Piece]:
    """Returns the events of one thread without the time of events nested in them."""
    pieces: list[Piece] = []
    open_events: list[Piece] = []
    now = 0.0

    def advance(until: float) -> None:
        nonlocal now
        if open_events and until > now:
            pieces.append(Piece(now, until, open_events[-1].kind))
        now = max(now, until)

    for event in sorted(events, key=lambda e: (e.begin, -e.end)):
        while open_events and open_events[-1].end <= event.begin:
            advance(open_events[-1].end)
            open_events.pop()
        advance(event.begin)
        open_events.append(event)
    while open_events:
        advance(open_events[-1].end)
        open_events.pop()
    return pieces


def kind_of(scope: str, operation: str) -> str:
    """Returns the row of an operation: matrix product, elementwise operation of the LSTM, or its own kind."""
    operation = operation.lstrip("_").removeprefix("Mkl").removeprefix("Native")
    if "MatMul" in operation:
        return PRODUCTS
    if operation in GATE_KINDS or (operation in ELEMENTWISE and "lstm" in scope):
        return GATES
    return operation


def _parts(world: World, sample: Callable, step: Callable[[], Any]) -> str:
    """Times sampling, scoring and the whole step alternately; parts that cannot be called alone are differences."""
    captioner, length = world.captioner, world.setting.length

    @tf.function(autograph=False)
    def samples(features: tf.Tensor) -> tuple[tf.Tensor, decoding.Forks]:
        step, start = captioner.begin(features)
        return decoding.sample_with_forks(step, start, length, world.seed, ROLLOUTS, draw)

    sampler, scores = tf.function(sample), tf.function(world.reward.compiled_scores)
    experience = sampler(world.images, world.seed, world.level)
    captions, images = scored_captions(experience)
    calls: dict[str, Callable[[], Any]] = {
        "samples": lambda: samples(world.images.features),
        "samples and rollouts": lambda: sampler(world.images, world.seed, world.level),
        "scores": lambda: scores(captions, images),
        "step": step,
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    yardstick, rates = Yardstick(world.setting), []
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            took, _ = timed(lambda call=call: settled(call()))
            if turn:  # the first call traces
                seconds[name].append(took)
        rates.append(yardstick.rate())
    took = {name: statistics.median(times) for name, times in seconds.items()}
    sample_words, others = words_in(experience.tokens), rollout_steps(experience.rollouts)
    read = len(world.images.features) * world.setting.image_flops()
    learned = learned_images(world, sample_words)
    rows = {
        "sampling": (took["samples"], sample_words, read),
        "rollouts": (took["samples and rollouts"] - took["samples"], others, 0.0),
        "reward": (took["scores"], 0, 0.0),
        "update": (took["step"] - took["samples and rollouts"] - took["scores"], 3 * sample_words, learned),
        "step": (took["step"], 4 * sample_words + others, read + learned),
    }
    word, rate = world.setting.word_flops(), statistics.median(rates)
    cells = [
        (
            name,
            f"{1000 * time:.0f}",
            f"{time / took['step']:.0%}",
            f"{work:,}" if work else "",
            f"{(work * word + images) / rate / time:.0%}" if work else "",
        )
        for name, (time, work, images) in rows.items()
    ]
    letters = ", ".join(
        f"{letter} = {value if isinstance(value, str) else f'{value:,}'}"
        for letter, value in world.setting.letters().items()
    )
    heads = (f"PG step, K = {ROLLOUTS}, {letters}", "ms", "of the step", "word-steps", "share of the products' rate")
    return aligned([heads, *cells])


def _profiled(step: Callable[[], Any], folder: pathlib.Path) -> tuple[list[Piece], float]:
    """The operations of PROFILED steps, and the seconds that the steps took."""
    settled(step())
    tf.profiler.experimental.start(str(folder))
    wall, _ = timed(lambda: [settled(step()) for _ in range(PROFILED)])
    tf.profiler.experimental.stop()
    space = xplane_pb2.XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    pieces = []
    for plane in space.planes:
        names = {number: data.name for number, data in plane.event_metadata.items()}
        for line in plane.lines:
            events = []
            for event in line.events:
                scope, mark, operation = names[event.metadata_id].rpartition(":")
                if (
                    mark and " " not in scope + operation and ":" not in scope
                ):  # an operation, not a part of the runtime
                    begin = line.timestamp_ns / 1e9 + event.offset_ps / 1e12
                    events.append(Piece(begin, begin + event.duration_ps / 1e12, kind_of(scope, operation)))
            pieces += own_pieces(events)
    return pieces, wall


def _kinds(seconds: Mapping[str, float], wall: float) -> str:
    """The kinds by their share of `wall`: first the products and the LSTM's gates, then all others."""
    shares = {kind: time / wall for kind, time in seconds.items()}
    shares[NOTHING] = max(0.0, 1 - sum(shares.values()))
    within = [(kind, shares.pop(kind, 0.0)) for kind in (PRODUCTS, GATES)]
    small = sorted(kind for kind, share in shares.items() if share < SMALL and kind != NOTHING)
    named = sorted(((kind, share) for kind, share in shares.items() if kind not in small), key=lambda row: -row[1])
    rest = sum(shares[kind] for kind in small)
    rows = [*within, ("all else", sum(shares.values())), *((f"  {kind}", share) for kind, share in named)]
    rows.append((f"  {len(small)} kinds below {SMALL:.1%}", rest))
    heads = (f"operations of {PROFILED} steps", "ms per step", "share")
    cells = [(name, f"{1000 * share * wall / PROFILED:.0f}", f"{share:.1%}") for name, share in rows]
    goal = "goal for all else: under 25%; time with several concurrent operations is shared equally among them"
    return f"{aligned([heads, *cells])}\n{goal}\nbelow {SMALL:.1%}: {', '.join(small)}"
