"""Shared objects of all lines of `benchmarks.speed` at one setting: captioner, data in memory, images on disk."""

import dataclasses
import functools
import itertools
import pathlib
import shutil
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from benchmarks.lifelike import lifelike
from spidercap.models.baseline import Baseline
from spidercap.models.captioner import Captioner
from spidercap.models.precision import PRECISIONS
from spidercap.models.special_tokens import SPECIAL_TOKENS
from spidercap.models.transformer import LAYERS
from spidercap.pipeline.data.batches import Batch, TrainingArrays
from spidercap.pipeline.data.features import all_features, load_encoder
from spidercap.pipeline.data.prepare import prepare_data
from spidercap.pipeline.metrics.spice_fast.parser_file import load_parser
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training.rewards import ReferenceTexts, Reward, build_reward, reward_frequencies

ENCODER = "MobileNetV2"  # with random weights, which take equally long


@dataclasses.dataclass(frozen=True)
class Setting:
    """All sizes. The defaults are the centre, from which one size at a time is varied."""

    vocabulary: int = 9487  # V
    batch: int = 64  # B, images; of MLE captions
    length: int = 20  # T
    precision: str = "float32"
    jit: bool = False
    decoder: str = "lstm"
    parts: int = 49  # P, of an image, for decoders that attend
    units: int = 512  # H, and of the embedding
    features: int = 2048  # F
    images: int = 1000  # in memory
    side: int = 224  # input size of the encoder in pixels
    encoded: int = 32  # images per batch of the encoder
    drawn: int = 256  # images on disk

    def word_flops(self) -> int:
        """Returns the FLOPs of a word-step's products.

        `lstm`: `[1, 2H] x [2H, 4H]` and `[1, H] x [H, V]`. `attention` has a query, `[1, H] x [H, H]`, and its products
        with the keys and values of P parts, too. `transformer` has `[1, H] x [H, H]` of the embedded token, and in each
        layer 14 such products and those with P parts and T / 2 tokens, in place of the LSTM.
        """
        units, seen = self.units, 2 * self.parts
        before = {
            "lstm": 8 * units,
            "attention": 9 * units + seen,
            "transformer": units + LAYERS * (14 * units + seen + self.length),
        }
        return 2 * units * (before[self.decoder] + self.vocabulary)

    def image_flops(self) -> int:
        """Returns the FLOPs of the products that make the keys and values of an image's parts, once for all words."""
        per_part = {
            "lstm": 0,
            "attention": 2 * self.features,
            "transformer": self.features + LAYERS * 2 * self.units,
        }
        return 2 * self.units * self.parts * per_part[self.decoder]

    def learned_image_flops(self, words: float) -> float:
        """Returns the same with the gradients, which the parts themselves do not need, for an image of some words.

        `attention` may multiply its kernels with the words, whose gradients are needed, where that is less.
        """
        if self.decoder == "attention":
            return min(2 * self.image_flops(), 3 * words * self.image_flops() / self.parts)
        first = 2 * self.units * self.parts * self.features if self.decoder == "transformer" else 0
        return 3 * self.image_flops() - first

    def letters(self) -> dict[str, int | str]:
        """Returns what is shown with a result."""
        return {
            **{"B": self.batch, "T": self.length, "V": self.vocabulary, "H": self.units},
            "decoder": self.decoder,
        }


@dataclasses.dataclass(frozen=True)
class Images:
    """Synthetic images on disk."""

    count: int
    compute: Callable[[], np.ndarray]  # reads, decodes and encodes them


class World:
    """The objects from which lines are built."""

    def __init__(self, setting: Setting, folder: pathlib.Path):
        """`folder` is for synthetic images; the caller removes it."""
        keras.utils.set_random_seed(0)
        made = lifelike(
            *(setting.vocabulary, setting.units, setting.features, setting.images, setting.length),
            kind=setting.decoder,
            parts=setting.parts,
        )
        self.setting = setting
        self.captioner: Captioner = made.captioner
        self.captioner.precision, self.captioner.jit = PRECISIONS[setting.precision], setting.jit
        self.baseline = Baseline(setting.units, setting.units)
        self.references = made.references
        image_index = np.arange(setting.images, dtype=np.int32)
        self.arrays = TrainingArrays(made.features[:, None], made.captions, image_index, made.references)
        self.seed, self.level = tf.constant([1, 2]), tf.constant(0.0)
        chosen = np.arange(setting.batch) % setting.images
        index = tf.constant(image_index[chosen])
        self.captions = Batch(tf.constant(made.features[chosen]), index, tf.constant(made.captions[chosen]))
        self.images = self.captions._replace(tokens=None)
        self._folder = folder

    @functools.cached_property
    def reward(self) -> Reward:
        """CIDEr-D."""
        return self.reward_of({"cider": 1.0})

    def reward_of(self, weights: Mapping[str, float]) -> Reward:
        """Returns the compiled reward of some metrics."""
        frequencies = reward_frequencies(self.references, self.setting.vocabulary, True)
        texts = self._texts() if "spice_fast" in weights else None
        return build_reward(weights, self.references, frequencies, True, texts)

    def _texts(self) -> ReferenceTexts:
        """The references, in words that SPICE-fast's parser knows as long as there are enough."""
        spare = (f"word{number}" for number in itertools.count())
        words = itertools.islice(
            itertools.chain(load_parser().words, spare), self.setting.vocabulary - len(SPECIAL_TOKENS)
        )
        vocabulary = Vocabulary((*SPECIAL_TOKENS, *words), ())
        return ReferenceTexts(vocabulary, [[vocabulary.decode(caption) for caption in of] for of in self.references])

    def encoder(self) -> keras.Model:
        """Returns the encoder, with random weights."""
        return load_encoder(self._config())

    def rendered_images(self) -> Images:
        """Renders synthetic images."""
        config, encoder = self._config(), self.encoder()
        splits = prepare_data(config, wanted=["train"])

        def compute() -> np.ndarray:
            shutil.rmtree(config.cache_path() / "features", ignore_errors=True)
            return all_features(config, splits, encoder, {"train": 1})["train"].view()[:]

        return Images(self.setting.drawn, compute)

    def _config(self) -> Config:
        return Config.of(
            workdir=str(self._folder / "run"),
            cache_dir=str(self._folder / "cache"),
            encoder=ENCODER,
            encoder_weights="random",
            image_size=self.setting.side,
            scenes_train=self.setting.drawn,
            scenes_val=1,
        )
