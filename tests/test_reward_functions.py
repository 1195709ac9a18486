"""Rewards of the user's own: what they are given, what they may return, and what is refused at the door."""

import functools
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.special_tokens import END
from spidercap.pipeline import preparation
from spidercap.pipeline.errors import Interrupted, UserError
from spidercap.pipeline.main import main
from spidercap.pipeline.metrics.reward_functions import (
    call_reward_function,
    load_reward_functions,
    parse_reward_functions,
)
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.training.rewards import ReferenceTexts, build_reward, reward_frequencies
from tests.conftest import ROOT
from tests.tiny_runs import VOCABULARY, WORDS, assert_same_end, config_of, make_arrays, run

BREVITY = """
def brevity(captions, references, image_ids):
    return [-float(len(caption.split())) for caption in captions]


NUMBER = 3
"""


@pytest.fixture
def written(tmp_path):
    """Writes a file, my_rewards.py by default; returns its path."""

    def write(content, name="my_rewards.py"):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return write


def reward_of(arrays, weights, **own):
    """Returns a reward of tiny runs' captions; image ids begin at 100."""
    texts = [[VOCABULARY.decode(ids) for ids in of_image] for of_image in arrays.references]
    frequencies = reward_frequencies(arrays.references, WORDS + 1, True)
    texts = ReferenceTexts(VOCABULARY, texts, range(100, 100 + len(texts)))
    return build_reward(weights, arrays.references, frequencies, True, texts, own=own)


def shortness(captions, references, image_ids):
    return np.array([-len(caption.split()) for caption in captions])


@pytest.fixture(scope="module")
def arrays():
    return make_arrays()


CAPTIONS = tf.constant([[4, 5, END, 0, 0, 0], [6, END, 0, 0, 0, 0], [4, 5, END, 0, 0, 0], [4, 5, END, 0, 0, 0]])
IMAGES = tf.constant([3, 3, 3, 5])


class TestCalls:
    def test_it_is_given_each_caption_of_an_image_once(self, arrays):
        given = []

        def recorded(captions, references, image_ids):
            given.append((list(captions), references, list(image_ids)))
            captions.reverse()  # its lists are its own
            return range(len(image_ids))

        reward = reward_of(arrays, {"mine": 2.0, "cider": 1.0}, mine=recorded)
        assert not reward.is_compiled
        scores = reward.scores(CAPTIONS, IMAGES)
        ((captions, references, image_ids),) = given
        assert sorted(zip(captions, image_ids, strict=True)) == [("e f", 103), ("e f", 105), ("g", 103)]
        assert all(type(i) is int for i in image_ids)
        place = captions.index("g")
        assert references[place] == [VOCABULARY.decode(ids) for ids in arrays.references[3]]
        numbers = dict(zip(zip(captions, image_ids, strict=True), range(3), strict=True))
        asked = [("e f", 103), ("g", 103), ("e f", 103), ("e f", 105)]
        assert scores["mine"].numpy().tolist() == [numbers[caption] for caption in asked]
        np.testing.assert_allclose(reward.total(scores), 2 * scores["mine"] + scores["cider"], rtol=1e-6)

    @pytest.mark.parametrize("kind", [list, tuple, np.array, tf.constant, lambda n: np.array(n, np.float16)])
    def test_lists_arrays_and_tensors_are_taken(self, arrays, kind):
        reward = reward_of(arrays, {"mine": 1.0}, mine=lambda captions, *_: kind([2] * len(captions)))
        scores = reward.scores(CAPTIONS, IMAGES)
        assert list(scores) == ["mine"] and scores["mine"].dtype == tf.float32
        np.testing.assert_array_equal(reward.total(scores), [2] * 4)

    @pytest.mark.parametrize(
        ("result", "words"),
        [
            ([1.0, 2.0], "returned 2 numbers for 3 captions"),
            ([], "returned 0 numbers for 3 captions"),
            (None, "returned None"),
            (1.0, "returned 1.0"),
            (["1", "2", "3"], "returned ['1', '2', '3']"),
            ([1.0, None, 2.0], "returned [1.0, None, 2.0]"),
            ([[1.0], [2.0], [3.0]], "returned [[1.0], [2.0], [3.0]]"),
            ([[1.0], [2.0, 3.0], [3.0]], "did not return an array"),
            ([1j, 2j, 3j], "returned [1j, 2j, 3j]"),
            ([1.0, float("nan"), 2.0], "returned nan for the caption 'g' of image 103"),
            ([1.0, 2.0, float("-inf")], "returned -inf for the caption 'e f' of image 105"),
            ([1.0, 2.0, 1e300], "returned inf for the caption 'e f' of image 105"),
        ],
    )
    def test_anything_but_finite_numbers_is_named(self, arrays, result, words):
        with pytest.raises(UserError) as caught:
            reward_of(arrays, {"mine": 1.0}, mine=lambda *_: result).scores(CAPTIONS, IMAGES)
        message = str(caught.value)
        assert words in message and "the reward function mine" in message and __file__ in message
        assert "needed: " in message and "\n" not in message

    @pytest.mark.parametrize("error", [ValueError("two\nlines"), KeyError("x"), SystemExit(3), UserError("mine")])
    def test_what_it_raises_is_told_with_its_line(self, arrays, error):
        def failing(captions, references, image_ids):
            list(map(deeper, captions))

        def deeper(caption):
            raise error

        with pytest.raises(UserError) as caught:
            reward_of(arrays, {"mine": 1.0}, mine=functools.partial(failing)).scores(CAPTIONS, IMAGES)
        line = deeper.__code__.co_firstlineno + 1
        expected = f"{type(error).__name__}: {' '.join(str(error).split())}, line {line}; fix it"
        assert expected in str(caught.value) and f"{__file__}:" in str(caught.value)

    def test_ctrl_c_stays_what_it_is(self, arrays):
        def stopped(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            reward_of(arrays, {"mine": 1.0}, mine=stopped).scores(CAPTIONS, IMAGES)


class TestDoor:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("brevity", "'brevity' is not name=file.py:function"),
            ("brevity=my_rewards.py", "is not name=file.py:function"),
            ("brevity=my_rewards:brevity", "is not name=file.py:function"),
            ("my_rewards.py:brevity", "is not name=file.py:function"),
            ("=a.py:f", "'' cannot be a name"),
            ("two words=a.py:f", "'two words' cannot be a name"),
            ("a-b=a.py:f", "'a-b' cannot be a name"),
            ("1a=a.py:f", "'1a' cannot be a name"),
            ("cider=a.py:f", "cider is a metric"),
            ("CIDEr=a.py:f", "CIDEr is a metric"),
            ("bleu=a.py:f", "bleu is a metric"),
            ("x=a.py:f,x=b.py:f", "x comes twice"),
        ],
    )
    def test_forms_that_are_refused(self, text, words):
        with pytest.raises(UserError) as caught:
            Config.of(workdir="w", stages="mle:1", reward_functions=text)
        assert "--reward_functions" in str(caught.value) and words in str(caught.value)

    def test_names_that_do_not_meet(self):
        with pytest.raises(UserError, match=r"name your own function with --reward_functions=brevity=file.py:function"):
            Config.of(workdir="w", stages="mle:1", reward="cider:1,brevity:0.3")
        with pytest.raises(UserError, match="--reward=cider does not use x of --reward_functions; add x:1"):
            Config.of(workdir="w", stages="mle:1", reward="cider", reward_functions="x=a.py:f")
        with pytest.raises(UserError, match="did you mean brevity"):
            Config.of(workdir="w", stages="mle:1", reward="brevty", reward_functions="brevity=a.py:f")

    def test_what_is_taken(self):
        text = " a=folder=1/x.py:f , b=y.py:g"
        config = Config.of(workdir="w", stages="mle:1", reward="a:0.5,spider_fast,b", reward_functions=text)
        assert config.reward_weights() == {"a": 0.5, "spice_fast": 0.5, "cider": 0.5, "b": 1.0}
        assert not {"a", "b"} & set(config.terms())
        assert parse_reward_functions(text)["a"].path == "folder=1/x.py"
        assert parse_reward_functions("") == {}

    @pytest.mark.parametrize(
        ("content", "function", "words"),
        [
            (BREVITY, "brevitee", "'brevitee' does not exist in {path}; functions there: brevity"),
            (BREVITY, "NUMBER", "'NUMBER' is not a function in {path}; functions there: brevity"),
            (BREVITY, "", "'' does not exist"),
            ("", "f", "functions there: none"),
            ("def f(captions):\n    return []\n", "f", "f of {path} cannot be called (too many positional arguments)"),
            ("x = 1\nimport nowhere_to_be_found\n", "f", "ModuleNotFoundError: No module named"),
            ("x = 1\nraise ValueError('a\\nb')\n", "f", "{path} cannot be imported: ValueError: a b, line 2"),
            ("def f(:\n", "f", "{path} cannot be imported: SyntaxError: invalid syntax, line 1"),
            ("import sys\n\nsys.exit('bye')\n", "f", "{path} cannot be imported: SystemExit: bye, line 3"),
        ],
    )
    def test_files_that_are_refused(self, written, content, function, words):
        path, before = written(content), list(sys.path)
        with pytest.raises(UserError) as caught:
            load_reward_functions(f"mine={path}:{function}", {})
        assert words.format(path=path) in str(caught.value) and "\n" not in str(caught.value)
        assert sys.path == before

    def test_a_file_is_executed_once_and_hides_nothing(self, written):
        counts = "import collections\ncalls = 0\n\ndef add(*_):\n    global calls\n    calls += 1\n    return [calls]\n"
        helper = written("import json as real\n\nvalue = real.dumps(7)\n", "reward_helper.py")
        path = written(f"import reward_helper\nvalue = reward_helper.value\n{counts}", "json.py")
        before = list(sys.path)
        try:
            functions = load_reward_functions(f"a={path}:add,b={path}:add", {})
            again = load_reward_functions(f"a={path.parent / '.' / 'json.py'}:add", {})
        finally:
            sys.modules.pop("reward_helper", None)
        assert functions["a"] is functions["b"] is again["a"]
        assert functions["a"]([], [], []) == [1] and again["a"]([], [], []) == [2]
        assert sys.modules["json"] is json and sys.path == before and str(helper.parent) not in sys.path

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ("raise GeneratorExit()", "raised GeneratorExit"),
            ("raise Unprintable()", "raised Unprintable: a Unprintable that cannot be printed"),
            ("return Unprintable()", "returned a Unprintable that cannot be printed"),
            ("import numpy as np\n    return np.ma.masked_array([1.0], [True])", "some numbers may be masked"),
        ],
    )
    def test_what_functions_raise_or_return_is_named_whatever_it_is(self, written, body, words):
        unprintable = "class Unprintable(Exception):\n    def __str__(self):\n        return self.args[3]\n\n"
        path = written(f"{unprintable}    __repr__ = __str__\n\n\ndef f(c, r, i):\n    {body}\n")
        function = load_reward_functions(f"f={path}:f", {})["f"]
        with pytest.raises(UserError) as caught:
            call_reward_function("f", function, ["a"], [["a"]], [0])
        assert words in str(caught.value) and str(path) in str(caught.value)

    def test_files_that_hide_what_they_do(self, written):
        path = written("def __getattr__(name):\n    raise RuntimeError(name)\n")
        with pytest.raises(UserError, match="does not exist in"):
            load_reward_functions(f"f={path}:f", {})
        path = written("import sys\n\ndel sys.modules[__name__]\nraise ValueError('mine')\n", "other.py")
        with pytest.raises(UserError, match="ValueError: mine, line 4"):
            load_reward_functions(f"f={path}:f", {})
        with pytest.raises(UserError, match=r"nosuchuser/x.py"):
            load_reward_functions("f=~nosuchuser/x.py:f", {})

    def test_callable_objects(self, written):
        path = written(
            "class F:\n    def __call__(self, c, r, i):\n        return [1] * len(c)\n\n\nf = F()\n", "obj.py"
        )
        assert load_reward_functions(f"f={path}:f", {})["f"](["a"], [[]], [0]) == [1]

    def test_nothing_is_done_before(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(preparation, "load_encoder", lambda config: pytest.fail("work was done"))
        flags = ["--stages=mle:1,pg:1", "--reward=x", f"--reward_functions=x={tmp_path / 'none.py'}:f"]
        assert main(["main", f"--workdir={tmp_path / 'w'}", *flags]) == 1
        assert "none.py is not a file, so x cannot be loaded" in capsys.readouterr().err


class TestRuns:
    def test_captions_become_shorter(self, arrays, tmp_path):
        lengths = []

        def brevity(captions, references, image_ids):
            lengths.append(np.mean([len(caption.split()) for caption in captions]))
            return [-float(len(caption.split())) for caption in captions]

        settings = {"stages": "mle:3,leave_one_out:12", "learning_rate": "mle:1e-2,leave_one_out:3e-2", "samples": 4}
        run(config_of(tmp_path, **settings), arrays, reward=reward_of(arrays, {"brevity": 1.0}, brevity=brevity))
        assert np.mean(lengths[:4]) > 2.5 > 1.0 > np.mean(lengths[-4:])

    @pytest.mark.parametrize("stages", ["mle:1,baseline:1,pg:2", "mle:1,scst:2", "mixer:2"])
    def test_every_objective_takes_it(self, arrays, tmp_path, stages):
        calls = []
        reward = reward_of(
            arrays, {"cider": 1.0, "mine": 0.5}, mine=lambda c, *_: calls.append(len(c)) or [1.0] * len(c)
        )
        config = config_of(tmp_path, stages=stages, learning_rate="mle:1e-2", mixer_epochs=0.5)
        run(config, arrays, reward=reward)
        assert len(calls) >= 7 and min(calls) > 0

    def test_stopped_and_resumed_equals_uninterrupted(self, arrays, tmp_path):
        settings = {"stages": "leave_one_out:2", "learning_rate": "leave_one_out:1e-2", "samples": 2}
        whole, halves = (config_of(tmp_path / name, **settings) for name in ("whole", "halves"))
        weights = {"cider": 1.0, "mine": 0.1}
        expected = run(whole, arrays, reward=reward_of(arrays, weights, mine=shortness))
        with pytest.raises(Interrupted):
            run(halves, arrays, stop_at=2, reward=reward_of(arrays, weights, mine=shortness))
        assert_same_end(run(halves, arrays, reward=reward_of(arrays, weights, mine=shortness)), expected)

    @pytest.mark.long
    def test_from_the_command_line(self, written, tmp_path, capsys):
        """Ids are the data set's; a failure is one line; a mended file goes on where nothing was learned yet."""
        body = """
import pathlib

SEEN = pathlib.Path(__file__).parent / "seen.txt"


def brevity(captions, references, ids):
    SEEN.write_text(f"{min(ids)} {max(ids)} {references[0]}")
"""
        failing = written(f"{body}    return [float('nan') for _ in captions]\n", "failing.py")
        flags = ["--image_size=32", "--stages=leave_one_out:0.4", "--samples=2", "--reward=cider:1,brevity:0.3"]
        flags = ["main", f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", f"--workdir={tmp_path / 'run'}", *flags]
        assert main([*flags, f"--reward_functions=brevity={failing}:brevity"]) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("error: the reward function brevity") and "returned nan for the caption" in said
        mended = written(f"{body}    return [float('inf') for _ in captions]\n", "mended.py")
        assert main([*flags, f"--reward_functions=brevity={mended}:brevity"]) == 1
        told = capsys.readouterr()
        assert "goes on with other settings: reward_functions: " in told.out
        assert "returned inf for the caption" in told.err
        low, high, _ = (tmp_path / "seen.txt").read_text().split(" ", 2)
        assert 12 <= int(low) < int(high) < 12 + 40  # validation images come first
