"""One logistic regression on the log odds of several scores and on the context of a case.

Stacked generalisation (Wolpert, Neural Networks 5, 1992), which with a single score is Platt's calibration (Advances in
Large Margin Classifiers, 1999). Scores have weights of 0 or more (Breiman, Machine Learning 24, 1996): where few women
make a score look as if it told the opposite, it is left out and not turned round. Weights are pulled to what would be
believed without any data: the mean of the scores' log odds as they are, and nothing of the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from classifiers.context import ContextEncoder
from classifiers.folds import patient_folds
from classifiers.labels import Array

BASE_RATE = "base rate"
"""The part of a log odds that a finding has in which everything is average."""


@dataclass(frozen=True, eq=False)
class StackData:
    """What a stack is fitted to.

    Args:
        scores: (n, methods) log odds of held-out predictions.
        context: (n rows) the context's columns, which may be none.
        outcome: (n,) 1 of the class, 0 of the rest.
        patients: (n,) women's keys.
        methods: The names of the scores.
    """

    scores: Array
    context: pd.DataFrame
    outcome: Array
    patients: Array
    methods: tuple[str, ...]

    def take(self, rows: Array) -> "StackData":
        """Return some of the rows."""
        return StackData(
            self.scores[rows], self.context.iloc[rows], self.outcome[rows], self.patients[rows], self.methods
        )


@dataclass(frozen=True, eq=False)
class Stack:
    """A fitted logistic regression, and the statistics of its features.

    Args:
        methods: The names of the scores.
        encoder: What makes features of the context.
        centre: (features,) their means.
        spread: (features,) their standard deviations.
        weights: (features,) of the standardised features.
        intercept: Log odds of an average finding.
    """

    methods: tuple[str, ...]
    encoder: ContextEncoder
    centre: Array
    spread: Array
    weights: Array
    intercept: float

    def log_odds(self, scores: Array, context: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return (q,) log odds of the class, for (q, methods) log odds of scores and (q rows) of context."""
        return _standardised(self.encoder, self.centre, self.spread, scores, context) @ self.weights + self.intercept

    def parts(self, scores: Array, context: pd.DataFrame) -> pd.DataFrame:
        """Return (q rows) of what the log odds are the sum of: base rate, each score, each column of the context."""
        terms = _standardised(self.encoder, self.centre, self.spread, scores, context) * self.weights
        parts = pd.DataFrame({BASE_RATE: np.full(len(scores), self.intercept)})
        for name, term in zip((*self.methods, *self.encoder.columns_), terms.T, strict=True):
            parts[name] = parts[name] + term if name in parts else term
        return parts


def fit_stacks(data: StackData, strengths: Sequence[float]) -> list[Stack]:
    """Fit one stack for each strength.

    Args:
        data: What to fit to.
        strengths: Pull of the weights, as precisions of a Gaussian prior on features of unit variance.
    """
    encoder = ContextEncoder(tuple(map(str, data.context.columns))).fit(data.context)
    raw = np.hstack([data.scores, encoder.transform(data.context)])
    centre, spread = raw.mean(axis=0), raw.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    features = (raw - centre) / spread
    scores = len(data.methods)
    prior = np.concatenate([spread[:scores] / scores, np.zeros(len(spread) - scores)])
    stacks = []
    for strength in strengths:
        weights, intercept = _solve(features, data.outcome, strength, prior, scores)
        stacks.append(Stack(data.methods, encoder, centre, spread, weights, intercept))
    return stacks


def cross_fit_stack(
    data: StackData, strengths: Sequence[float], folds: int, seed: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Choose a strength by folds of women, and predict every woman by a stack that does not know her.

    Args:
        data: What to fit to.
        strengths: The strengths to choose from.
        folds: Folds of women.
        seed: Seed of the folds.

    Returns:
        The strength with the lowest log loss on held-out women (the largest of equals), and its (n,) probabilities.
    """
    ordered = sorted(strengths, reverse=True)
    odds = np.empty((len(ordered), len(data.outcome)))
    for fold in patient_folds(data.patients, data.outcome.astype(str), folds, seed):
        test = data.take(fold.test)
        for place, stack in enumerate(fit_stacks(data.take(fold.train), ordered)):
            odds[place, fold.test] = stack.log_odds(test.scores, test.context)
    losses = (np.logaddexp(0.0, odds) - data.outcome * odds).sum(axis=1)
    best = int(np.argmin(losses))
    return ordered[best], np.asarray(expit(odds[best]))


def _solve(features: Array, outcome: Array, strength: float, prior: Array, scores: int) -> tuple[Array, float]:
    """Return (features,) weights, pulled to the prior's, those of the first `scores` 0 or more; and the intercept."""

    def loss(parameters: Array) -> tuple[float, Array]:
        weights = parameters[1:]
        odds = features @ weights + parameters[0]
        away = weights - prior
        value = (np.logaddexp(0.0, odds) - outcome * odds).sum() + strength * away @ away / 2
        excess = expit(odds) - outcome
        return float(value), np.concatenate([[excess.sum()], features.T @ excess + strength * away])

    bounds = [(None, None), *[(0.0, None)] * scores, *[(None, None)] * (features.shape[1] - scores)]
    best = minimize(loss, np.concatenate([[0.0], prior]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return best[1:], float(best[0])


def _standardised(encoder: ContextEncoder, centre: Array, spread: Array, scores: Array, context: pd.DataFrame) -> Array:
    return (np.hstack([scores, encoder.transform(context)]) - centre) / spread
