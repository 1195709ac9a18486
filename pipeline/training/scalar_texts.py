"""What TensorBoard says about each scalar: one row each, by the name of `logs.named_scalars` or of a validation."""

from spidercap.pipeline.metrics.registry import remarks
from spidercap.pipeline.metrics.versions import versions_in_use

OF_STEPS = {
    "loss": "Loss of the batch: cross-entropy in nats a token for likelihood, the surrogate loss on rewards otherwise.",
    "gradient norm": "Norm of the gradients of the whole batch, before clipping.",
    "skipped updates": "1 if loss or gradients were NaN or infinite, so that this step changed nothing; else 0.",
    "learning rate": "Adam's learning rate at this step.",
    "own words read": "Scheduled sampling: probability that the decoder reads a token of its own, not the reference's.",
    "captions scored": "Captions scored in this step: samples, rollouts and greedy captions.",
    "entropy": "Entropy of the policy in nats a token, estimated from sampled tokens; near 0, samples hardly vary.",
    "advantage spread": "Standard deviation of the advantages of sampled tokens.",
    "likelihood loss": "Cross-entropy of the tokens that are learned by likelihood beside the reward, in nats a token.",
    "words given": "MIXER: tokens of a caption that are the reference's and not sampled.",
    "baseline loss": "Mean squared error of the learned baseline; from its warm-up on, where a stage has one.",
    "explained variance": "Share of the returns' variance that the learned baseline explains: 1 is all, 0 nothing.",
    "reward": "Mean reward of the sampled captions.",
    "best reward": "Highest reward of a sampled caption of the batch.",
    "spread of rewards": "Standard deviation of the rewards of the sampled captions.",
    "caption length": "Mean number of tokens of the sampled captions, the end token counted.",
    "never ended": "Share of sampled captions that were cut at --max_length without an end token.",
    "repeated n-grams": "Share of trigrams of sampled captions that occur earlier in the same caption.",
    "distinct captions": "Share of sampled captions that are different ones.",
    "captions a second": "Captions a second since this process began the stage, validations included.",
    "images a second": "Images a second since this process began the stage, validations included.",
}
OF_VALIDATIONS = {
    "mean length": "Mean number of words of the captions of the validation images.",
    "distinct captions": "Number of different captions of the validation images.",
}


def step_text(name: str) -> str:
    """Returns the description of a step's scalar; of 'reward CIDEr' it is made from the metric."""
    metric = name.removeprefix("reward ")
    own = OF_STEPS.get(name)
    return own or _remarked(metric, f"Mean {metric} of the sampled captions, without its weight in the reward.")


def validation_text(name: str) -> str:
    """Returns the description of a score of a validation."""
    if name in OF_VALIDATIONS:
        return OF_VALIDATIONS[name]
    text = f"{name} of the captions of the validation images; the last point is of the weights that were kept."
    return _remarked(name, text)


def _remarked(metric: str, text: str) -> str:
    """The text, and what tables say of the metric."""
    return " ".join([text, *remarks([metric], versions_in_use([metric]))])
