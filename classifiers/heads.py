"""Linear heads: multinomial logistic regression on embeddings, regularised as folds of women advise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from classifiers import ClassificationError
from classifiers.folds import patient_folds
from classifiers.labels import (
    MISSING,
    Array,
    canonical_order,
    check_vectors,
    encode_labels,
    encode_patients,
    spread_columns,
    women_per_class,
)

SMALLEST_PROBABILITY = 1e-6  # keeps the log loss of a class that a fold's training women lack finite


@dataclass(frozen=True)
class HeadConfig:
    """How a linear head is fitted.

    Args:
        strengths: The values of C (inverse regularisation) to choose from, for vectors centred and scaled
            so that their mean squared length is 1: a strength then means the same for every embedder and
            dimension.
        default_strength: C where a class has too few women to choose by cross-validation.
        folds: Inner folds of women by whose log loss C is chosen.
        class_weight: None fits the class shares as they are, which is what makes the probabilities mean
            something; "balanced" weighs every class alike.
        seed: Seed of the inner folds.
    """

    strengths: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)
    default_strength: float = 1.0
    folds: int = 5
    class_weight: Literal["balanced"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0 or self.default_strength <= 0:
            raise ClassificationError(
                "head", f"C {self.strengths} holds none or one that is not positive", "1.0 is usual"
            )
        if self.folds < 2:
            raise ClassificationError("head", f"{self.folds} inner folds cannot be split into", "ask for 2 or more")


class LinearHead:
    """Classify findings by a linear model of their vectors.

    The head remembers the women it was fitted on and refuses to classify them: an answer about a woman by a
    head that knows her outcome would be no answer.

    Args:
        config: How the head is fitted.
    """

    # A fit knows its women's labels: held-out probabilities need a fit per fold.
    leaves_own_woman_out = False

    def __init__(self, config: HeadConfig | None = None) -> None:
        self.config = config or HeadConfig()

    def fit(self, vectors: npt.ArrayLike, labels: npt.ArrayLike, patients: npt.ArrayLike) -> Self:
        """Choose C by folds of women, then fit on all labelled findings.

        Args:
            vectors: (n, d) unit length.
            labels: (n,) labels; rows without one are left out.
            patients: (n,) women's keys.

        Raises:
            ClassificationError: Fewer than two classes have findings.
        """
        matrix = check_vectors(vectors)
        self.classes_, codes = encode_labels(labels)
        keys, women = encode_patients(patients, len(codes))
        if len(matrix) != len(codes):
            raise ClassificationError("vectors", f"{len(matrix)} vectors for {len(codes)} labels", "pass one per label")
        if len(self.classes_) < 2:
            found = f"all labels are {self.classes_[0]!r}" if self.classes_ else "no finding has a label"
            raise ClassificationError(
                "labels", f"{found}, so there is nothing to tell apart", "use two classes or more"
            )
        labelled = np.flatnonzero(codes != MISSING)
        order = labelled[canonical_order(matrix[labelled], codes[labelled], women[labelled])]
        matrix, codes, women = matrix[order], codes[order], women[order]
        self.women_ = frozenset(keys[np.unique(women)].tolist())
        self.strength_, self.losses_ = self._choose(matrix, codes, keys[women])
        self.coefficients_, self.intercepts_ = self._solve(_Reduced.of(matrix), codes, self.strength_)
        return self

    def predict_proba(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Array:
        """Return (q, classes) probabilities.

        Args:
            vectors: (q, d) unit length.
            patients: (q,) women's keys, None where unknown; pass them, so that a woman the head was fitted
                on is refused.

        Raises:
            ClassificationError: The head was fitted on a query's woman, or on vectors of another dimension.
        """
        matrix = check_vectors(vectors)
        if matrix.shape[1] != self.coefficients_.shape[1]:
            raise ClassificationError(
                "vectors",
                f"{matrix.shape[1]} dimensions where {self.coefficients_.shape[1]} were fitted",
                "embed with the same model",
            )
        if patients is not None:
            keys = np.asarray(patients, dtype=object)
            known = sorted({str(key) for key in keys if not pd.isna(key)} & self.women_)
            if known:
                raise ClassificationError("head", f"it was fitted on the woman {known[0]}", "fit it without her")
        return softmax(matrix @ self.coefficients_.T + self.intercepts_, axis=1)

    def predict(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Array:
        """Return (q,) most probable classes; the first of equals."""
        return np.asarray(self.classes_)[self.predict_proba(vectors, patients).argmax(axis=1)]

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted head as plain numbers and texts, women's keys included: it is patient data."""
        return {
            "classes": list(self.classes_),
            "coefficients": self.coefficients_.tolist(),
            "intercepts": self.intercepts_.tolist(),
            "strength": self.strength_,
            "women": sorted(self.women_),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return a head that answers as the one whose `to_dict` this is.

        Raises:
            ClassificationError: A part is missing, or its shape does not fit the others.
        """
        head = cls()
        try:
            head.classes_ = tuple(str(name) for name in content["classes"])
            head.coefficients_ = np.asarray(content["coefficients"], dtype=np.float64)
            head.intercepts_ = np.asarray(content["intercepts"], dtype=np.float64)
            head.strength_ = float(content["strength"])
            head.women_ = frozenset(str(woman) for woman in content["women"])
        except (KeyError, TypeError, ValueError) as error:
            raise ClassificationError(
                "head", f"its saved form cannot be read ({error!r})", "fit and save it again"
            ) from error
        head.losses_ = {}
        classes = len(head.classes_)
        if head.coefficients_.ndim != 2 or len(head.coefficients_) != classes or head.intercepts_.shape != (classes,):
            raise ClassificationError("head", "its saved weights do not fit its classes", "fit and save it again")
        return head

    def _choose(self, matrix: Array, codes: Array, women: Array) -> tuple[float, dict[float, float]]:
        """Return C with the lowest held-out log loss (the smallest of equals), and the loss of each C."""
        woman_of_row = encode_patients(women, len(codes))[1]
        folds = min(self.config.folds, int(women_per_class(codes, woman_of_row, len(self.classes_)).min()))
        if folds < 2 or len(self.config.strengths) == 1:
            return self.config.default_strength if folds < 2 else self.config.strengths[0], {}
        names = np.asarray(self.classes_, dtype=object)
        splits = patient_folds(women, names[codes], folds, self.config.seed)
        if any(len(np.unique(codes[fold.train])) < 2 for fold in splits):
            return self.config.default_strength, {}
        losses = dict.fromkeys(sorted(self.config.strengths), 0.0)
        for fold in splits:
            reduced, own = _Reduced.of(matrix[fold.train]), codes[fold.train]
            here = np.unique(own)
            for strength in losses:
                weights, bias = self._solve(reduced, own, strength)
                probabilities = spread_columns(
                    softmax(matrix[fold.test] @ weights.T + bias, axis=1), names[here].tolist(), self.classes_
                )
                said = probabilities[np.arange(len(fold.test)), codes[fold.test]]
                losses[strength] -= float(np.log(np.maximum(said, SMALLEST_PROBABILITY)).sum())
        losses = {strength: loss / len(codes) for strength, loss in losses.items()}
        return min(losses, key=lambda strength: (losses[strength], strength)), losses

    def _solve(self, reduced: "_Reduced", codes: Array, strength: float) -> tuple[Array, Array]:
        """Fit one model: (classes, d) coefficients and (classes,) intercepts for vectors as they come in."""
        model = LogisticRegression(C=strength, class_weight=self.config.class_weight, max_iter=2000)
        model.fit(reduced.rows, codes)
        weights, bias = model.coef_, model.intercept_
        if reduced.axes is not None:
            weights = weights @ reduced.axes
        if len(weights) == 1:  # two classes: the library keeps one row, the log odds of the second
            weights, bias = np.vstack([np.zeros_like(weights), weights]), np.concatenate([[0.0], bias])
        weights = weights / reduced.scale
        return weights, bias - weights @ reduced.centre


@dataclass(frozen=True, eq=False)
class _Reduced:
    """Vectors as they are fitted, whatever the strength.

    Attributes:
        rows: (n, m) centred and scaled, in `axes` where there are any.
        centre: (d,) their mean.
        scale: Their spread.
        axes: (m, d); None where rows have all d dimensions.
    """

    rows: Array
    centre: Array
    scale: float
    axes: Array | None

    @classmethod
    def of(cls, matrix: Array) -> Self:
        """Reduce (n, d) vectors."""
        centre = matrix.mean(axis=0)
        spread = float(np.sqrt(np.square(matrix - centre).sum(axis=1).mean()))
        scale = spread if spread > 0 else 1.0
        centred = (matrix - centre) / scale
        if centred.shape[1] <= centred.shape[0]:
            return cls(centred, centre, scale, None)
        # The solution lies in the span of the findings, and a rotation does not change the penalty: with fewer
        # findings than dimensions the same model is found in the findings' own, far fewer, axes.
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        return cls(centred @ axes.T, centre, scale, axes)
