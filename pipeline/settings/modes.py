"""The modes, and those that read a setting. All settings of training are saved by `prepare`."""

MODES = ("prepare", "train", "evaluate", "score", "caption", "export", "demo")
WITHOUT_RUN = ("score", "demo")  # they read files or an exported model alone, not the settings of a run
ALL = MODES
TRAINING = ("prepare", "train")
DATA = (*TRAINING, "evaluate")
EXPORTING = (*TRAINING, "caption", "export", "demo")
SCORING = (*DATA, "score")
