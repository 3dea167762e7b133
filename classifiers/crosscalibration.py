"""Probabilities calibrated on the test women of the other folds, whom their models had not seen either.

A trained embedder puts the women it was trained on where their labels want them, so that votes and heads fitted on
them are too sure of new women, and so is a calibration fitted on them. The test women of the other folds were new to
the models that answered for them. Those models had learned from this fold's women; what could come of that through the
one to seven numbers of a calibration is next to nothing.

scikit-learn's `CalibratedClassifierCV(ensemble=False)` calibrates on cross-validated predictions in the same way.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from classifiers import ClassificationError
from classifiers.calibration import Calibration, CalibrationConfig
from classifiers.labels import Array, spread_columns
from classifiers.predictions import FoldPredictions, TargetPredictions

CalibratedOn = Literal["gallery", "folds"]


def calibrate_across_folds(
    folds: Sequence[FoldPredictions], config: CalibrationConfig | None = None
) -> list[FoldPredictions]:
    """Calibrate each fold's probabilities anew on the other folds' of the same seed.

    Args:
        folds: The folds of one or more seeds; each woman is in one of them for each seed.
        config: How much data a calibration needs; with less it leaves probabilities as they are and says so.

    Returns:
        The folds in the same order, with other probabilities and all else as it was.

    Raises:
        ClassificationError: A seed has one fold only.
    """
    return [
        replace(
            fold,
            targets={
                name: _calibrated(
                    target,
                    [
                        (other.targets[name], other.queries["woman"].to_numpy(dtype=object))
                        for other in _others(folds, number)
                    ],
                    config,
                )
                for name, target in fold.targets.items()
            },
        )
        for number, fold in enumerate(folds)
    ]


def _others(folds: Sequence[FoldPredictions], number: int) -> list[FoldPredictions]:
    others = [other for place, other in enumerate(folds) if place != number and other.seed == folds[number].seed]
    if not others:
        raise ClassificationError(
            "calibration", f"seed {folds[number].seed} has one fold, and so no other to calibrate it on", "use gallery"
        )
    return others


def _calibrated(
    target: TargetPredictions, others: Sequence[tuple[TargetPredictions, Array]], config: CalibrationConfig | None
) -> TargetPredictions:
    probabilities, basis = dict(target.probabilities), dict(target.calibration)
    for method, values in target.probabilities.items():
        found = [(part, women) for part, women in others if method in part.probabilities]
        if not found:
            continue
        calibration = Calibration(config)
        calibration.fit(
            np.concatenate([_spread(part, method, target.classes) for part, _ in found]),
            np.concatenate([_known(part, target.classes) for part, _ in found]),
            np.concatenate([women for _, women in found]),
            target.classes,
        )
        known = ~np.isnan(values).any(axis=1)
        changed = values.copy()
        if known.any():
            changed[known] = calibration.transform(values[known])
        probabilities[method], basis[method] = changed, f"{calibration.basis_}, the test women of the other folds"
    return replace(target, probabilities=probabilities, calibration=basis)


def _known(part: TargetPredictions, classes: Sequence[str]) -> Array:
    """Return a fold's labels, those that the calibrated fold has no class for as if unknown."""
    return np.array([label if label in classes else None for label in part.labels], dtype=object)


def _spread(part: TargetPredictions, method: str, classes: Sequence[str]) -> Array:
    """Return a fold's probabilities of another fold's classes, each row's sum 1."""
    everything = tuple(dict.fromkeys((*classes, *part.classes)))
    values = spread_columns(part.probabilities[method], part.classes, everything)[:, : len(classes)]
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, 1 / len(classes)), where=total > 0)
