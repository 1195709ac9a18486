"""The modes, and those that read a setting. All settings of training are saved by `prepare`."""

MODES = ("prepare", "train", "evaluate", "score", "caption", "export", "demo", "status")
WITHOUT_RUN = ("score", "demo", "status")  # to them no setting of a run can be given: they read files as they are
ALL = MODES
TRAINING = ("prepare", "train")
DATA = (*TRAINING, "evaluate")
EXPORTING = (*TRAINING, "caption", "export", "demo")
SCORING = (*DATA, "score")
