"""Probabilities that mean what they say: temperature scaling on women that the model had not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from classifiers import ClassificationError, scores
from classifiers.folds import patient_folds
from classifiers.labels import MISSING, Array, encode_labels, encode_patients, spread_columns, women_per_class

SMALLEST_PROBABILITY = 1e-6  # the logarithm of a probability of 0 is taken here
_FLATTEST, _SHARPEST = 0.01, 20.0  # bounds of the inverse temperature


class Classifier(Protocol):
    """What is calibrated: `NeighbourVote`, `LinearHead`, or anything that fits and predicts like them."""

    leaves_own_woman_out: bool
    classes_: tuple[str, ...]

    def fit(self, vectors: npt.ArrayLike, labels: npt.ArrayLike, patients: npt.ArrayLike) -> Any:
        """Learn from (n, d) vectors, (n,) labels and (n,) women's keys."""

    def predict_proba(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Array:
        """Return (q, classes) probabilities."""


@dataclass(frozen=True)
class CalibrationConfig:
    """How much data a calibration needs; with less it leaves probabilities as they are and says so.

    Args:
        women: Women with a label.
        women_per_class: Women of each class, for the temperature (one parameter).
        women_per_class_for_bias: Women of each class, for a bias of each class too.
        strength: Pull of the parameters towards changing nothing, as the precision of a Gaussian prior.
    """

    women: int = 20
    women_per_class: int = 5
    women_per_class_for_bias: int = 20
    strength: float = 1.0


class Calibration:
    """Temperature scaling, with a bias of each class where the data allow it.

    After Guo et al., On calibration of modern neural networks, ICML 2017.

    A probability p becomes softmax(sharpness x log p + bias). The sharpness (the inverse of the
    temperature) and the biases minimise the log loss plus a small penalty that pulls them to 1 and 0, which
    keeps them sane on few women. The probabilities to fit on must be of women whom their model had not
    seen: `cross_fitted_probabilities` makes them.

    After `fit`: `method_` ("temperature and bias", "temperature" or "none"), `sharpness_`, `bias_`
    (classes,), `women_`, `findings_`, and `basis_`, a sentence that says what the calibration rests on.

    Args:
        config: How much data it needs.
    """

    def __init__(self, config: CalibrationConfig | None = None) -> None:
        self.config = config or CalibrationConfig()

    def fit(
        self,
        probabilities: npt.ArrayLike,
        labels: npt.ArrayLike,
        patients: npt.ArrayLike,
        classes: Sequence[str],
    ) -> Self:
        """Fit to held-out probabilities.

        Args:
            probabilities: (n, classes); rows without a label may be NaN.
            labels: (n,) labels; rows without one are left out.
            patients: (n,) women's keys.
            classes: The classes of the columns.
        """
        names, codes = encode_labels(labels, classes)
        _, woman_of_row = encode_patients(patients, len(codes))
        self.classes_ = names
        known = codes != MISSING
        values, truth = _labelled(probabilities, labels, names)
        each = women_per_class(codes, woman_of_row, len(names))
        self.women_, self.findings_ = len(np.unique(woman_of_row[known])), len(truth)
        self.sharpness_, self.bias_ = 1.0, np.zeros(len(names))
        reason = too_few(self.config, self.women_, each, names)
        if reason:
            self.method_, self.basis_ = "none", f"not calibrated: {reason}"
            return self
        with_bias = bool(each.min() >= self.config.women_per_class_for_bias)
        self.method_ = "temperature and bias" if with_bias else "temperature"
        # Sums in one order give one result, however the rows came in.
        order = np.lexsort((*values.T, truth))
        self._solve(values[order], truth[order], with_bias)
        self.basis_ = f"{self.method_} on held-out probabilities of {self.findings_} findings of {self.women_} women"
        return self

    def transform(self, probabilities: npt.ArrayLike) -> Array:
        """Return calibrated (n, classes) probabilities; each row sums to 1."""
        values = np.asarray(probabilities, dtype=np.float64)
        values = _checked(values, len(self.classes_), len(values))
        if self.method_ == "none":
            return values.copy()
        return softmax(self.sharpness_ * np.log(np.maximum(values, SMALLEST_PROBABILITY)) + self.bias_, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return the method, its parameters and what it rests on as plain numbers and texts."""
        return {
            "method": self.method_,
            "temperature": 1 / self.sharpness_,
            "bias": dict(zip(self.classes_, self.bias_.tolist(), strict=True)),
            "women": self.women_,
            "findings": self.findings_,
            "basis": self.basis_,
        }

    def _solve(self, values: Array, truth: Array, with_bias: bool) -> None:
        logs = np.log(np.maximum(values, SMALLEST_PROBABILITY))
        outcome = np.eye(len(self.classes_))[truth]
        strength = self.config.strength

        def loss(parameters: Array) -> tuple[float, Array]:
            sharpness, bias = parameters[0], parameters[1:] if with_bias else 0.0
            log_p = log_softmax(sharpness * logs + bias, axis=1)
            excess = np.exp(log_p) - outcome
            value = -(outcome * log_p).sum() + strength * ((sharpness - 1) ** 2 + np.sum(np.square(bias))) / 2
            slope = [(excess * logs).sum() + strength * (sharpness - 1)]
            if with_bias:
                slope.extend(excess.sum(axis=0) + strength * parameters[1:])
            return float(value), np.asarray(slope)

        count = len(self.classes_) if with_bias else 0
        start = np.concatenate([[1.0], np.zeros(count)])
        bounds = [(_FLATTEST, _SHARPEST)] + [(None, None)] * count
        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        self.sharpness_ = float(best[0])
        self.bias_ = best[1:] if with_bias else np.zeros(len(self.classes_))


def too_few(config: CalibrationConfig, women: int, women_of_class: Array, classes: Sequence[str]) -> str:
    """Say why there are too few women to calibrate on; empty where there are enough."""
    if len(women_of_class) < 2:
        return "there is one class only"
    rarest = int(np.argmin(women_of_class))
    if women_of_class[rarest] < config.women_per_class:
        return f"{women_of_class[rarest]} women with {classes[rarest]}, {config.women_per_class} are needed"
    return f"{women} women with a label, {config.women} are needed" if women < config.women else ""


def cross_fitted_probabilities(
    estimator_factory: Callable[[], Classifier],
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Array, tuple[str, ...]]:
    """Predict every labelled row by a model that knows nothing of its woman.

    A kNN vote leaves the row's own woman out of the search; any other classifier is fitted once a fold of
    women.

    Args:
        estimator_factory: Makes an unfitted classifier.
        vectors: (n, d) unit length.
        labels: (n,) labels, missing where unknown.
        patients: (n,) women's keys.
        folds: Folds of women; fewer where the rarest class has fewer women.
        seed: Seed of the folds.

    Returns:
        (n, classes) probabilities, NaN for rows without a label, and the sorted classes. A class that the
        training women of a fold lack has probability 0 in it.

    Raises:
        ClassificationError: Fewer than two women, or a fold whose training women are of one class.
    """
    matrix, terms = np.asarray(vectors), np.asarray(labels, dtype=object)
    keys = np.asarray(patients, dtype=object)
    classes, codes = encode_labels(terms)
    _, women = encode_patients(keys, len(codes))
    known = np.flatnonzero(codes != MISSING)
    probabilities = np.full((len(codes), len(classes)), np.nan)
    if not known.size:
        return probabilities, classes
    estimator = estimator_factory()
    if estimator.leaves_own_woman_out:
        estimator.fit(matrix[known], terms[known], keys[known])
        probabilities[known] = estimator.predict_proba(matrix[known], keys[known])
        return probabilities, classes
    rarest = int(women_per_class(codes, women, len(classes)).min())
    for fold in patient_folds(keys[known], terms[known], max(2, min(folds, rarest)), seed):
        train, test = known[fold.train], known[fold.test]
        estimator = estimator_factory()
        estimator.fit(matrix[train], terms[train], keys[train])
        probabilities[test] = spread_columns(
            estimator.predict_proba(matrix[test], keys[test]), estimator.classes_, classes
        )
    return probabilities, classes


def calibrate(
    estimator_factory: Callable[[], Classifier],
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    config: CalibrationConfig | None = None,
    folds: int = 5,
    seed: int = 0,
    seen: npt.ArrayLike | None = None,
) -> tuple[Calibration, Array]:
    """Fit a calibration to the cross-fitted probabilities of these rows; it changes nothing on too few women.

    An embedder puts the women that it was trained on where their labels want them, so that held-out predictions of
    them, too, are surer than those of new women will be. Where there are enough women that it was not trained on, the
    calibration is fitted on these alone.

    Args:
        estimator_factory: Makes an unfitted classifier, of the kind whose probabilities will be calibrated.
        vectors: (n, d) unit length.
        labels: (n,) labels, missing where unknown.
        patients: (n,) women's keys.
        config: How much data the calibration needs.
        folds: Folds of women to cross-fit in.
        seed: Seed of the folds.
        seen: (n,) bool: the embedder was trained on the row's woman; None where nobody knows.

    Returns:
        The calibration, and the (n, classes) probabilities that it was fitted on: NaN for rows without a label, and
        for all where there are too few women.
    """
    calibration = Calibration(config)
    classes, codes = encode_labels(labels)
    _, woman_of_row = encode_patients(patients, len(codes))
    known = codes != MISSING
    each = women_per_class(codes, woman_of_row, len(classes))
    if too_few(calibration.config, len(np.unique(woman_of_row[known])), each, classes):
        # Cross-fitting so few may be impossible, and `fit` will say why it leaves probabilities alone.
        even = np.full((len(codes), len(classes)), 1 / max(1, len(classes)))
        return calibration.fit(even, labels, patients, classes), np.full(even.shape, np.nan)
    probabilities, _ = cross_fitted_probabilities(estimator_factory, vectors, labels, patients, folds, seed)
    trained = np.zeros(len(codes), np.bool_) if seen is None else np.asarray(seen)
    if trained.shape != codes.shape or trained.dtype != np.bool_:
        raise ClassificationError("calibration", f"{trained.shape} says whom the embedder saw of {len(codes)} rows")
    if not trained[known].any():
        return calibration.fit(probabilities, labels, patients, classes), probabilities
    new = np.array(labels, dtype=object)
    new[trained] = None
    each = women_per_class(np.where(trained, MISSING, codes), woman_of_row, len(classes))
    if too_few(calibration.config, len(np.unique(woman_of_row[known & ~trained])), each, classes):
        calibration.fit(probabilities, labels, patients, classes)
        calibration.basis_ += ", whom the embedder was trained on: it may be too sure"
    else:
        calibration.fit(probabilities, new, patients, classes)
        calibration.basis_ += " that the embedder was not trained on"
    return calibration, probabilities


def brier_score(probabilities: npt.ArrayLike, labels: npt.ArrayLike, classes: Sequence[str]) -> float:
    """Return the Brier score (summed over classes, 0 to 2) of the labelled rows; NaN without any."""
    values, truth = _labelled(probabilities, labels, classes)
    return float(scores.brier(truth, values, np.ones((1, len(truth))))[0])


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, classes: Sequence[str], bins: int = 10
) -> float:
    """Return the expected calibration error (top label, equal bins) of the labelled rows; NaN without any."""
    values, truth = _labelled(probabilities, labels, classes)
    return float(scores.calibration_error(truth, values, np.ones((1, len(truth))), bins)[0])


def _labelled(probabilities: npt.ArrayLike, labels: npt.ArrayLike, classes: Sequence[str]) -> tuple[Array, Array]:
    names, codes = encode_labels(labels, classes)
    known = codes != MISSING
    values = np.asarray(probabilities, dtype=np.float64)
    if len(values) != len(codes):
        raise ClassificationError("probabilities", f"{len(values)} rows for {len(codes)} labels", "pass one per label")
    return _checked(values[known], len(names), int(known.sum())), codes[known]


def _checked(values: Array, classes: int, rows: int) -> Array:
    """Return (rows, classes) probabilities, or refuse what is none."""
    if values.shape != (rows, classes):
        raise ClassificationError(
            "probabilities",
            f"the shape is {values.shape} for {rows} rows and {classes} classes",
            "pass one column per class",
        )
    sound = np.isfinite(values).all() and (values >= 0).all()
    if not (sound and np.allclose(values.sum(axis=1), 1, atol=1e-4)):
        raise ClassificationError(
            "probabilities", "a row is not finite, is negative or does not sum to 1", "predict it again"
        )
    return values
