"""Two sets of detections on the same images, such as before and after rescoring: what the second one gains."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from exchange.froc import PRECISION_RULES, UNITS, FrocConfig, make_context, row_size, unit_marks
from exchange.frocsweep import Array, Marks, average_precision, rate_needed, resampled, sensitivity_at, sweep
from exchange.judging import Judgement, Truth, judge
from index.metrics import Estimate, summarise


@dataclass(frozen=True)
class FalsePositiveChange:
    """The false positives that two sets of detections need for one sensitivity.

    Args:
        sensitivity: What the first set reaches at a rate of false positives, and the second must reach.
        first: False positives an image that the first set needs for it, at most the rate.
        second: That the second set needs; NaN where it never reaches it.
        saved: first - second.
        reduction: Share of the first set's false positives that the second set does without: 1 - second / first. Below
            0 where it needs more; NaN where the first needs none.
    """

    sensitivity: Estimate
    first: Estimate
    second: Estimate
    saved: Estimate
    reduction: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        names = ("sensitivity", "first", "second", "saved", "reduction")
        return {name: getattr(self, name).to_dict() for name in names}


@dataclass(frozen=True)
class DetectionComparison:
    """What the second of two sets of detections gains: second - first, above 0 where the second is better.

    Args:
        first: Name of the first set.
        second: Name of the second.
        context: As of `exchange.froc.DetectionScores`.
        sensitivity: By unit and by false positives an image.
        mean_sensitivity: By unit.
        average_precision: Of lesions, by matching rule.
        false_positives: Of lesions, by the rate that says which sensitivity is compared.
        notes: What the figures don't say by themselves; what was left out of either set, its own scores say.
    """

    first: str
    second: str
    context: dict[str, Any]
    sensitivity: dict[str, dict[float, Estimate]]
    mean_sensitivity: dict[str, Estimate]
    average_precision: dict[str, Estimate]
    false_positives: dict[float, FalsePositiveChange]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values. It names no woman."""
        return {
            "first": self.first,
            "second": self.second,
            "context": self.context,
            "sensitivity": {
                unit: {f"{rate:g}": estimate.to_dict() for rate, estimate in found.items()}
                for unit, found in self.sensitivity.items()
            },
            "mean_sensitivity": {unit: estimate.to_dict() for unit, estimate in self.mean_sensitivity.items()},
            "average_precision": {rule: estimate.to_dict() for rule, estimate in self.average_precision.items()},
            "false_positives": {f"{rate:g}": change.to_dict() for rate, change in self.false_positives.items()},
            "notes": list(self.notes),
        }


def compare_detections(
    truth: Truth,
    first: pd.DataFrame,
    second: pd.DataFrame,
    config: FrocConfig | None = None,
    *,
    names: tuple[str, str] = ("given", "rescored"),
    progress: Callable[[int, int], None] | None = None,
) -> DetectionComparison:
    """Compare two sets of detections on the same images, with paired intervals.

    Each resample of women scores both sets anew, so that what makes a woman easy or hard for both cancels out. The
    sensitivity at which false positives are compared is found anew in each resample too: it is no constant. Intervals
    are percentiles of the resamples in which a figure is defined, see `index.metrics.Estimate.resamples`.

    Args:
        truth: The images that were looked at, by both.
        first: Detections, see `exchange.froc.score_detections`.
        second: Detections, which may be others or the same with other scores.
        config: How.
        names: Of the two sets.
        progress: Called with tables done and tables in all.

    Raises:
        ExchangeError: Detections that can't be judged.
        QueryError: Resampling that is impossible.
    """
    config = config or FrocConfig()
    judged = [judge(truth, table, config.rule) for table in (first, second)]
    total = len(UNITS) + len(PRECISION_RULES)
    sensitivity: dict[str, dict[float, Estimate]] = {}
    means: dict[str, Estimate] = {}
    false: dict[float, FalsePositiveChange] = {}
    for done, unit in enumerate(UNITS, start=1):
        pair = _marks(judged, unit)
        estimates = _estimates(
            pair, lambda one, other, weights: _sensitivity_gain(one, other, weights, config.rates), config
        )
        sensitivity[unit] = dict(zip(config.rates, estimates, strict=False))
        means[unit] = estimates[-1]
        if unit == "lesion":
            false = _false_positives(pair, config)
        if progress is not None:
            progress(done, total)
    precision: dict[str, Estimate] = {}
    for done, rule in enumerate(PRECISION_RULES, start=len(UNITS) + 1):
        same = replace(rule, duplicates=config.rule.duplicates)
        pair = _marks([judge(truth, table, same) for table in (first, second)], "lesion")
        precision[str(rule)] = _estimates(pair, _precision_gain, config)[0]
        if progress is not None:
            progress(done, total)
    return DetectionComparison(
        names[0],
        names[1],
        make_context(truth, config, first, second),
        sensitivity,
        means,
        precision,
        false,
        _reached(false, names, config),
    )


def _marks(judged: list[Judgement], unit: str) -> tuple[Marks, Marks]:
    return unit_marks(judged[0], unit), unit_marks(judged[1], unit)


def _sensitivity_gain(first: Marks, second: Marks, weights: Array, rates: tuple[float, ...]) -> Array:
    gain = sensitivity_at(sweep(second, weights), rates) - sensitivity_at(sweep(first, weights), rates)
    return np.concatenate([gain, gain.mean(axis=1, keepdims=True)], axis=1)


def _precision_gain(first: Marks, second: Marks, weights: Array) -> Array:
    gain = average_precision(sweep(second, weights)) - average_precision(sweep(first, weights))
    return np.asarray(gain[:, None], np.float64)


def _estimates(
    pair: tuple[Marks, Marks], measure: Callable[[Marks, Marks, Array], Array], config: FrocConfig
) -> list[Estimate]:
    """Return the figures of a pair with their intervals."""
    first, second = pair
    value, drawn = resampled(
        lambda weights: measure(first, second, weights),
        women=first.women,
        row=row_size(first) + row_size(second),
        resamples=config.resamples,
        seed=config.seed,
    )
    women = len(np.unique(first.unit_women))
    return [
        summarise(float(one), drawn[:, column], level=config.level, items=len(first.unit_scores), women=women)
        for column, one in enumerate(value)
    ]


def _false_positives(pair: tuple[Marks, Marks], config: FrocConfig) -> dict[float, FalsePositiveChange]:
    def measure(first: Marks, second: Marks, weights: Array) -> Array:
        ours, theirs = sweep(first, weights), sweep(second, weights)
        reached = sensitivity_at(ours, config.rates)
        needed, other = rate_needed(ours, reached), rate_needed(theirs, reached)
        share = np.divide(other, needed, out=np.full(other.shape, np.nan), where=needed > 0)
        figures = np.stack([reached, needed, other, needed - other, 1 - share], axis=2)
        return figures.reshape(len(figures), -1)

    estimates = iter(_estimates(pair, measure, config))
    return {rate: FalsePositiveChange(*(next(estimates) for _ in range(5))) for rate in config.rates}


def _reached(false: dict[float, FalsePositiveChange], names: tuple[str, str], config: FrocConfig) -> tuple[str, ...]:
    """Say where the second set does not reach the sensitivity of the first: those resamples have no figure."""
    notes = []
    for rate, change in false.items():
        lost = change.first.resamples - change.second.resamples
        if lost:
            notes.append(
                f"at {rate:g} false positives an image {names[1]} does not reach the sensitivity of {names[0]}"
                f" in {lost} of {config.resamples} resamples, which have no part in the interval"
            )
    return tuple(notes)
