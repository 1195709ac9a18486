"""Token ids that stand for no word."""

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# Tokens that no caption contains. Sampling, every decoder and every differentiated probability share them: masked in
# sampling only, they would take probability that no sample ever takes back.
FORBIDDEN = (PAD, START, UNKNOWN)
FORBIDDEN_LOGIT = -1e9  # added to their logits
FORBIDDEN_BELOW = FORBIDDEN_LOGIT / 10  # logits and log-probabilities at or below are those of forbidden tokens
