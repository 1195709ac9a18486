"""The training step of the scene-graph parser: losses, Adam, averaged weights.

Shapes: N captions, T words, R relations.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from spidercap.pipeline.metrics.spice_fast.lexicon import word_ids
from spidercap.pipeline.metrics.spice_fast.parser import SceneGraphParser
from spidercap.pipeline.parser_training.examples import Examples
from spidercap.pipeline.training.optimizer import Adam

LOSSES = ("objects", "forms", "attributes", "relations", "names", "labels")
WARM_UP = 200  # steps
RARE = 0.25  # a word seen n times is replaced by the unknown word with probability RARE / (RARE + n)
AVERAGED = 1000  # approximate number of steps over which weights are averaged
CLIP_NORM = 5.0


class Learner(tf.Module):
    """Trains a parser's network on batches of one vocabulary."""

    def __init__(
        self,
        parser: SceneGraphParser,
        vocabulary: Sequence[str],
        counts: Mapping[str, int],
        learning_rate: float,
        steps: int,
    ):
        """Words of batches are indices into `vocabulary`; `counts` holds how often each word was seen."""
        super().__init__()
        self.network = parser.network
        ids, affixes = word_ids(vocabulary, parser.words, self.network.sizes.affixes)
        self._ids, self._affixes = tf.constant(ids), tf.constant(affixes)
        self._rare = tf.constant([RARE / (RARE + max(counts.get(word, 0), 1)) for word in vocabulary], tf.float32)
        self._learning_rate, self._steps = learning_rate, steps
        self.step = tf.Variable(0, dtype=tf.int64)
        self.optimizer = Adam(learning_rate=learning_rate, global_clipnorm=CLIP_NORM)
        self.optimizer.build(self.network.trainable_variables)
        self.averages = [tf.Variable(v, trainable=False) for v in self.network.trainable_variables]
        self._compiled = tf.function(self._train, autograph=False, reduce_retracing=False)

    def train(self, batch: Examples) -> dict[str, float]:
        """Takes one step; returns each loss, averaged over captions."""
        step = int(self.step)
        rate = self._learning_rate * min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / self._steps)) / 2
        self.optimizer.learning_rate.assign(rate)
        tensors = Examples(*(tf.constant(array) for array in batch))
        spec = Examples(*(tf.TensorSpec([None, *array.shape[1:]], array.dtype) for array in batch))
        losses = self._compiled.get_concrete_function(spec, tf.TensorSpec([], tf.int64))(tensors, self.step)
        self.step.assign_add(1)
        return dict(zip(LOSSES, losses.numpy().tolist(), strict=True))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block, the network has the averaged weights."""
        weights = [tf.identity(v) for v in self.network.trainable_variables]
        self.use_averages()
        yield
        for variable, value in zip(self.network.trainable_variables, weights, strict=True):
            variable.assign(value)

    def use_averages(self) -> None:
        """Gives the network the averaged weights."""
        for variable, average in zip(self.network.trainable_variables, self.averages, strict=True):
            variable.assign(average)

    def _train(self, batch: Examples, step: tf.Tensor) -> tf.Tensor:
        weights = self.network.trainable_variables
        seed = tf.stack([step, tf.constant(0, tf.int64)])
        with tf.GradientTape() as tape:
            losses = self._losses(batch, seed)
            loss = tf.add_n(losses)
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(
            [(tf.convert_to_tensor(gradient), weight) for gradient, weight in zip(gradients, weights, strict=True)]
        )
        done = tf.cast(step, tf.float32)
        keep = tf.minimum(1 - 1 / AVERAGED, done / (done + 20))
        for weight, average in zip(weights, self.averages, strict=True):
            average.assign(keep * average + (1 - keep) * weight)
        return tf.stack(losses)

    def _losses(self, batch: Examples, seed: tf.Tensor) -> list[tf.Tensor]:
        words, gates = self._gates(batch.words, seed)
        read = self.network.read(words, gates, seed)
        captions = tf.cast(tf.shape(words)[0], tf.float32)
        # Several forms of a word may give the right lemma, so their probabilities are summed.
        right = tf.reduce_logsumexp(tf.where(batch.forms, read.forms, -1e9), axis=2)
        forms = tf.where(read.there, tf.reduce_logsumexp(read.forms, axis=2) - right, 0.0)
        pairs, pointed, label = batch.named[:, :3], batch.named[:, 3], batch.named[:, 4]
        pointers, ends = self.network.relations(read, pairs)
        labels = self.network.label_logits(read, pairs, ends, pointed)
        sums = [
            _binary(read.objects, batch.objects),
            tf.reduce_sum(forms),
            _binary(read.attributes, batch.attributes),
            _binary(read.relations, batch.relations),
            tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(pointed, pointers)),
            tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(label, labels)),
        ]
        return [one / captions for one in sums]

    def _gates(self, words: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """The words as indices `[N, T]` into a table of gates of the words of this batch; 0 is padding."""
        distinct, place = tf.unique(tf.reshape(words, [-1]))
        unknown = tf.random.stateless_uniform(tf.shape(distinct), seed) < tf.gather(self._rare, distinct)
        ids = tf.where(unknown, 0, tf.gather(self._ids, distinct))
        forward, backward = self.network.word_gates(ids, tf.gather(self._affixes, distinct), seed)
        gates = tf.pad(forward, [[1, 0], [0, 0]]), tf.pad(backward, [[1, 0], [0, 0]])
        place = tf.reshape(place, tf.shape(words)) + 1
        return tf.ensure_shape(tf.where(words == 0, 0, place), words.shape), gates


def _binary(logits: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Summed cross entropy of targets 1 and 0, without OPEN ones."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(truth > 0, tf.float32), logits=logits)
    return tf.reduce_sum(tf.where(truth >= 0, losses, 0.0))
