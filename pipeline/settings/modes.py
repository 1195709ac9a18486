"""The modes, and those that read a setting. All settings of training are saved by `prepare`."""

MODES = ("prepare", "train", "evaluate", "score", "caption", "export", "demo", "status", "compare")
# To them no setting of a run can be given: they read files as they are.
WITHOUT_RUN = ("score", "demo", "status", "compare")
WITHOUT_WORKDIR = ("score", "compare")  # they read no --workdir
ALL = MODES
TRAINING = ("prepare", "train")
DATA = (*TRAINING, "evaluate")
EXPORTING = (*TRAINING, "caption", "export", "demo")
SCORING = (*DATA, "score")
