"""Settings that are possible one by one, but not together."""

from typing import TYPE_CHECKING

from spidercap.pipeline.errors import UserError

if TYPE_CHECKING:
    from spidercap.pipeline.settings.config import Config


def refuse_objectives(config: "Config") -> None:
    """Raises UserError for objectives that cannot work as they are set."""
    stages = {stage.name for stage in config.parsed_stages()}
    if "leave_one_out" in stages and config.samples < 2:
        raise UserError(
            f"--samples={config.samples} leaves no other sample to compare with; --stages={config.stages} needs "
            "--samples=2 or more (5 is usual)"
        )
    if not stages & {"baseline", "pg"}:
        return
    if config.rollout_policy == "greedy" and config.rollouts != 1:
        raise UserError(
            f"--rollout_policy=greedy says the same each time, so --rollouts={config.rollouts} is not possible; "
            "add --rollouts=1, or leave out --rollout_policy"
        )

    if config.share_rollouts and (config.samples == 1 or config.rollouts == 0):
        raise UserError(
            f"--share_rollouts shares nothing with --samples={config.samples} --rollouts={config.rollouts}; it is for "
            "several samples with rollouts"
        )


def refuse_decoding(config: "Config") -> None:
    """Raises UserError for ways of searching captions that cannot be as they are set."""
    beam_only = [n for n in ("length_penalty", "no_repeat_ngram", "no_bad_endings") if getattr(config, n)]
    if config.decode == "greedy" and config.n_best > 1:
        raise UserError(f"--n_best={config.n_best} is for --decode=beam; greedy finds one caption: add --n_best=1")
    if config.decode == "greedy" and beam_only:
        name, value = beam_only[0], getattr(config, beam_only[0])
        raise UserError(
            f"--{name}={value} is for --decode=beam, and --decode=greedy knows none; add --decode=beam "
            f"(with --beam_width=1 it searches greedily), or --{name}={str(type(value)()).lower()}"
        )
    if config.n_best > config.beam_width:
        raise UserError(
            f"--n_best={config.n_best} is more than --beam_width={config.beam_width} captions are followed; "
            "allowed: at most as many"
        )


def refuse_data_flags(config: "Config") -> None:
    """Raises UserError for a data set and flags that do not go together."""
    given = [n for n in ("images", "train_captions", "val_captions") if getattr(config, n)]
    if config.dataset == "scenes" and given:
        raise UserError(f"--dataset=scenes does not read --{given[0]}; add --dataset=folder, or leave it out")
    needed = [n for n in ("images", "train_captions", "val_captions") if not getattr(config, n)]
    if config.dataset == "folder" and needed:
        raise UserError(f"--dataset=folder needs {', '.join('--' + n for n in needed)}; --help says what they are")
