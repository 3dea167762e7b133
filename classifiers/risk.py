"""The probability of one class, malignancy above all, from neighbours, linear head and context together.

The kNN vote and the linear head have each predicted every finding of the gallery without its woman. On the log odds
of these held-out predictions, with what is known of the case besides its picture, `classifiers.stacking` is fitted; so
neither it nor its calibration has seen a prediction that was made with the woman's own rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from classifiers import ClassificationError
from classifiers.fitted import FittedClassifiers
from classifiers.labels import MISSING, Array, encode_labels, encode_patients, women_per_class
from classifiers.reliability import ReliabilityBin, bin_of, reliability
from classifiers.stacking import Stack, StackData, cross_fit_stack, fit_stacks
from classifiers.tables import METHOD_TITLES

_SURE = 1e-4  # probabilities are kept so far from 0 and 1: one sure mistake of a score must not outweigh all others


@dataclass(frozen=True)
class RiskConfig:
    """How a risk is fitted.

    Args:
        context: The columns of the context, as far as the table has them; `classifiers.context` says how they are read.
        strengths: Pull of the weights to the scores' mean and no context, as precisions of a Gaussian prior on features
            of unit variance; the one with the lowest log loss in folds of women is taken.
        folds: Folds of women.
        women_per_class: Women that the class and the rest must each have.
        new_women_per_class: Women of each that the embedder was not trained on, for a fit on these alone.
        bins: Bins of the reliability.
        seed: Seed of the folds.
    """

    context: tuple[str, ...] = ("age", "density")
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0)
    folds: int = 5
    women_per_class: int = 10
    new_women_per_class: int = 20
    bins: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise ClassificationError("risk", f"strengths {self.strengths} hold none or one that is not positive")
        if self.folds < 2 or self.women_per_class < self.folds:
            raise ClassificationError(
                "risk",
                f"{self.folds} folds of {self.women_per_class} women",
                "ask for 2 folds or more of as many women",
            )


@dataclass(frozen=True, eq=False)
class RiskModel:
    """A fitted risk.

    Args:
        positive: The class whose probability it is.
        findings: Findings that it was fitted on.
        women: Women that they belong to.
        strength: The pull of the weights that folds of women advised.
        held_out: (n,) the risk of each of these findings by a stack that was fitted without its woman; NaN elsewhere.
        reliability: What became of these findings, by their held-out risk.
        basis: What the risk rests on, in words.
        classes: The classes of the predictions that it takes.
        methods: Whose predictions.
        stack: The logistic regression.
    """

    positive: str
    findings: int
    women: int
    strength: float
    held_out: Array
    reliability: tuple[ReliabilityBin, ...]
    basis: str
    classes: tuple[str, ...]
    methods: tuple[str, ...]
    stack: Stack

    def predict(
        self, probabilities: Mapping[str, npt.ArrayLike], context: pd.DataFrame | None = None
    ) -> npt.NDArray[np.float64]:
        """Return (q,) probabilities of the positive class.

        Args:
            probabilities: By method (`knn`, `head`), (q, classes) before calibration, as `Calibrated.predict` gives.
            context: (q rows) of the context; a column that is not there is unknown.

        Raises:
            ClassificationError: A method is missing, or a prediction or a cell of the context is none.
        """
        risks: npt.NDArray[np.float64] = expit(self.stack.log_odds(*self._inputs(probabilities, context)))
        return risks

    def parts(self, probabilities: Mapping[str, npt.ArrayLike], context: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return what moves each query's risk, in log odds: the base rate, each method and each column of the context.

        A row's sum is the log odds of `predict`.
        """
        return self.stack.parts(*self._inputs(probabilities, context))

    def support(self, probability: float) -> ReliabilityBin:
        """Return the fitted findings of about this held-out risk, and what became of them."""
        return bin_of(self.reliability, probability)

    def _inputs(
        self, probabilities: Mapping[str, npt.ArrayLike], context: pd.DataFrame | None
    ) -> tuple[Array, pd.DataFrame]:
        scores = _scores(probabilities, self.methods, self.classes, self.positive)
        if not np.isfinite(scores).all():
            raise ClassificationError("risk", "a query's probability is not finite", "predict it again")
        table = pd.DataFrame(index=range(len(scores))) if context is None else context
        if len(table) != len(scores):
            raise ClassificationError("context", f"{len(table)} rows for {len(scores)} queries", "pass one per query")
        return scores, table


def fit_risk(
    fitted: FittedClassifiers,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    positive: str,
    *,
    context: pd.DataFrame | None = None,
    seen: npt.ArrayLike | None = None,
    config: RiskConfig | None = None,
) -> RiskModel:
    """Fit the risk of a class on held-out predictions of the gallery's findings.

    An embedder puts the women that it was trained on where their labels want them, so that their predictions, held
    out or not, are surer than those of new women will be. Where there are enough women that it was not trained on, the
    risk is fitted on these alone; they are neighbours and train the head like all others.

    Args:
        fitted: The classifiers, fitted to the same rows.
        labels: (n,) labels, missing where unknown.
        patients: (n,) women's keys.
        positive: The class; all others together are the rest.
        context: (n rows) what else is known; columns that `config` does not name are not looked at.
        seen: (n,) bool: the embedder was trained on the row's woman; None where nobody knows.
        config: How to fit.

    Raises:
        ClassificationError: Too few women, rows that do not fit each other, or a column that is the label itself.
    """
    config = config or RiskConfig()
    terms, keys = np.asarray(labels, dtype=object), np.asarray(patients, dtype=object)
    classes, codes = encode_labels(terms)
    women = encode_patients(keys, len(codes))[1]
    table = pd.DataFrame(index=range(len(codes))) if context is None else context.reset_index(drop=True)
    parts = {"knn": fitted.knn, "head": fitted.head}
    held_out = {method: part.held_out for method, part in parts.items() if part is not None}
    methods = tuple(held_out)
    if positive not in classes:
        raise ClassificationError("risk", f"no finding is {positive!r}", f"name one of {', '.join(classes)}")
    scores = _scores(held_out, methods, fitted.classes, positive)
    if not len(codes) == len(scores) == len(table):
        raise ClassificationError(
            "risk", f"{len(codes)} labels, {len(scores)} predictions, {len(table)} rows of context", "pass one per row"
        )
    outcome = np.where(codes == MISSING, MISSING, codes == classes.index(positive))
    lacking = _too_few(outcome, women, positive, config.women_per_class)
    if lacking:
        raise ClassificationError("risk", lacking, "add cases of other women")
    columns = [name for name in config.context if name in table.columns]
    _check_context(table[columns], codes)
    rows = np.flatnonzero(codes != MISSING)
    if not np.isfinite(scores[rows]).all():
        raise ClassificationError("risk", "a labelled finding has no held-out prediction", "add cases of other women")
    new, whose = _new_women(outcome, women, seen, positive, config.new_women_per_class)
    rows = rows if new is None else new
    # Sums in one order give one result, however the rows came in.
    rows = rows[np.lexsort((*scores[rows].T, outcome[rows], women[rows]))]
    data = StackData(scores[rows], table.loc[rows, columns], outcome[rows], keys[rows], methods)
    strength, risks = cross_fit_stack(data, config.strengths, config.folds, config.seed)
    (stack,) = fit_stacks(data, (strength,))
    everyone = np.full(len(codes), np.nan)
    everyone[rows] = risks
    names = ", ".join([*(METHOD_TITLES[method] for method in methods), *dict.fromkeys(stack.encoder.columns_)])
    count = len(np.unique(women[rows]))
    return RiskModel(
        positive=positive,
        findings=len(rows),
        women=count,
        strength=strength,
        held_out=everyone,
        reliability=reliability(terms[rows], risks, keys[rows], positive, config.bins),
        basis=f"{names}, stacked on held-out predictions of {len(rows)} findings of {count} women{whose}",
        classes=fitted.classes,
        methods=methods,
        stack=stack,
    )


def _scores(
    probabilities: Mapping[str, npt.ArrayLike], methods: tuple[str, ...], classes: tuple[str, ...], positive: str
) -> Array:
    """Return (rows, methods) log odds of the positive class."""
    columns = []
    for method in methods:
        if method not in probabilities:
            raise ClassificationError("risk", f"there is no {method} prediction", "pass what it was fitted on")
        values = np.asarray(probabilities[method], dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(classes):
            raise ClassificationError("risk", f"{method} predictions of shape {values.shape}", "one column per class")
        columns.append(logit(np.clip(values[:, classes.index(positive)], _SURE, 1 - _SURE)))
    if len({len(column) for column in columns}) > 1:
        raise ClassificationError("risk", "its methods predicted different rows", "predict the same ones")
    return np.stack(columns, axis=1)


def _too_few(outcome: Array, women: Array, positive: str, needed: int) -> str:
    """Say why there are too few women for a risk; empty where there are enough."""
    rest, own = women_per_class(outcome, women, 2).tolist()
    if own < needed:
        return f"{own} women with {positive}, {needed} are needed"
    return f"{rest} women with another outcome than {positive}, {needed} are needed" if rest < needed else ""


def _new_women(
    outcome: Array, women: Array, seen: npt.ArrayLike | None, positive: str, needed: int
) -> tuple[Array | None, str]:
    """Return the labelled rows of women that the embedder was not trained on, None to take all, and whose they are."""
    if seen is None:
        return None, ""
    mask = np.asarray(seen)
    if mask.shape != outcome.shape or mask.dtype != np.bool_:
        raise ClassificationError("risk", f"{mask.shape} says whom the embedder saw of {len(outcome)} rows")
    if not mask[outcome != MISSING].any():
        return None, ", none of whom the embedder was trained on"
    new = np.where(mask, MISSING, outcome)
    lacking = _too_few(new, women, positive, needed)
    if lacking:
        return None, f", whom the embedder was trained on: it may be too sure (of others, {lacking})"
    return np.flatnonzero(new != MISSING), " that the embedder was not trained on"


def _check_context(context: pd.DataFrame, codes: Array) -> None:
    """Refuse a column that is the label in other words."""
    for name in context.columns:
        cells = context[name].to_numpy(dtype=object)
        both = (codes != MISSING) & ~np.asarray(pd.isna(cells), dtype=bool)
        pairs = set(zip(codes[both].tolist(), map(str, cells[both]), strict=True))
        if len(pairs) > 1 and len(pairs) == len({code for code, _ in pairs}) == len({cell for _, cell in pairs}):
            raise ClassificationError("context", f"the column {name!r} is the label in other words", "leave it out")
