"""What the settings of --finetune_encoder need of others."""

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.settings.data_settings import DataSettings
from spidercap.pipeline.settings.groups import ModelSettings
from spidercap.pipeline.settings.stages import ENCODER
from spidercap.pipeline.settings.training_groups import TrainingSettings


def check_finetuning(mode: str, data: DataSettings, model: ModelSettings, training: TrainingSettings) -> None:
    """Raises UserError if there is no encoder to tune, or settings of its tuned layers are given without any."""
    if model.finetune_encoder:
        if data.features and mode in ("prepare", "train"):
            raise UserError(
                f"--finetune_encoder needs images: with --features={data.features} there is no encoder to train; "
                "give --images, or leave out --finetune_encoder"
            )
        return
    if model.finetune_from:
        raise UserError(
            f"--finetune_from={model.finetune_from} names the first layer of the encoder to train; add "
            "--finetune_encoder, or leave it out"
        )
    rates = dict(training.pairs("learning_rate"))
    if ENCODER in rates:
        raise UserError(
            f"--learning_rate={ENCODER}:{rates[ENCODER]:g} is the rate of the layers that --finetune_encoder trains; "
            "add it, or leave this rate out"
        )
