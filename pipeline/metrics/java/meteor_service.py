"""METEOR 1.5 in a worker, with the options of the COCO caption evaluation."""

from typing import Any

import jpype

NORMALIZE = 2  # -norm of its command line: tokenise, lower-case, keep punctuation


class Service:
    """Aligns captions with references."""

    def __init__(self):
        configuration = jpype.JClass("edu.cmu.meteor.scorer.MeteorConfiguration")()
        configuration.setLanguage("en")
        configuration.setNormalization(NORMALIZE)
        self._scorer = jpype.JClass("edu.cmu.meteor.scorer.MeteorScorer")(configuration)
        self._stats = jpype.JClass("edu.cmu.meteor.scorer.MeteorStats")
        self._list = jpype.JClass("java.util.ArrayList")

    def answer(self, item: Any) -> Any:
        """Returns {"stats", "score"} of {"candidate", "references"}; the corpus score of {"stats": [...]}.

        Scores are computed from printed statistics, like in the evaluation.
        """
        if "candidate" in item:
            stats = str(self._scorer.getMeteorStats(item["candidate"], self._list(item["references"])).toString())
            return {"stats": stats, "score": float(self._scored(self._stats(stats)).score)}
        if not item["stats"]:
            return 0.0
        total = self._stats()
        for stats in item["stats"]:
            total.addStats(self._stats(stats))
        return float(self._scored(total).score)

    def _scored(self, stats: Any) -> Any:
        self._scorer.computeMetrics(stats)
        return stats
