"""What to do about each warning. It depends on the settings, so that nothing is advised that is set already."""

from collections.abc import Iterable

from spidercap.pipeline.settings.config import Config
from spidercap.pipeline.settings.stages import STAGES
from spidercap.pipeline.training.progress import Progress, tied

OTHER_METRICS = ("BLEU-4", "ROUGE-L", "BLEU-1")  # for --best_metric: always reported, and not 0 for a single image
LONGER = "train longer by likelihood first"


def remedies(config: Config, name: str) -> dict[str, str]:
    """Returns what to do about each fault of the samples in the stage `name`, by the fault's kind."""
    kind, rewards = STAGES[name], config.rewards
    cider, end = "cider" in config.reward_weights(), rewards.end_token_in_reward
    slower = ["lower --learning_rate"] if kind.moves_policy else []
    raisable = "likelihood_weight" in kind.reads and rewards.likelihood_weight < 1
    gentler = [*slower, "raise --likelihood_weight" if raisable else LONGER]
    add_end = [] if end else ["add --end_token_in_reward"]
    add_cider = [] if cider else ["add CIDEr to --reward"]
    about_end = {
        (True, True): "",
        (True, False): "; with --end_token_in_reward, CIDEr rewards an end",
        (False, True): "; CIDEr in --reward rewards an end",
        (False, False): "; CIDEr in --reward with --end_token_in_reward rewards an end",
    }
    return {
        "entropy": _either(
            [*slower, "stop earlier"] if kind.moves_policy else ["raise --temperature", "stop likelihood earlier"]
        ),
        "length": _either([*add_end, *(f"{text}, which penalizes short ones" for text in add_cider)] or gentler),
        "repeated": _either([f"{text}, which does not reward repetition" for text in add_cider] or gentler),
        "distinct": _either([*slower, LONGER]),
        "constant": _either([LONGER, "choose another --reward"]),
        "endless": _either(["raise it", LONGER]) + about_end[cider, end],
    }


def selection_notes(config: Config, label: str, progress: Progress, images: int) -> dict[str, str]:
    """Returns a warning, by its kind, if --best_metric cannot select a checkpoint of the stage so far.

    `images` is the number of validation images. One validation is enough to know it for CIDEr of one image, which is 0
    because the logarithms of its document frequencies are. Equal scores above 0 say nothing of the metric while the
    captions are the same, as in a short stage at a low learning rate; then all metrics are equal.
    """
    metric = config.training.best_metric
    values = progress.validations(label, metric)
    single = metric == "CIDEr" and images == 1
    others = [other for other in OTHER_METRICS if other != metric]
    telling = [other for other in others if not tied(progress.validations(label, other))]
    if len(values) < (1 if single else 2) or not tied(values) or not (telling or tied([*values, 0.0])):
        return {}
    why = (
        "CIDEr of a single image is always 0" if single else f"{metric} was {values[-1]:.4f} in all validations so far"
    )
    # --val_images is the number asked for: there may be fewer images.
    more = "raise --val_images" if images == config.training.val_images else "give more validation images"
    patience = ", and --patience counts nothing" if config.training.patience else ""
    return {
        "best metric": f"{why}, so it cannot select a checkpoint: the latest weights are kept{patience}; "
        f"choose --best_metric={[*telling, *others][0]}, or {more}"
    }


def _either(remedies: Iterable[str]) -> str:
    return ", or ".join(remedies)
