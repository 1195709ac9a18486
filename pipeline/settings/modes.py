"""The modes, and those that read a setting. All settings of training are saved by `prepare`."""

MODES = ("prepare", "train", "evaluate", "score", "caption", "export")
ALL = MODES
TRAINING = ("prepare", "train")
DATA = (*TRAINING, "evaluate")
EXPORTING = (*TRAINING, "caption", "export")
SCORING = (*DATA, "score")
