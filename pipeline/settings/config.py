"""All settings of a command, in groups."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.metrics.registry import parse_metrics, term_of, terms_without_java, with_mixes
from spidercap.pipeline.quiet_start import import_tensorflow
from spidercap.pipeline.settings.compare_settings import CompareSettings
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.settings.decoding_settings import DecodingSettings
from spidercap.pipeline.settings.fields import stage_values
from spidercap.pipeline.settings.finetuning import check_finetuning
from spidercap.pipeline.settings.groups import MetricSettings, ModelSettings, RunSettings
from spidercap.pipeline.settings.modes import MODES, WITHOUT_RUN
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.settings.training_groups import (
    LikelihoodSettings,
    MixerSettings,
    RewardSettings,
    RolloutSettings,
    TrainingSettings,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The groups of settings; `of` takes settings by name, without their group."""

    run: RunSettings = dataclasses.field(default_factory=RunSettings)
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    likelihood: LikelihoodSettings = dataclasses.field(default_factory=LikelihoodSettings)
    rewards: RewardSettings = dataclasses.field(default_factory=RewardSettings)
    rollouts: RolloutSettings = dataclasses.field(default_factory=RolloutSettings)
    mixer: MixerSettings = dataclasses.field(default_factory=MixerSettings)
    decoding: DecodingSettings = dataclasses.field(default_factory=DecodingSettings)
    metrics: MetricSettings = dataclasses.field(default_factory=MetricSettings)
    compare: CompareSettings = dataclasses.field(default_factory=CompareSettings)

    @classmethod
    def of(cls, **values: Any) -> "Config":
        """Returns the settings with these values; the others have their defaults.

        Raises:
          UserError: a value or a combination of values is not allowed.
          TypeError: a name is not a setting.
        """
        unknown = values.keys() - fields().keys()
        if unknown:
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls(
            **{
                group: kind(**{f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values})
                for group, kind in groups().items()
            }
        )

    def __post_init__(self):
        _check_stages(self)
        self.terms()
        if self.run.mode in ("prepare", "train"):
            self.data.check_flags()
        self._check_formats()
        check_finetuning(self.run.mode, self.data, self.model, self.training)
        if self.run.mode == "score" and not (self.metrics.references and self.metrics.results):
            raise UserError(
                "--mode=score needs --references and --results: files of the references and of the captions to score"
            )
        if self.run.mode == "caption" and not (self.data.images or self.data.features):
            raise UserError(
                "--mode=caption needs --images: image files or folders, separated by commas; or --features, if the run "
                "was trained on features"
            )
        if self.run.mode not in WITHOUT_RUN:
            self._check_model()

    def _check_formats(self) -> None:
        """Checks the formats of exported models, before anything long is begun."""
        if self.run.portable_formats() and self.data.features:
            raise UserError(
                f"--export_format={self.run.export_format} is from pixels to captions, and a run on --features has no "
                "encoder for pixels; leave it out"
            )

    def _check_model(self) -> None:
        """Checks the decoder and the encoder, and sets the size of images."""
        # TensorFlow takes seconds. Mistakes in other flags are reported before.
        import_tensorflow()
        from spidercap.models.decoder import DECODERS
        from spidercap.models.encoder import default_image_size, encoder_names

        check_choice("decode", self.decoding.decode, DECODERS)
        check_choice("encoder", self.model.encoder, encoder_names())
        if not self.model.image_size:
            size = default_image_size(self.model.encoder)
            object.__setattr__(self, "model", dataclasses.replace(self.model, image_size=size))

    def with_values(self, **values: Any) -> "Config":
        """Returns a copy of the settings with these values replaced."""
        return Config.of(**self.flat() | values)

    def flat(self) -> dict[str, Any]:
        """Returns all settings by name."""
        return {name: value for group in groups() for name, value in vars(getattr(self, group)).items()}

    def of_stage(self, name: str, stage: str) -> Any:
        """Returns the value of the setting `name` in a stage of STAGES; a setting without stages has one value.

        The `learning_rate` of stages.ENCODER is that of its tuned layers.
        """
        field, value = fields()[name], self.flat()[name]
        if field.metadata["pairs"]:
            given, beside = dict(self.training.pairs(name)), field.metadata["beside"]
            return given.get(stage, beside[stage] if stage in beside else getattr(STAGES[stage], name))
        if not field.metadata["by_stage"]:
            return value
        values = self.stage_values(name)
        return values.get(stage, values.get("", stage_values(field, field.default)[""]))

    def stage_values(self, name: str) -> dict[str, float]:
        """Returns the numbers of a by-stage setting by stage; the one of '' is for all stages that are not named."""
        return stage_values(fields()[name], self.flat()[name])

    def reward_weights(self) -> dict[str, float]:
        """Returns the weight of each single metric, and of each of the user's functions, in the reward."""
        return self.rewards.weights()

    def terms(self) -> tuple[str, ...]:
        """Returns the metrics to report, in the order of the table of metrics."""
        if self.run.mode == "score":
            return parse_metrics(self.metrics.metrics or "all")
        asked = parse_metrics(self.metrics.metrics) if self.metrics.metrics else ()
        return with_mixes([*terms_without_java(), *asked, *self.reward_weights(), term_of(self.training.best_metric)])

    def workdir_path(self) -> pathlib.Path:
        """Returns the run's folder."""
        return pathlib.Path(self.run.workdir)

    def cache_path(self) -> pathlib.Path:
        """Returns the folder of prepared data; by default the runs of one parent folder share it."""
        return pathlib.Path(self.data.cache_dir) if self.data.cache_dir else self.workdir_path().parent / "cache"

    def export_path(self) -> pathlib.Path:
        """Returns the folder of exported models, one numbered subfolder per model."""
        return pathlib.Path(self.run.export_dir) if self.run.export_dir else self.workdir_path() / "export"

    def captioning_path(self) -> pathlib.Path:
        """Returns the folder of a model that only --mode=caption uses, with other settings than the exported ones."""
        return self.workdir_path() / "captioning"

    def fixed(self) -> dict[str, Any]:
        """Returns the settings that may not change in a workdir.

        In training these include the decoding settings, because validations are compared with each other.
        """
        values = self.flat()
        fixed = {name: values[name] for name, field in fields().items() if field.metadata["fixed"]}
        return fixed | (dataclasses.asdict(self.decoding) if self.run.mode == "train" else {})

    def to_json(self) -> str:
        """Returns all settings but the mode, for `<workdir>/config.json`."""
        return json.dumps({name: value for name, value in self.flat().items() if name != "mode"}, indent=2) + "\n"

    def without_effect(self) -> list[str]:
        """Returns a line for each changed setting that neither a stage nor the decoder reads."""
        return [*_unread_by_stages(self), *self.decoding.without_effect()]


def groups() -> dict[str, type]:
    """Returns the groups by name."""
    return {field.name: field.type for field in dataclasses.fields(Config)}


def fields() -> dict[str, dataclasses.Field]:
    """Returns the settings by name; their metadata are the arguments of `setting`."""
    return {field.name: field for group in groups().values() for field in dataclasses.fields(group)}


def readers(field: dataclasses.Field) -> tuple[str, ...]:
    """Returns the modes that read a setting."""
    return tuple(field.metadata["modes"]) or tuple(mode for mode in MODES if mode not in WITHOUT_RUN)


def stage_labels(config: Config) -> list[str]:
    """Returns a name for each stage: 'mle', 'pg', and 'pg-2' for the second 'pg'."""
    names = [stage.name for stage in config.training.parsed_stages()]
    earlier = [names[:i].count(name) for i, name in enumerate(names)]
    return [name if not count else f"{name}-{count + 1}" for name, count in zip(names, earlier, strict=True)]


def _check_stages(config: Config) -> None:
    """Raises UserError for stages that cannot work with these settings."""
    for name in dict.fromkeys(stage.name for stage in config.training.parsed_stages()):
        kind = STAGES[name]
        samples = config.of_stage("samples", name)
        if samples < kind.least_samples:
            raise UserError(
                f"--samples={config.rewards.samples} leaves no other sample to compare with; "
                f"--stages={config.training.stages} needs --samples=2 or more (5 is usual)"
            )
        if "rollouts" not in kind.settings:
            continue
        rollouts = config.of_stage("rollouts", name)
        if rollouts < kind.least_rollouts:
            raise UserError(
                f"--rollouts={config.rollouts.rollouts} draws no word to compare with in the stage {name}; add "
                f"--rollouts={kind.least_rollouts} or more (3 is usual)"
            )
        if "rollout_policy" not in kind.settings:
            continue
        if config.rollouts.rollout_policy == "greedy" and rollouts != 1:
            raise UserError(
                f"--rollout_policy=greedy gives the same rollout each time, so --rollouts={rollouts} is not allowed; "
                "add --rollouts=1, or leave out --rollout_policy"
            )
        if config.rollouts.share_rollouts and (samples == 1 or rollouts == 0):
            raise UserError(
                f"--share_rollouts shares nothing with --samples={samples} --rollouts={rollouts}; it needs 2 or more "
                "samples and 1 or more rollouts"
            )


def _unread_by_stages(config: Config) -> Iterator[str]:
    names, values = {stage.name for stage in config.training.parsed_stages()}, config.flat()
    for setting, field in fields().items():
        readers = [name for name, kind in STAGES.items() if setting in kind.reads]
        value = values[setting]
        if not readers or value == field.default:
            continue
        reading = names.intersection(readers)
        named = set(config.stage_values(setting)) - {""} if field.metadata["by_stage"] else set()
        if named - reading or not reading:
            of = f" of {', '.join(sorted(named - reading))}" if named else ""
            yield (
                f"--{setting}={value}{of} has no effect with --stages={config.training.stages}; "
                f"it is read by {', '.join(readers)}"
            )
