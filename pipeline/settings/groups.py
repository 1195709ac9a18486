"""Settings of the command itself, model and metrics.

Field, flag and function argument share one name.
"""

import dataclasses
from typing import Any

from spidercap.export.formats import PORTABLE, SAVED_MODEL, spelled_formats
from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.metrics.registry import parse_metrics, spelled_list
from spidercap.pipeline.settings.fields import Group, setting
from spidercap.pipeline.settings.modes import ALL, DATA, EXPORTING, MODES, SCORING, TRAINING, WITHOUT_WORKDIR


@dataclasses.dataclass(frozen=True)
class RunSettings(Group):
    """What to do, and where."""

    mode: str = setting("train", "What to do.", fixed=False, modes=ALL, choices=MODES)
    workdir: str = setting(
        "",
        "Folder of the run: settings, checkpoints, logs, results. mode=evaluate, caption: several, separated by "
        "commas, decode with the mean of their probabilities.",
        fixed=False,
        modes=tuple(mode for mode in MODES if mode not in WITHOUT_WORKDIR),
    )
    seed: int = setting(0, "Seed of all that is random in training: weights, order, dropout, samples.", least=0)
    log_every: int = setting(20, "Steps between two log lines.", fixed=False, modes=TRAINING)
    checkpoint_every: float = setting(5.0, "Minutes between two checkpoints.", fixed=False, modes=TRAINING, least=0)
    split: str = setting(
        "",
        "mode=evaluate: split to score: train, val or test; default: val, and test if there is one. mode=compare: "
        "split to compare on; default: test if all runs were scored on it, else val.",
        fixed=False,
        modes=("evaluate", "compare"),
        choices=("", "train", "val", "test"),
        added=True,
    )
    export_dir: str = setting("", "Folder of exported models; default: <workdir>/export.", fixed=False, modes=EXPORTING)
    host: str = setting(
        "127.0.0.1",
        "mode=demo: address of the page; 0.0.0.0 lets other machines see it.",
        fixed=False,
        modes=("demo",),
        added=True,
    )
    port: int = setting(7860, "mode=demo: port of the page.", fixed=False, modes=("demo",), added=True, most=65535)
    export_format: str = setting(
        SAVED_MODEL,
        f"Formats of exported models, separated by commas: saved_model, which is always written, "
        f"{', '.join(PORTABLE)}; see docs/portable.md.",
        fixed=False,
        modes=(*TRAINING, "export"),
        added=True,
        spelling=spelled_formats,
    )
    json: bool = setting(
        False,
        "mode=status, compare: print one JSON object instead of text.",
        fixed=False,
        modes=("status", "compare"),
        added=True,
    )

    def check(self) -> None:
        """Raises UserError for an unknown format."""
        for name in self.export_format.split(","):
            check_choice("export_format", name, (SAVED_MODEL, *PORTABLE))

    def portable_formats(self) -> list[str]:
        """Returns the formats besides the SavedModel, if this command exports at all.

        Raises:
          UserError: packages that write a format are not installed.
        """
        if self.mode not in ("train", "export"):
            return []
        names = self.export_format.split(",")[1:]
        for name in names:
            missing = PORTABLE[name].missing()
            if missing:
                raise UserError(
                    f"--export_format={name} needs packages that are not installed ({', '.join(missing)}); run "
                    f"pip install '.[{name}]' in a checkout, or leave out {name}"
                )
        return names


@dataclasses.dataclass(frozen=True)
class ModelSettings(Group):
    """Encoder, decoder and learned baseline."""

    encoder: str = setting("InceptionV3", "Network of keras.applications, such as EfficientNetB0.")
    encoder_weights: str = setting("imagenet", "imagenet (downloaded), random, or a .weights.h5 file.")
    image_size: int = setting(0, "Side of the encoder's input in pixels; 0: the network's own.", least=0, most=4096)
    finetune_encoder: bool = setting(
        False,
        "Train the encoder, too, in all stages that train the captioner; its batch normalisation stays as it is. "
        "--learning_rate=encoder:RATE is its rate, --views gives crops and mirror images.",
        added=True,
    )
    finetune_from: str = setting(
        "",
        "First layer of the encoder that --finetune_encoder trains, such as block_13_expand of MobileNetV2; those "
        "before it run once per image and view. Default: all layers are trained, from the pixels.",
        added=True,
    )
    decoder: str = setting(
        "lstm",
        "Network that says the words. lstm: an LSTM that starts from the image's mean features. attention: it also "
        "attends to the cells of the encoder's last map, or to regions [P, F] of --features, before each word. "
        "transformer: two layers that attend to these and to the words before.",
        added=True,
        choices=("lstm", "attention", "transformer"),
    )
    units: int = setting(512, "Hidden units (H).", most=2**16)
    embedding_size: int = setting(512, "Size of the word embeddings.", most=2**16)
    baseline_units: int = setting(512, "Hidden units of the baseline MLP.", most=2**16)
    feature_dropout: float = setting(
        0.0, "Dropout rate of the image features in training, in all stages.", least=0, most=0.99
    )
    precision: str = setting(
        "float32",
        "Precision of the decoder's matrix products in training and validation; softmax, losses and rewards stay "
        "float32.",
        added=True,
        choices=("float32", "bfloat16"),
    )
    jit: bool = setting(False, "Compile the steps over the vocabulary with XLA; see BUILD.md.", fixed=False, modes=DATA)


@dataclasses.dataclass(frozen=True)
class MetricSettings(Group):
    """Metrics to report, and their resources."""

    metrics: str = setting(
        "",
        "Metrics to report: all, or names separated by commas (bleu, meteor, rouge, cider, spice, bcmr, spider; "
        "the approximations spice_fast and spider_fast only by name). Default: all in mode=score; in other modes "
        "those without Java, and those of reward and best_metric.",
        fixed=False,
        spelling=spelled_list,
        modes=SCORING,
    )
    references: str = setting(
        "",
        "mode=score, compare: file with the references: COCO captions, Karpathy's splits, other JSON, JSON lines, or a "
        "table such as CSV; docs/data.md has all formats.",
        fixed=False,
        modes=("score", "compare"),
    )
    results: str = setting(
        "",
        "mode=score: file with one caption for each image to score: COCO results, or another format as above.",
        fixed=False,
        modes=("score",),
    )
    output: str = setting(
        "",
        "mode=score: JSON file for corpus and per-image scores; mode=caption: COCO results file for the captions; "
        "mode=compare: HTML file for the page; mode=evaluate of several runs: folder for their results, by default in "
        "'ensembles' beside the first run.",
        fixed=False,
        modes=("score", "caption", "compare", "evaluate"),
    )
    metric_workers: int = setting(
        2,
        "Java processes for METEOR and for SPICE; 1.1 GB each for METEOR, 1.5 to 3 GB for SPICE.",
        fixed=False,
        modes=SCORING,
        most=256,
    )
    metric_timeout: float = setting(
        60.0,
        "Seconds that a Java process may take for one caption; SPICE gets more for captions of over 60 words.",
        fixed=False,
        modes=SCORING,
    )
    metric_cache_dir: str = setting(
        "",
        "Folder for CoreNLP (385 MB) and SPICE's parsed captions; default: $SPIDERCAP_METRIC_CACHE, else "
        "spidercap in the user's cache folder.",
        fixed=False,
        modes=SCORING,
    )
    corenlp: str = setting(
        "", "Folder with the two jars of CoreNLP 3.6.0; default: they are downloaded.", fixed=False, modes=SCORING
    )

    def check(self) -> None:
        """Raises UserError for unknown metrics."""
        if self.metrics:
            parse_metrics(self.metrics)

    def for_workers(self) -> dict[str, Any]:
        """Returns the settings of the Java metrics."""
        names = ("metric_workers", "metric_timeout", "metric_cache_dir", "corenlp")
        return {name: getattr(self, name) for name in names}
