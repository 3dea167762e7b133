"""Validation by retrieval: MAP@R of held-out women's rows among the training women's, and what it rests on.

MAP@R as in Musgrave, Belongie and Lim, A metric learning reality check, ECCV 2020.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import Tensor, from_numpy

from embedder.objectives import MISSING

INTERVAL = "95 %, percentile bootstrap over women, 2000 resamples"
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows of one side of a validation, with one label.

    Attributes:
        vectors: float32 (rows, dimension), unit length.
        codes: int64 (rows,) class indices, MISSING where unknown.
        women: int64 (rows,) whose they are.
    """

    vectors: Tensor
    codes: npt.NDArray[np.int64]
    women: npt.NDArray[np.int64]

    def chosen(self, rows: npt.NDArray[np.bool_]) -> "LabelledRows":
        """Return some of the rows."""
        return LabelledRows(self.vectors[from_numpy(rows)], self.codes[rows], self.women[rows])

    def labelled(self) -> "LabelledRows":
        """Return the rows whose label is known."""
        return self.chosen(self.codes != MISSING)


def map_at_r(queries: LabelledRows, gallery: LabelledRows) -> float:
    """Return the mean average precision at R of labelled queries in a labelled gallery."""
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r",), k="max_bin_count", knn_func=CustomKNN(CosineSimilarity())
    )
    found = calculator.get_accuracy(
        queries.vectors, from_numpy(queries.codes), gallery.vectors, from_numpy(gallery.codes)
    )
    return float(found["mean_average_precision_at_r"])


def map_at_r_figure(queries: LabelledRows, gallery: LabelledRows, seed: int) -> dict[str, float | int | None] | None:
    """Return MAP@R with its context.

    Args:
        queries: Held-out women's rows.
        gallery: Training women's rows.
        seed: Seed of the resampling.

    Returns:
        `value`, `low` and `high` (see INTERVAL; None where there is one woman only), the `rows` and `women` that were
        asked, and those of the gallery. None where the gallery holds no class of the queries.
    """
    gallery = gallery.labelled()
    # A row whose class the gallery lacks has nothing to find, and is no part of the mean.
    queries = queries.chosen(np.isin(queries.codes, gallery.codes))
    women, counts = np.unique(queries.women, return_counts=True)
    if not women.size:
        return None
    sums = counts * np.array([map_at_r(queries.chosen(queries.women == woman), gallery) for woman in women])
    low, high = None, None
    if len(women) > 1:
        draws = np.random.default_rng(seed).multinomial(len(women), np.full(len(women), 1 / len(women)), _RESAMPLES)
        low, high = np.quantile((draws @ sums) / (draws @ counts), [0.025, 0.975]).tolist()
    return {
        "value": float(sums.sum() / counts.sum()),
        "low": low,
        "high": high,
        "rows": int(counts.sum()),
        "women": len(women),
        "gallery_rows": len(gallery.codes),
        "gallery_women": len(np.unique(gallery.women)),
    }
