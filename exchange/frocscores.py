"""What an evaluation of detections tells: figures with their intervals, and curves with their bands."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from index.metrics import Estimate


@dataclass(frozen=True)
class Curve:
    """A curve with its band.

    Args:
        places: Along the horizontal axis.
        values: Of all women.
        low: Lower ends of the intervals, NaN where there are none.
        high: Upper ends.
    """

    places: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_dict(self) -> dict[str, list[float | None]]:
        """Return the curve as plain JSON values."""
        return {name: [_json(number) for number in getattr(self, name)] for name in ("places", "values", "low", "high")}


@dataclass(frozen=True)
class UnitScores:
    """How many of some units are found.

    Args:
        sensitivity: By false positives an image.
        mean: Of the sensitivities.
        average_precision: By the rule of the matching; false positives are those of all images that were looked at,
            also where only lesions of one type are to be found.
        froc: The curve.
        precision: Precision over recall, interpolated.
    """

    sensitivity: dict[float, Estimate]
    mean: Estimate
    average_precision: Estimate
    froc: Curve
    precision: Curve

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""
        return {
            "sensitivity": {f"{rate:g}": estimate.to_dict() for rate, estimate in self.sensitivity.items()},
            "mean_sensitivity": self.mean.to_dict(),
            "average_precision": self.average_precision.to_dict(),
            "froc": self.froc.to_dict(),
            "precision_over_recall": self.precision.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """All scores of one set of detections, and what they are of.

    Args:
        context: The rule, the data, how intervals are made.
        counts: Images, women, lesions, detections and what became of them.
        units: By `exchange.froc.UNITS`.
        thresholds: By rate, the lowest score with no more false positives an image; None where none has so few.
        average_precision: Of lesions, by matching rule.
        precision_curves: Of lesions, by matching rule.
        lesion_types: Of the lesions of each type, at thresholds set by the false positives of all images.
        densities: Of the images of each breast density, their lesions and false positives.
        outcomes: What became of each detection, see `exchange.judging.Judgement`.
        notes: What was left out, and why.
    """

    context: dict[str, Any]
    counts: dict[str, float]
    units: dict[str, UnitScores]
    thresholds: dict[float, float | None]
    average_precision: dict[str, Estimate]
    precision_curves: dict[str, Curve]
    lesion_types: dict[str, UnitScores]
    densities: dict[str, UnitScores]
    outcomes: pd.DataFrame
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values, without the outcomes: they name no woman."""
        groups = {name: getattr(self, name) for name in ("units", "lesion_types", "densities")}
        return {
            "context": self.context,
            "counts": self.counts,
            **{name: {term: scores.to_dict() for term, scores in group.items()} for name, group in groups.items()},
            "thresholds": {f"{rate:g}": threshold for rate, threshold in self.thresholds.items()},
            "average_precision": {rule: estimate.to_dict() for rule, estimate in self.average_precision.items()},
            "precision_curves": {rule: curve.to_dict() for rule, curve in self.precision_curves.items()},
            "notes": list(self.notes),
        }


def _json(number: float) -> float | None:
    return number if math.isfinite(number) else None
