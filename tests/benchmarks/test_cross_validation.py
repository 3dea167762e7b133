"""The benchmark's table: no figure stands there without its context."""

import numpy as np
import pandas as pd

from benchmarks.cross_validation import comparison_rows, scorecard_rows
from classifiers.comparison import Comparison
from classifiers.predictions import FoldPredictions, TargetPredictions
from classifiers.scorecard import make_scorecard


def test_every_row_of_the_table_has_its_context() -> None:
    labels = np.array(["benign", "malignant"], dtype=object)
    queries = pd.DataFrame({"row_id": ["r1", "r2"], "woman": ["d/1", "d/2"], "dataset": "d"})
    retrieval = pd.DataFrame({"precision@10": [1.0, 0.0], "map@r": [1.0, 0.5], "relevant": 3})
    values = {"knn": np.array([[0.7, 0.3], [0.2, 0.8]])}
    target = TargetPredictions(
        labels, ("benign", "malignant"), retrieval, np.ones((len(labels), 20)), values, {"knn": "none"}, {}
    )
    fold = FoldPredictions("finding", 20, 10, "g" * 64, queries, {"pathology": target}, 0)
    context = {"protocol": "5 folds by woman", "manifest_digest": "m" * 64, "model_digests": ["e" * 64]}
    scorecard = make_scorecard([fold], context, resamples=20)
    estimate = scorecard.targets["pathology"].scores.knn["auc"]
    comparison = Comparison("tuned", "frozen", scorecard.context, {"pathology": {"knn": {"auc": estimate}}})
    rows = [*scorecard_rows("tuned", scorecard), *comparison_rows(comparison)]
    assert {row["run"] for row in rows} == {"tuned", "tuned minus frozen"}
    for row in rows:
        stated = (row["dataset"], row["manifest"], row["protocol"], row["granularity"], row["level"])
        assert stated == ("d", "m" * 12, "5 folds by woman", "finding", 0.95)
        assert row["items"] == row["women"] == 2
    [auc] = [row for row in rows if row["run"] == "tuned" and row["score"] == "auc"]
    assert (auc["part"], auc["value"]) == ("knn", 1.0)
