"""The benchmark of speed: captions that end as trained ones do, what is counted as needed, every line, what is told."""

import dataclasses
import json
import math
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import Report, speed
from benchmarks.lifelike import MEAN, lifelike
from benchmarks.speed_lines import experience_of, lines, rolled_out
from benchmarks.speed_measure import Result, Yardstick, measure
from benchmarks.speed_picture import chart
from benchmarks.speed_profile import GATES, PRODUCTS, Piece, kind_of, own_pieces, profile, shared_time
from benchmarks.speed_table import GFLOPS, goals_table
from benchmarks.speed_work import beam_steps, rollout_steps, words_in
from benchmarks.speed_world import Setting, World
from spidercap.models import decoding

TINY = Setting(vocabulary=200, batch=4, units=16, features=8, images=60, side=32, encoded=2, drawn=2)
TWINS = ("beam 1", "beam 5", "beam 10", "PG step, K = 1", "PG step, K = 5")  # of lines that differ by a number only
LONG = ("encoder, from files", "PG step, K = 3, SPIDEr-fast", "SPICE-fast")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(TINY, tmp_path_factory.mktemp("drawn"))


def result(name, value, **settings):
    letters = Setting().letters() | {"matmul_gflops": GFLOPS, "process_mib": 900.0} | settings
    return Result(name, value, 0.9 * value, 1.1 * value, "images/s", 0.5, 10.0, letters)


class TestLifelike:
    def test_captions_end_as_trained_ones_do(self):
        made = lifelike(vocabulary_size=2000, units=256, features=8, images=600, max_length=20)
        features = tf.constant(made.features)

        def lengths(longest):
            @tf.function(autograph=False)
            def say():
                step, state = made.captioner.begin(features)
                return decoding.sample(step, state, longest, tf.constant([5, 6]))

            return decoding.lengths(say()).numpy()

        at_20, at_30 = lengths(20), lengths(30)
        assert at_20.mean() == pytest.approx(MEAN, abs=0.5) and 2 < at_20.std() < 4
        assert 0 < (at_20 == 20).mean() < 0.04 and at_20.min() > 2
        assert at_30.mean() == pytest.approx(MEAN, abs=0.7) and 20 < at_30.max() <= 30

    def test_references_are_as_long_as_what_is_said(self, world):
        for captions in (world.references.reshape(-1, TINY.length), world.arrays.tokens):
            lengths = (captions != 0).sum(axis=1)
            assert lengths.mean() == pytest.approx(MEAN, abs=1) and captions.max() < TINY.vocabulary
            assert ((captions == 2).sum(axis=1) == (lengths < TINY.length)).all()


class TestWork:
    def test_what_rollouts_need_is_counted_one_by_one(self, world):
        experience = experience_of(world, rolled_out(world, 2))
        words, prefix = experience.rollouts.tokens.numpy(), experience.rollouts.prefix.numpy()
        needed = sum(1 for row, (_, last) in zip(words, prefix, strict=True) for word in row[last + 2 :] if word != 0)
        assert rollout_steps(experience.rollouts) == needed > 0
        assert words_in(experience.tokens) == sum(word != 0 for row in experience.tokens.numpy() for word in row)

    def test_a_beam_needs_one_row_and_then_its_width_up_to_the_longest(self):
        words = tf.constant([[[5, 6, 7, 2], [5, 2, 0, 0]], [[2, 0, 0, 0], [4, 2, 0, 0]]])
        assert beam_steps(words) == (1 + 2 * 3) + (1 + 2 * 1)
        assert beam_steps(words[:, :1]) == 4 + 1  # greedy: every word said

    def test_share_is_of_the_products_of_the_words_needed(self, world):
        found = measure("greedy", lines()["greedy"], world, Yardstick(TINY), calls=1, seconds=0)
        told = found.settings
        words, _ = decoding.greedy(*world.captioner.begin(world.images.features), 20)
        assert told["word_steps"] == words_in(words)
        flops = told["word_steps"] * 2 * (16 * 200 + 32 * 64)  # [H] x [H, V] and [2H] x [2H, 4H]
        assert found.matmul_share == pytest.approx(flops / told["seconds"] / told["matmul_gflops"] / 1e9)
        assert found.value == pytest.approx(TINY.batch / told["seconds"])

    def test_share_counts_what_is_made_of_the_images_parts_once(self, tmp_path):
        world = World(dataclasses.replace(TINY, decoder="transformer", units=64), tmp_path)
        line = lines()
        found = measure("greedy", line["greedy"], world, Yardstick(TINY), calls=1, seconds=0)
        kernels = [world.captioner.part.kernel, *(block.parts.kernel for block in world.captioner.blocks)]
        once = TINY.batch * TINY.parts * sum(2 * math.prod(kernel.shape) for kernel in kernels)
        assert found.settings["image_gflop"] == pytest.approx(once / 1e9)
        flops = found.settings["word_steps"] * world.setting.word_flops() + once
        assert found.matmul_share == pytest.approx(
            flops / found.settings["seconds"] / found.settings["matmul_gflops"] / 1e9
        )
        # The first kernel's inputs, the features, need no gradient.
        learned = 3 * once - TINY.batch * TINY.parts * 2 * math.prod(kernels[0].shape)
        assert line["MLE step"].build(world).work().image_flops == pytest.approx(learned)
        for name in ("PG step, K = 1", "vine step, K = 1", "SCST step", "leave-one-out step, M = 5"):
            assert line[name].build(world).work().image_flops == pytest.approx(once + learned)

    @pytest.mark.parametrize("words, kernels", [(3.0, 3 * 3 / 49), (49.0, 2)])
    def test_attention_multiplies_the_fewer_of_words_and_parts(self, words, kernels):
        setting = dataclasses.replace(TINY, decoder="attention")
        once = 49 * 2 * 2 * 8 * 16  # keys and values of 49 parts, [8] x [8, 16]
        assert setting.image_flops() == once
        assert setting.learned_image_flops(words) == pytest.approx(kernels * once)
        assert TINY.image_flops() == TINY.learned_image_flops(words) == 0


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in lines() if name not in TWINS],
)
def test_every_line_runs_and_changes_nothing(world, name):
    before = [weight.numpy() for weight in world.captioner.weights + world.baseline.weights]
    found = measure(name, lines()[name], world, Yardstick(TINY), calls=1, seconds=0)
    assert found.name == name and math.isfinite(found.value) and 0 < found.low <= found.value <= found.high
    assert found.peak_mib is None or found.peak_mib >= 0
    says = not name.startswith(("BLEU", "ROUGE", "CIDEr", "SPICE", "encoder", "input"))
    assert (found.matmul_share is not None) == says and (not says or found.matmul_share > 0)
    for old, weight in zip(before, world.captioner.weights + world.baseline.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


class TestRun:
    def test_settings_are_measured_by_processes_of_their_own(self, tmp_path, monkeypatch, capsys):
        made = Setting(vocabulary=200, batch=2, length=6)
        monkeypatch.setattr(speed, "plan", lambda quick: [(made, ("greedy",))])
        assert speed.main(["--quick", f"--json={tmp_path / 'out.json'}", f"--picture={tmp_path / 'a.svg'}"]) == 0
        (row,) = json.loads((tmp_path / "out.json").read_text())
        names = {"name", "value", "low", "high", "unit", "matmul_share", "peak_mib", "settings"}
        assert set(row) == names and row["name"] == "greedy" and row["matmul_share"] > 0
        assert row["settings"].items() >= made.letters().items()
        ElementTree.parse(tmp_path / "a.svg")
        told = capsys.readouterr().out
        assert told.splitlines()[1].split()[:5] == ["greedy", "lstm", "2", "6", "200"] and "METEOR and SPICE" in told

    def test_a_process_that_fails_fails_the_run(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "executable", "false")
        assert speed.main(["--quick"]) == 1 and not capsys.readouterr().out

    def test_plan_goes_through_the_centre_and_one_axis_at_a_time(self):
        (centre, names), *others = speed.plan(quick=False)
        assert centre == Setting() and list(names) == list(lines())
        changed = [[k for k, v in s.letters().items() if v != centre.letters()[k]] for s, _ in others]
        assert sorted(map(str, changed)) == sorted(2 * ["['B']", "['B']", "['T']", "['V']", "['V']"])
        for (setting, alone), (same, names) in zip(others[::2], others[1::2], strict=True):
            assert setting == same and alone == [speed.STEP]
            assert sorted([*alone, *names]) == sorted(speed.MAIN)


class TestTold:
    def test_a_result_is_scaled_by_the_machines_rate(self):
        text = goals_table([result("greedy", 582.0, matmul_gflops=2 * GFLOPS), result("greedy", 1.0, B=16)])
        assert text.splitlines()[1].split() == ["greedy", "291", "images/s", "291", "1", "600"]
        assert goals_table([result("greedy", 1.0, B=16)]) == ""

    def test_picture_has_a_point_for_each_result_on_an_axis(self):
        rows = [result("greedy", 100.0 * b, B=b) for b in (16, 64, 256)]
        rows += [result("beam 1", 50.0), result("beam 10", 5.0), result("greedy", 1.0, B=16, V=2500)]
        root = ElementTree.fromstring(chart(rows))
        points = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(f"{SVG}circle")]
        # B: three; T and V: the centre alone; W: two; the legend: six.
        assert len(points) == 3 + 1 + 1 + 2 + 6
        (x1, y1), (x2, y2), (x3, y3) = points[:3]
        assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2) and y2 - y1 == pytest.approx(y3 - y2, abs=0.2) and y2 > y1
        ElementTree.fromstring(chart([]))


class TestProfile:
    def test_times_in_which_several_run_are_shared(self):
        pieces = [Piece(0.0, 4.0, "a"), Piece(1.0, 2.0, "b"), Piece(3.0, 6.0, "a"), Piece(8.0, 9.0, "c")]
        assert shared_time(pieces) == pytest.approx({"a": 5.5, "b": 0.5, "c": 1.0})

    def test_an_operation_inside_another_is_not_counted_twice(self):
        events = [Piece(0.0, 10.0, "call"), Piece(2.0, 5.0, "a"), Piece(3.0, 4.0, "b"), Piece(10.0, 11.0, "a")]
        own = own_pieces(events)
        assert shared_time(own) == pytest.approx({"call": 7.0, "a": 3.0, "b": 1.0})

    @pytest.mark.parametrize(
        ("scope", "operation", "kind"),
        [
            ("while/words_1/BiasAdd", "_MklNativeFusedMatMul", PRODUCTS),
            ("while/lstm_cell_1/Add", "AddV2", GATES),
            ("while/Tanh", "Tanh", GATES),
            ("while/add", "AddV2", "AddV2"),
            ("lstm_1/while/TensorListGetItem", "TensorListGetItem", "TensorListGetItem"),
        ],
    )
    def test_operations_are_known_by_kind_and_place(self, scope, operation, kind):
        assert kind_of(scope, operation) == kind

    def test_parts_and_kinds_of_a_step_are_told(self):
        parts, kinds = profile(TINY, Report()).split("\n\n")
        assert [line.split()[0] for line in parts.splitlines()[1:]] == [
            "sampling",
            "rollouts",
            "reward",
            "update",
            "step",
        ]
        shares = {line.split("  ")[0]: line.split()[-1] for line in kinds.splitlines()[1:4]}
        assert list(shares) == [PRODUCTS, GATES, "all else"]
        assert sum(float(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=0.3)
