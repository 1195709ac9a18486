"""Fills tokenizer.json anew: what the COCO evaluation's tokenizer (Java) makes of each caption in it.

Run from the repository's root, with pycocoevalcap installed and `java` on the path:
    python -m tests.golden.make_tokenizer
A new case is a new line `["the caption", null]`.
"""

import json
from pathlib import Path

TABLE = Path(__file__).with_name("tokenizer.json")

# The tool reads all captions as one text, and what follows a dot can decide on it: all get the same follower.
FOLLOWER = "A dog."


def java_tokens(captions: list[str]) -> list[list[str]]:
    """Returns the evaluation's tokens of each caption; white space in it must be single blanks only."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = {index: [{"caption": caption}, {"caption": FOLLOWER}] for index, caption in enumerate(captions)}
    tokenized = PTBTokenizer().tokenize(texts)
    return [tokenized[index][0].split() for index in range(len(captions))]


def main() -> None:
    """Rewrites the table, one case a line."""
    captions = [caption for caption, _ in json.loads(TABLE.read_text("utf-8"))]
    cases = zip(captions, java_tokens(captions), strict=True)
    TABLE.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main()
