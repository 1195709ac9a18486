"""Levels: how sure the parser is of a tuple, and how much the tuple counts.

A tuple's level is the number of thresholds that its logit exceeds. SPICE-fast is the F-score of sums of levels: that of
the candidate's tuples, that of the references', and for a tuple that matches the lower of both levels. So a tuple of
which the parser is not sure counts in part, and if all tuples have one level, it is the F-score of their numbers.
"""

THRESHOLDS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # logits: probabilities of 0.12, 0.27, 0.5, 0.73 and 0.88
LEVELS = len(THRESHOLDS)
LIKELY = 1 + THRESHOLDS.index(0.0)  # from this level on, a tuple is more likely than not
