"""Fills long_captions.json anew: what SPICE 1.0's own classes make of captions of over 60 words.

Run from the repository's root, with Java and CoreNLP (half a minute):
    python -m tests.golden.make_long_captions
"""

import json
import re
from pathlib import Path

import jpype

from spidercap.pipeline.metrics.java.corenlp import corenlp_jars
from spidercap.pipeline.metrics.java.runtime import find_jvm, spice_jars

GOLDEN = Path(__file__).with_name("long_captions.json")
# (caption, reference) as the COCO evaluation's tokenizer leaves them: paragraphs without punctuation.
PARAGRAPHS = (
    (
        """a brown dog with a red collar runs through the tall grass of a green field behind it a small boy in a blue
        shirt throws a yellow ball there are two trees at the end of the field and a white house with a black roof on
        the left a woman sits on a wooden bench and reads a book the sky is blue and a bird flies over the house""",
        "a dog with a red collar runs through a field while a boy throws a yellow ball",
    ),
    (
        """three people are standing at a bus stop on a busy street one of them is a tall man who is wearing a gray
        coat and holding a black umbrella the woman next to him has long hair and carries a large bag on her shoulder
        a young girl is looking at her phone two cars and a yellow taxi are waiting at the red traffic light near the
        old stone church""",
        "a man with a black umbrella and a woman with a large bag wait at a bus stop near an old church",
    ),
)


def main() -> None:
    """Parses and scores with the classes and the steps of SPICE's main class."""
    jars = [str(jar) for jar in [*spice_jars(), *corenlp_jars("", "")]]
    jpype.startJVM(find_jvm().library, "-Xmx4g", classpath=jars, convertStrings=True)
    pairs = [tuple(re.sub(r"\s+", " ", text) for text in pair) for pair in PARAGRAPHS]
    array_list, integer = jpype.JClass("java.util.ArrayList"), jpype.JClass("java.lang.Integer").valueOf
    parser = jpype.JClass("edu.anu.spice.SpiceParser")(None, 1, True)
    predicted = parser.parseCaptions(array_list([caption for caption, _ in pairs]))
    true = parser.parseCaptions(
        array_list([reference for _, reference in pairs]), array_list([integer(1)] * len(pairs))
    )
    stats = jpype.JClass("edu.anu.spice.SpiceStats")(jpype.JClass("java.util.HashMap")(), False)
    for image in range(len(pairs)):
        stats.score(integer(image), predicted.get(image), true.get(image), True)
    scores = [image["scores"]["All"]["f"] for image in json.loads(str(stats.toJSONString()))]
    generate = next(m for m in parser.getClass().getDeclaredMethods() if m.getName() == "generateTuples")
    generate.setAccessible(True)
    found = generate.invoke(parser, array_list([caption for caption, _ in pairs]))
    rows = [
        {
            "caption": caption,
            "reference": reference,
            "tuples": [[str(word) for word in one] for one in found.get(caption)],
            "spice": score,
        }
        for (caption, reference), score in zip(pairs, scores, strict=True)
    ]
    GOLDEN.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
