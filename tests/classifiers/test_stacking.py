from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from classifiers.folds import patient_folds
from classifiers.stacking import BASE_RATE, Stack, StackData, cross_fit_stack, fit_stacks


def some_data(seed=0, women=60, signal=(1.0, 0.5), age=0.8):
    rng = np.random.default_rng(seed)
    outcome = np.arange(2 * women) // 2 % 2
    side = 2.0 * outcome - 1
    scores = side[:, None] * signal + rng.normal(size=(2 * women, 2))
    ages = 50 + 10 * (age * side + rng.normal(size=2 * women))
    ages[::7] = np.nan
    context = pd.DataFrame({"age": ages})
    patients = np.array([f"a/{number}" for number in range(women)], dtype=object).repeat(2)
    return StackData(scores, context, outcome, patients, ("knn", "head"))


def standardised(data):
    numbers = data.context["age"].to_numpy()
    known = numbers[~np.isnan(numbers)]
    age = np.where(np.isnan(numbers), 0, (numbers - known.mean()) / known.std())
    raw = np.column_stack([data.scores, age, np.isnan(numbers)])
    return (raw - raw.mean(axis=0)) / raw.std(axis=0)


def fit_stack(data, strength) -> Stack:
    (stack,) = fit_stacks(data, (strength,))
    return stack


def slow_fit(data, strength):
    """The same minimum, without slopes or bounds: intercept and weights."""
    features = standardised(data)
    prior = np.array([*data.scores.std(axis=0) / 2, 0, 0])

    def loss(parameters):
        odds = parameters[0] + features @ parameters[1:]
        own = np.where(data.outcome == 1, expit(odds), 1 - expit(odds))
        return -np.log(own).sum() + strength * np.square(parameters[1:] - prior).sum() / 2

    return minimize(loss, np.zeros(5), method="Nelder-Mead", options={"maxfev": 20000, "xatol": 1e-9, "fatol": 1e-12}).x


@pytest.mark.parametrize("strength", [0.5, 10.0])
def test_it_is_a_logistic_regression_pulled_to_the_mean_of_the_scores(strength):
    data = some_data()
    stack = fit_stack(data, strength)
    peer = slow_fit(data, strength)
    np.testing.assert_allclose(stack.weights, peer[1:], atol=1e-3)
    odds = stack.log_odds(data.scores, data.context)
    np.testing.assert_allclose(odds, peer[0] + standardised(data) @ peer[1:], atol=5e-3)


def test_a_strong_pull_leaves_the_mean_of_the_scores_and_no_context():
    data = some_data()
    odds = fit_stack(data, 1e5).log_odds(data.scores, data.context)
    mean = data.scores.mean(axis=1)
    np.testing.assert_allclose(odds - odds.mean(), mean - mean.mean(), atol=0.01)
    # The base rate is free: probabilities are right on average.
    assert expit(odds).mean() == pytest.approx(data.outcome.mean(), abs=1e-3)


def test_a_score_that_points_the_wrong_way_is_left_out_and_not_turned_round():
    data = some_data(signal=(1.0, -1.0))
    stack = fit_stack(data, 1.0)
    assert stack.weights[0] > 0.3
    assert stack.weights[1] == 0
    # Context may point either way.
    assert fit_stack(some_data(age=-0.8), 1.0).weights[2] < -0.2


def test_the_parts_of_a_query_sum_to_its_log_odds():
    data = some_data()
    stack = fit_stack(data, 1.0)
    parts = stack.parts(data.scores, data.context)
    assert parts.columns.tolist() == [BASE_RATE, "knn", "head", "age"]
    np.testing.assert_allclose(parts.sum(axis=1), stack.log_odds(data.scores, data.context))
    # An average finding has the base rate: what is unknown of it moves it by no more than being unknown does.
    np.testing.assert_array_equal(parts[BASE_RATE], stack.intercept)
    np.testing.assert_allclose(parts.drop(columns=BASE_RATE).mean(), 0, atol=1e-9)


def test_every_woman_is_predicted_by_a_stack_that_does_not_know_her():
    data = some_data()
    strength, found = cross_fit_stack(data, (1.0, 10.0, 100.0), 4, 3)
    losses = {}
    for each in (1.0, 10.0, 100.0):
        slow = np.full(len(found), np.nan)
        for fold in patient_folds(data.patients, data.outcome.astype(str), 4, 3):
            stack = fit_stack(data.take(fold.train), each)
            slow[fold.test] = expit(stack.log_odds(data.scores[fold.test], data.context.iloc[fold.test]))
        losses[each] = -np.log(np.where(data.outcome == 1, slow, 1 - slow)).sum()
        if each == strength:
            np.testing.assert_allclose(found, slow)
    assert strength == min(losses, key=losses.get)


def test_scores_that_are_too_sure_are_flattened():
    data = some_data(seed=4, signal=(0.3, 0.3), age=0.0)
    sure = replace(data, scores=5 * data.scores)
    strength, found = cross_fit_stack(sure, (1.0, 1000.0), 5, 0)
    assert strength == 1.0

    def loss(risks):
        return -np.log(np.where(data.outcome == 1, risks, 1 - risks)).mean()

    assert loss(found) < loss(expit(sure.scores.mean(axis=1))) - 0.1
