"""The words that stand for no word."""

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# What a caption may never hold. One constant for sampling, every decoder and every differentiated
# probability: masked in sampling only, probability would flow to the word that is never pushed down.
UNSAYABLE = (PAD, START, UNKNOWN)
NEVER = -1e9  # added to their logits
UNSAID = NEVER / 10  # at and below: the logit or log-probability of a word that cannot be said
