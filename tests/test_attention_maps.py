"""Where a captioner looks, from the encoder's map to the report page: the right cell of the right word."""

import base64
import re

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.attention import AttentionCaptioner
from spidercap.models.encoder import build_encoder
from spidercap.models.transformer import TransformerCaptioner
from spidercap.pipeline import main, modes
from spidercap.pipeline.evaluation.attention_maps import attention_maps, grid_side
from spidercap.pipeline.report.attention_maps import WordMaps, heat, map_list, strongest
from spidercap.pipeline.report.cards import GalleryItem
from spidercap.pipeline.report.page import StageResult, write_report
from spidercap.pipeline.text.vocabulary import Vocabulary
from tests.conftest import ROOT
from tests.test_report import HOSTILE, JPEG, Parsed

VOCABULARY = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "a", "dog", "runs"), ("rare",))
CORNERS = {"upper left": (0, 0), "upper right": (0, -1), "lower left": (-1, 0), "lower right": (-1, -1)}


def bright_seeker(kind, features):
    """A captioner whose every word looks at the cells with the largest first feature."""
    units = 2
    captioner = kind(len(VOCABULARY.words), features, units, 3, 0.0)
    first = np.zeros((features, units), np.float32)
    first[0] = 1
    if kind is TransformerCaptioner:
        captioner.part.kernel.assign(first)
        for block in captioner.blocks:
            block.query.kernel.assign(tf.zeros([units, units]))
            block.query.bias.assign([50.0, 50.0])
            block.parts.kernel.assign(np.eye(units, 2 * units))
        return captioner
    cell = captioner.lstm.cell
    for weight in (cell.kernel, cell.recurrent_kernel):
        weight.assign(tf.zeros_like(weight))
    cell.bias.assign(tf.fill(cell.bias.shape, 5.0))  # open gates: the hidden state is positive, whatever is read
    captioner.query.kernel.assign(50 * np.eye(units))
    captioner.key.kernel.assign(first)
    return captioner


def pixels_of(maps):
    """The PNGs of a list of maps, `[W, R, R, 4]`."""
    sources = Parsed(maps).attributes("img", "src")
    return np.stack([tf.io.decode_png(base64.b64decode(uri.partition(",")[2])).numpy() for uri in sources])


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("VGG16", "random", 96, grid=True)


@pytest.mark.parametrize("kind", [AttentionCaptioner, TransformerCaptioner])
@pytest.mark.parametrize("corner", CORNERS)
def test_what_is_bright_in_a_corner_lights_that_corner_of_the_page(encoder, kind, corner):
    image = np.zeros((1, 96, 96, 3), np.float32)
    across = {0: slice(0, 32), -1: slice(64, 96)}
    row, column = CORNERS[corner]
    image[0, across[row], across[column]] = 255
    # What the bright corner changes, as one feature: weights of the encoder are random.
    change = np.abs(encoder(image) - encoder(np.zeros_like(image))).sum(axis=2, keepdims=True)
    captioner = bright_seeker(kind, 1)
    (weights,) = attention_maps(captioner, VOCABULARY, ["a dog runs"], change / change.max())
    assert weights.shape == (3, 3, 3)
    for of_word in weights:
        assert of_word[row, column] == of_word.max() > 0.5
    maps = map_list(WordMaps("pg", JPEG, 1.0, ["a", "dog", "runs"], weights))
    assert all(corner in text for text in Parsed(maps).attributes("img", "alt"))
    for red in pixels_of(maps)[..., 0]:
        assert red[row, column] == red.max() and (red == red.max()).sum() == 1


def test_maps_of_captions_of_several_lengths():
    captioner = bright_seeker(AttentionCaptioner, 3)
    features = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    features[1, 2] = 0
    found = attention_maps(captioner, VOCABULARY, ["a dog", "", "a dog runs"], features)
    assert [one.shape for one in found] == [(2, 2, 2), (0, 2, 2), (3, 2, 2)]
    for one in found:
        np.testing.assert_allclose(one.sum(axis=(1, 2)), 1, atol=1e-6)
    (alone,) = attention_maps(captioner, VOCABULARY, ["a dog"], features[:1])
    np.testing.assert_allclose(alone, found[0], atol=1e-6)
    assert attention_maps(captioner, VOCABULARY, ["a dog"], features[1:2])[0][:, 1, 0].max() == 0
    with pytest.raises(ValueError, match="3 parts are no grid"):
        attention_maps(captioner, VOCABULARY, ["a"], features[:1, :3])


def test_a_map_is_a_png_of_one_pixel_a_cell():
    weights = np.random.default_rng(0).random((5, 5))
    pixels = tf.io.decode_png(heat(weights, weights.max())).numpy()
    assert pixels.shape == (5, 5, 4) and len(heat(weights, 1.0)) < 250
    order = np.argsort(weights, axis=None)
    assert (np.diff(pixels[..., 0].ravel()[order].astype(int)) >= 0).all()
    assert pixels[..., 0].max() == 255 and heat(weights, 2 * weights.max()) != heat(weights, weights.max())


def test_sides_of_grids():
    assert [grid_side(parts) for parts in (0, 1, 4, 12, 49, 50, 64)] == [0, 0, 2, 0, 7, 0, 8]


@pytest.mark.parametrize(
    "weights, where",
    [
        (np.eye(7)[[0]].T @ np.eye(7)[[6]], "upper right 100%"),
        (np.eye(7)[[3]].T @ np.eye(7)[[0]], "left 100%"),
        (np.eye(7)[[3]].T @ np.eye(7)[[3]], "centre 100%"),
        (np.eye(2)[[1]].T @ np.eye(2)[[0]], "lower left 44%"),  # of a cell of a quarter, the ninth
        (np.full((7, 7), 1 / 49) + 0.001 * np.eye(7)[[6]].T @ np.eye(7)[[3]], "all parts alike"),
        (np.full((7, 7), 1 / 49) + 0.05 * np.eye(7)[[6]].T @ np.eye(7)[[3]], "bottom 16%"),
    ],
)
def test_the_part_that_is_named(weights, where):
    assert strongest(weights) == where


def page_of(tmp_path, maps):
    item = GalleryItem(JPEG, 1, "1.jpg", ["reference"], {"mle": "a dog"}, {"mle": 0.5}, maps)
    fields = {"title": "t", "settings": {}, "metric": "CIDEr", "curves": [], "best": [item], "worst": []}
    path = tmp_path / "report.html"
    write_report(path, stages=[StageResult("mle", {}, 1, 1.0)], maps_hint="The maps show.", **fields)
    return path.read_text()


def test_a_card_with_maps(tmp_path):
    maps = WordMaps("mle", JPEG, 1.5, ["a", HOSTILE], np.full((2, 7, 7), 1 / 49))
    text = page_of(tmp_path, maps)
    page = Parsed(text)
    assert page.texts("span")[-2:] == ["a", HOSTILE] and "script" not in {tag for tag, _, _ in page.elements}
    assert page.attributes("img", "alt")[1:] == ["looked at: all parts alike"] * 2
    assert "--ratio:1.500" in page.attributes("ol", "style")[0] and page.texts("div", "maps")
    assert any(hint.endswith("The maps show.") for hint in page.texts("p", "hint"))
    assert not re.search(r"https?:|//\w|@import|<script|<link|\shref=", re.sub('base64,[^")]*', "", text))
    assert all(uri.startswith("data:") for uri in re.findall(r"url\((.*?)\)", text))
    # Even attention looks even, and neither lowest, 20, nor highest, 255.
    red = pixels_of(text[text.index("<ol") : text.index("</ol>") + 5])[..., 0]
    assert (red == 140).all()


def test_a_page_without_maps_has_nothing_of_them(tmp_path):
    assert "maps" not in page_of(tmp_path, None)


@pytest.mark.parametrize("decoder", ["attention", "transformer"])
@pytest.mark.long
def test_the_page_of_a_run(decoder, tmp_path, monkeypatch, capsys):
    for name in ("export_once", "run_caption"):
        monkeypatch.setattr(modes, name, lambda *_: None)
    flags = ["main", f"--workdir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}", "--metrics=cider"]
    tiny = [f"--flagfile={ROOT / 'tests' / 'tiny.flags'}", "--scenes_train=16", "--scenes_test=6", "--stages=mle:1"]
    assert main.main([*flags, *tiny, f"--decoder={decoder}"]) == 0, capsys.readouterr().err
    path = tmp_path / "run" / "report.html"
    for _ in range(2):
        page = path.read_text()
        cards = page.split("<article")[1:]
        assert len(cards) == 6
        for card in cards:
            caption = re.search("<dd>(.*?)</dd>", card)[1]
            said = [] if "(empty)" in caption else caption.split(" ")
            assert re.findall('<li><span>(.*?)</span><div><img alt="looked at: ', card) == said
        assert ("mean over all heads and layers" in page) == (decoder == "transformer")
        path.unlink()
        assert main.main([*flags[:3], "--mode=evaluate"]) == 0, capsys.readouterr().err
