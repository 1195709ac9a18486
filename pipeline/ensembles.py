"""Finished runs that decode together: what has to be the same in all of them, and their models."""

import dataclasses
from collections.abc import Sequence

from spidercap.export.ensemble_signatures import Member, ensemble_signatures
from spidercap.models.ensemble import Ensemble
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import decoder_of
from spidercap.pipeline.evaluation.served_captioner import ServedCaptioner
from spidercap.pipeline.portable_exports import load_exported
from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.text.vocabulary import Vocabulary
from spidercap.pipeline.training import identity, kept


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs that were found to fit together."""

    configs: tuple[Config, ...]  # the first one's decoder, data and metrics are those of all
    vocabulary: Vocabulary
    max_length: int  # of captions: the smallest of the runs'
    takes_features: bool

    @property
    def stages(self) -> list[str]:
        """The stage of each run whose weights are used: the last one that is finished."""
        return [kept.last_kept(config) for config in self.configs]


def check_runs(configs: Sequence[Config]) -> Runs:
    """Returns the runs, before anything is loaded.

    Raises:
      UserError: a run has not trained yet, some take features and others images, or their vocabularies differ.
    """
    for config in configs:
        identity.check_identity(config)
        identity.takes_features(config)  # which raises for a run that was never prepared
        kept.last_kept(config)
    first = configs[0]
    takes_features = identity.takes_features(first)
    vocabulary = identity.kept_vocabulary(first)
    for config in configs[1:]:
        if identity.takes_features(config) != takes_features:
            kinds = ("features", "images") if takes_features else ("images", "features")
            raise UserError(
                f"{first.run.workdir} was trained on {kinds[0]} and {config.run.workdir} on {kinds[1]}; runs that "
                "decode together need the same"
            )
        if takes_features and identity.kept_feature_size(config) != identity.kept_feature_size(first):
            sizes = [f"{one.run.workdir}: {identity.kept_feature_size(one)}" for one in (first, config)]
            raise UserError(
                f"the features of the runs have different sizes ({', '.join(sizes)}); runs that decode together read "
                "the same --features"
            )
        _check_words(first, vocabulary.words, config, identity.kept_vocabulary(config).words)
    lengths = [config.data.max_length for config in configs]
    if len(set(lengths)) > 1:
        print(f"captions have at most {min(lengths)} tokens, the least --max_length of the runs", flush=True)
    return Runs(tuple(configs), vocabulary, min(lengths), takes_features)


def load_ensemble(runs: Runs) -> Ensemble:
    """Returns the runs' captioners as one, as evaluation decodes: with the precision of training."""
    captioners = []
    for config, stage in zip(runs.configs, runs.stages, strict=True):
        captioner, baseline = kept.build_models(config, runs.vocabulary, identity.kept_feature_size(config))
        kept.load_kept(config.workdir_path(), stage, captioner, baseline)
        captioners.append(captioner)
    return Ensemble(captioners)


def load_captioner(runs: Runs) -> ServedCaptioner:
    """Returns what captions images or features with all runs, as an exported model would: in float32."""
    first = runs.configs[0]
    encoders, members = {}, []
    for config in runs.configs:
        model = load_exported(config)
        encoder = encoders.setdefault(_encoder_key(config), model.encoder)  # the same one runs once
        members.append(Member(encoder, model.captioner))
    decoder = decoder_of(first, runs.vocabulary.words)
    limit = first.data.max_pixels
    signatures = ensemble_signatures(members, runs.vocabulary.words, runs.max_length, decoder, limit)
    return ServedCaptioner(signatures, limit)


def _encoder_key(config: Config) -> tuple:
    """Equal for runs whose encoders have equal outputs; one that was trained is a run's own."""
    weights = (config.workdir_path() / "encoder.txt").read_text(encoding="utf-8")
    imagenet = config.model.encoder_weights == "imagenet"  # with which some networks have other layers
    is_lstm = config.model.decoder == "lstm"
    own = config.run.workdir if config.model.finetune_encoder else None
    return config.model.encoder, config.model.image_size, weights, imagenet, is_lstm, own


def _check_words(one: Config, words: Sequence[str], other: Config, others: Sequence[str]) -> None:
    """Raises UserError if two vocabularies differ, with a difference."""
    if tuple(words) == tuple(others):
        return
    difference = _difference(one.run.workdir, words, other.run.workdir, others)
    raise UserError(
        f"{other.run.workdir} has another vocabulary than {one.run.workdir}: {difference} ({len(others):,} and "
        f"{len(words):,} tokens); runs that decode together need the same training captions and --min_word_count"
    )


def _difference(one: str, words: Sequence[str], other: str, others: Sequence[str]) -> str:
    known, theirs = set(words), set(others)
    for name, alone in ((one, [w for w in words if w not in theirs]), (other, [w for w in others if w not in known])):
        if alone:
            more = f" and {len(alone) - 1:,} more are" if len(alone) > 1 else " is"
            return f"{alone[0]!r}{more} in {name} alone"
    at = next(i for i, pair in enumerate(zip(words, others, strict=True)) if pair[0] != pair[1])
    return f"token {at} is {words[at]!r} in {one} and {others[at]!r} in {other}"
