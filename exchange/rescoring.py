"""A detection's score anew: what the detector said and what the gallery says of places like it, in one probability.

The probability that a detection marks a lesion is a stack (`classifiers.stacking`) of log odds: the detector's own
score and the gallery's evidence (vote and head of lesion against normal tissue, and the risk of malignancy). It is
fitted on detections whose truth is known, of other women; weights are 0 or more, so that a score that seems to tell the
opposite is left out. What is not known of a detection counts as what is usual.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from classifiers.context import ContextEncoder
from classifiers.folds import patient_folds
from classifiers.stacking import Stack, StackData, cross_fit_stack, fit_stacks
from exchange import ExchangeError
from index.durable import storage_error, write_whole

DETECTOR = "detector"
"""Name of the detector's own score among the evidence."""

FORMAT = 1
STRENGTHS = (1.0, 10.0, 100.0)
"""Pull of the weights to the mean of the scores as they are, see `classifiers.stacking`; folds of women choose."""

FEWEST_WOMEN = 10
"""Women with a hit, and with a false alarm, that a fit needs."""

_SURE = 1e-4  # scores are kept so far from 0 and 1: one sure mistake must not outweigh all others
_LARGEST_FILE = 1 << 20

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rescorer:
    """A fitted rescoring.

    Args:
        methods: Names of the scores that it takes, the detector's first.
        usual: (methods,) log odds that a score counts as where it is not known.
        stack: The logistic regression.
        detections: Detections that it was fitted on.
        women: Women that they belong to.
        model_digest: The model of the gallery whose evidence it takes.
    """

    methods: tuple[str, ...]
    usual: Probabilities
    stack: Stack
    detections: int
    women: int
    model_digest: str

    @property
    def basis(self) -> str:
        """What the new scores rest on, in words."""
        used = [
            f"{name} × {weight / spread:.2f}"
            for name, weight, spread in zip(self.methods, self.stack.weights, self.stack.spread, strict=True)
            if weight > 0
        ]
        return (
            f"log odds of {', '.join(used) or 'nothing'}, stacked on {self.detections} detections of {self.women} women"
        )

    def rescore(self, evidence: pd.DataFrame) -> Probabilities:
        """Return (n,) probabilities that detections mark a lesion.

        Args:
            evidence: (n rows) a column of probabilities for each method; NaN where unknown.

        Raises:
            ExchangeError: A method has no column, or a score is not in [0, 1].
        """
        odds = _log_odds(evidence, self.methods)
        odds = np.where(np.isnan(odds), self.usual, odds)
        return np.asarray(expit(self.stack.log_odds(odds, pd.DataFrame(index=range(len(odds))))), np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values. They name no woman."""
        return {
            "format": FORMAT,
            "methods": list(self.methods),
            "usual": self.usual.tolist(),
            "centre": self.stack.centre.tolist(),
            "spread": self.stack.spread.tolist(),
            "weights": self.stack.weights.tolist(),
            "intercept": self.stack.intercept,
            "detections": self.detections,
            "women": self.women,
            "model_digest": self.model_digest,
        }

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            ExchangeError: It can't be written.
        """
        try:
            write_whole(Path(path), (json.dumps(self.to_dict(), indent=1) + "\n").encode())
        except OSError as error:
            reason = storage_error(Path(path), error)
            raise ExchangeError(path, reason.cause, reason.remedy) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ExchangeError: There is no such file, or it is none.
        """
        path = Path(path)
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise ValueError("it is too large")
            content = json.loads(path.read_text("utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}")
            methods = tuple(str(name) for name in content["methods"])
            usual, centre, spread, weights = (
                _numbers(content[name], len(methods)) for name in ("usual", "centre", "spread", "weights")
            )
            if not methods or methods[0] != DETECTOR or len(set(methods)) != len(methods):
                raise ValueError("its methods are not those of a rescoring")
            if (spread <= 0).any() or (weights < 0).any():
                raise ValueError("a spread or a weight is out of range")
            stack = Stack(
                methods, _no_context(), centre, spread, weights, float(_numbers([content["intercept"]], 1)[0])
            )
            return cls(
                methods, usual, stack, int(content["detections"]), int(content["women"]), str(content["model_digest"])
            )
        except OSError as error:
            raise ExchangeError(path, f"can't be read ({error.strerror})", "check its name") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ExchangeError(
                path, f"is no rescoring that can be used ({error})", "make one by `mammoseek rescore fit`"
            ) from error


def fit_rescorer(
    evidence: pd.DataFrame,
    hits: npt.ArrayLike,
    women: npt.ArrayLike,
    *,
    model_digest: str,
    folds: int = 5,
    seed: int = 0,
) -> Rescorer:
    """Fit a rescoring to detections whose truth is known.

    Args:
        evidence: (n rows) probabilities by method, NaN where unknown; `DETECTOR` is one of the columns.
        hits: (n,) bool: the detection marks a lesion.
        women: (n,) the detections' women.
        model_digest: The model of the gallery whose evidence this is.
        folds: Folds of women by which the strength is chosen.
        seed: Of the folds.

    Raises:
        ExchangeError: Too few women, or evidence that can't be used.
    """
    data, usual = _data(evidence, hits, women)
    strength, _ = cross_fit_stack(data, STRENGTHS, folds, seed)
    (stack,) = fit_stacks(data, (strength,))
    return Rescorer(data.methods, usual, stack, len(data.outcome), len(set(data.patients)), model_digest)


def cross_fitted_scores(
    evidence: pd.DataFrame,
    hits: npt.ArrayLike,
    women: npt.ArrayLike,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Probabilities:
    """Return (n,) new scores, each by a rescoring that was fitted, its strength chosen too, without the woman.

    Args:
        evidence: As for `fit_rescorer`.
        hits: As for `fit_rescorer`.
        women: As for `fit_rescorer`.
        folds: Folds of women.
        seed: Of the folds.

    Raises:
        ExchangeError: As `fit_rescorer`.
    """
    keys, truth = np.asarray(women, dtype=object), np.asarray(hits)
    _data(evidence, truth, keys)
    scores = np.full(len(keys), np.nan)
    for fold in patient_folds(keys, truth.astype(str), folds, seed):
        try:
            rescorer = fit_rescorer(
                evidence.iloc[fold.train], truth[fold.train], keys[fold.train], model_digest="", folds=folds, seed=seed
            )
        except ExchangeError as error:
            cause = f"with one of {folds} folds of women left out, {error.cause}"
            raise ExchangeError(error.subject, cause, error.remedy) from error
        scores[fold.test] = rescorer.rescore(evidence.iloc[fold.test])
    return scores


def _data(evidence: pd.DataFrame, hits: npt.ArrayLike, women: npt.ArrayLike) -> tuple[StackData, Probabilities]:
    """Return what a stack is fitted to, and the usual log odds of each score."""
    truth, keys = np.asarray(hits), np.asarray(women, dtype=object)
    if not len(evidence) == len(truth) == len(keys) or truth.dtype != np.bool_:
        raise ExchangeError("rescoring", "there is not one truth and one woman for each detection", "pass one each")
    for what, side in (("a hit", truth), ("a false alarm", ~truth)):
        count = len(set(keys[side]))
        if count < FEWEST_WOMEN:
            raise ExchangeError(
                "rescoring",
                f"{count} women have {what}, {FEWEST_WOMEN} are needed",
                "add detections of other women whose truth is known",
            )
    if DETECTOR not in evidence.columns:
        raise ExchangeError("rescoring", f"the evidence has no column {DETECTOR!r}", "name the detector's scores so")
    odds = _log_odds(evidence, [str(name) for name in evidence.columns])
    known = [number for number in range(odds.shape[1]) if not np.isnan(odds[:, number]).all()]
    names = [str(evidence.columns[number]) for number in known]
    order = sorted(range(len(names)), key=lambda place: names[place] != DETECTOR)
    if DETECTOR not in names:
        raise ExchangeError("rescoring", "no detection has a score of the detector", "name a table with scores")
    odds = odds[:, known][:, order]
    usual = np.nanmean(odds, axis=0)
    odds = np.where(np.isnan(odds), usual, odds)
    methods = tuple(names[place] for place in order)
    return StackData(odds, pd.DataFrame(index=range(len(odds))), truth.astype(np.float64), keys, methods), usual


def _log_odds(evidence: pd.DataFrame, methods: Sequence[str]) -> Probabilities:
    """Return (n, methods) log odds, NaN where unknown."""
    absent = [name for name in methods if name not in evidence.columns]
    if absent:
        raise ExchangeError("rescoring", f"the evidence has no {absent[0]}", "use the gallery that it was fitted with")
    values = evidence[list(methods)].to_numpy(dtype=np.float64)
    known = ~np.isnan(values)
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise ExchangeError("rescoring", "a score is not in [0, 1]", "give the detector's scores as probabilities")
    return np.asarray(logit(np.clip(values, _SURE, 1 - _SURE)), np.float64)


def _numbers(values: Any, count: int) -> Probabilities:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{count} numbers were expected")
    return numbers


def _no_context() -> ContextEncoder:
    return ContextEncoder(()).fit(pd.DataFrame(index=range(1)))


def evidence_frame(rows: Sequence[Mapping[str, float | None]]) -> pd.DataFrame:
    """Return evidence by method as the table that a rescoring takes; None and what is absent are unknown."""
    return pd.DataFrame([dict(row) for row in rows], dtype=np.float64)
