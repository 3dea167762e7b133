"""How well detections find lesions: FROC and average precision, with intervals over women.

FROC gives the share of lesions found over the false positives an image, threshold by threshold (Bunch et al., Proc SPIE
127, 1977; Chakraborty, Medical Physics 16, 1989). Its mean over rates from 1/8 to 8 is the figure of LUNA16 and ANODE09
(van Ginneken et al., Medical Image Analysis 14, 2010). False positives are counted over all images that were looked at,
with lesions and without, those without a detection too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from exchange import ExchangeError
from exchange.frocscores import Curve, DetectionScores, UnitScores
from exchange.frocsweep import (
    Array,
    Marks,
    average_precision,
    places_at,
    precision_at,
    resampled,
    sensitivity_at,
    sweep,
)
from exchange.judging import Judgement, Truth, judge
from exchange.matching import MatchingRule
from index.metrics import summarise

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives an image at which sensitivity is told."""

UNITS = ("lesion", "image", "woman")
"""What is to be found. An image, or a woman, is found when any of her lesions is."""

PRECISION_RULES = (MatchingRule("iou", iou=0.2), MatchingRule("iou", iou=0.5), MatchingRule("centre"))
"""The rules of average precision."""

CURVE_RATES = tuple(2.0 ** (step / 8) for step in range(-40, 33))
"""Where a FROC curve is drawn: 1/32 to 16 false positives an image."""

CURVE_RECALLS = tuple(step / 50 for step in range(1, 51))
"""Where a curve of precision over recall is drawn."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class FrocConfig:
    """How detections are scored.

    Args:
        rule: When a detection hits a lesion. Average precision is told by `PRECISION_RULES` as well, with duplicates
            as this rule has them.
        rates: False positives an image at which sensitivity is told, ascending.
        resamples: Of the women.
        seed: Of the resampling.
        level: Coverage of the intervals.

    Raises:
        ExchangeError: Rates that are none, or out of order.
    """

    rule: MatchingRule = MatchingRule()  # noqa: RUF009 frozen
    rates: tuple[float, ...] = RATES
    resamples: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        good = all(math.isfinite(rate) and rate > 0 for rate in self.rates)
        if not self.rates or not good or list(self.rates) != sorted(set(self.rates)):
            raise ExchangeError("rates", f"{self.rates} are no ascending numbers above 0", "such as 0.5, 1 and 2")


def score_detections(
    truth: Truth,
    detections: pd.DataFrame,
    config: FrocConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionScores:
    """Score detections, with intervals from resampling women.

    Args:
        truth: The images that were looked at, and their lesions.
        detections: A table as `exchange.detections.detections_frame` gives it; it may be empty.
        config: How.
        progress: Called with tables done and tables in all.

    Raises:
        ExchangeError: Detections that can't be judged, see `exchange.judging.judge`.
        QueryError: Resampling that is impossible.
    """
    config = config or FrocConfig()
    judgement = judge(truth, detections, config.rule)
    types, densities = _terms(truth.lesions["lesion_type"]), _terms(truth.images["density"])
    jobs: list[tuple[str, str, Marks]] = [("unit", unit, unit_marks(judgement, unit)) for unit in UNITS]
    for rule in PRECISION_RULES:
        same = replace(rule, duplicates=config.rule.duplicates)
        judged = judgement if str(same) == str(config.rule) else judge(truth, detections, same)
        jobs.append(("rule", str(rule), unit_marks(judged, "lesion")))
    for term in _known(types):
        jobs.append(("type", term, unit_marks(judgement, "lesion", lesions=types == term)))
    notes = [*truth.notes, *judgement.notes]
    for term in _known(densities):
        chosen = densities == term
        if chosen[truth.lesions["image"]].any():
            jobs.append(("density", term, unit_marks(judgement, "lesion", images=chosen)))
        else:
            notes.append(f"density {term}: its {int(chosen.sum())} images have no lesion, and no scores of their own")
    scores: dict[str, dict[str, UnitScores]] = {"unit": {}, "rule": {}, "type": {}, "density": {}}
    for done, (kind, name, marks) in enumerate(jobs, start=1):
        scores[kind][name] = score_marks(marks, config)
        if progress is not None:
            progress(done, len(jobs))
    if truth.women < 2:
        notes.append("all images are of one woman: there are no intervals")
    return DetectionScores(
        context=make_context(truth, config, detections),
        counts=_counts(judgement, len(detections)),
        units=scores["unit"],
        thresholds=_thresholds(unit_marks(judgement, "lesion"), config.rates),
        average_precision={rule: found.average_precision for rule, found in scores["rule"].items()},
        precision_curves={rule: found.precision for rule, found in scores["rule"].items()},
        lesion_types=scores["type"],
        densities=scores["density"],
        outcomes=judgement.outcomes,
        notes=tuple(notes),
    )


def unit_marks(
    judgement: Judgement,
    unit: str,
    *,
    lesions: npt.NDArray[np.bool_] | None = None,
    images: npt.NDArray[np.bool_] | None = None,
) -> Marks:
    """Return what a FROC curve is made of.

    Args:
        judgement: Judged detections.
        unit: One of `UNITS`.
        lesions: (lesions,) those that are to be found; all unless given.
        images: (images,) those that are looked at; all unless given. Women without one are no part of it.
    """
    truth = judgement.truth
    looked = np.ones(len(truth.images), np.bool_) if images is None else images
    image_of = truth.lesions["image"].to_numpy(np.int64)
    wanted = looked[image_of] if lesions is None else looked[image_of] & lesions
    women, own = np.unique(truth.images["woman"].to_numpy(np.int64)[looked], return_inverse=True)
    woman_of = np.full(len(truth.images), -1, np.int64)
    woman_of[looked] = own
    scores, places = judgement.lesion_scores[wanted], image_of[wanted]
    if unit != "lesion":
        places = places if unit == "image" else woman_of[places]
        groups, member = np.unique(places, return_inverse=True)
        best = np.full(len(groups), -np.inf)
        np.maximum.at(best, member, scores)
        scores, places = best, groups
    false = looked[judgement.false_images]
    return Marks(
        scores,
        places if unit == "woman" else woman_of[places],
        judgement.false_scores[false],
        woman_of[judgement.false_images[false]],
        own,
        len(women),
    )


def score_marks(marks: Marks, config: FrocConfig) -> UnitScores:
    """Score what was found, with intervals from resampling women."""
    rates = len(config.rates)

    def measure(weights: Array) -> Array:
        points = sweep(marks, weights)
        curve = sensitivity_at(points, (*config.rates, *CURVE_RATES))
        return np.concatenate(
            [
                curve[:, :rates],
                curve[:, :rates].mean(axis=1, keepdims=True),
                average_precision(points)[:, None],
                curve[:, rates:],
                precision_at(points, CURVE_RECALLS),
            ],
            axis=1,
        )

    value, drawn = resampled(
        measure, women=marks.women, row=row_size(marks), resamples=config.resamples, seed=config.seed
    )
    head = rates + 2
    estimates = [
        summarise(
            float(value[column]),
            drawn[:, column],
            level=config.level,
            items=len(marks.unit_scores),
            women=len(np.unique(marks.unit_women)),
        )
        for column in range(head)
    ]
    end = head + len(CURVE_RATES)
    return UnitScores(
        dict(zip(config.rates, estimates, strict=False)),
        estimates[rates],
        estimates[rates + 1],
        _curve(CURVE_RATES, value[head:end], drawn[:, head:end], config.level),
        _curve(CURVE_RECALLS, value[end:], drawn[:, end:], config.level),
    )


def row_size(marks: Marks) -> int:
    """Return how many numbers a sweep holds for one weighting."""
    return len(marks.unit_scores) + len(marks.false_scores) + len(CURVE_RATES) + len(CURVE_RECALLS)


def make_context(truth: Truth, config: FrocConfig, *tables: pd.DataFrame) -> dict[str, Any]:
    """Return what stands beside the figures: rule, data, detectors, intervals."""
    detectors = set()
    for table in tables:
        names = [
            table[name].astype("object").where(table[name].notna(), None) if name in table else [None] * len(table)
            for name in ("detector", "detector_version")
        ]
        detectors |= {" ".join(str(part) for part in pair if part) for pair in zip(*names, strict=True)}
    return {
        "rule": str(config.rule),
        "duplicates": config.rule.duplicates,
        "datasets": list(truth.datasets),
        "manifest_digest": truth.digest,
        "detectors": sorted(detectors - {""}),
        "rates": list(config.rates),
        "sensitivity": "at the lowest threshold with no more false positives an image, over all images",
        "average_precision": "all-point interpolation",
        "interval": {
            "method": "percentile bootstrap over women",
            "level": config.level,
            "resamples": config.resamples,
            "seed": config.seed,
        },
    }


def _counts(judgement: Judgement, given: int) -> dict[str, float]:
    truth, outcomes = judgement.truth, judgement.outcomes
    images = len(truth.images)
    return {
        "images": images,
        "images_without_lesion": images - int(truth.lesions["image"].nunique()),
        "images_without_detection": images - len(outcomes[["path", "frame"]].drop_duplicates()),
        "women": truth.women,
        "lesions": len(truth.lesions),
        "lesions_found": int((judgement.lesion_scores > -np.inf).sum()),
        "detections": given,
        "detections_judged": len(outcomes),
        "true_positives": int((outcomes["outcome"] == "true positive").sum()),
        "false_positives": len(judgement.false_scores),
        "duplicates": judgement.duplicates,
        "false_positives_per_image": len(judgement.false_scores) / images,
    }


def _thresholds(marks: Marks, rates: tuple[float, ...]) -> dict[float, float | None]:
    points = sweep(marks, np.ones((1, marks.women)))
    places = places_at(points, rates)[0]
    return {
        rate: float(points.thresholds[place]) if place >= 0 else None for rate, place in zip(rates, places, strict=True)
    }


def _terms(column: pd.Series) -> npt.NDArray[np.object_]:
    cells = column.to_numpy(dtype=object)
    return np.array([UNKNOWN if pd.isna(cell) else str(cell) for cell in cells], dtype=object)


def _known(terms: npt.NDArray[np.object_]) -> list[str]:
    """Return the terms there are, `UNKNOWN` among them only beside others: alone it would repeat all."""
    found = sorted(set(terms))
    return [] if found == [UNKNOWN] else found


def _curve(places: tuple[float, ...], values: Array, drawn: Array, level: float) -> Curve:
    """Return a curve with the percentile interval at each of its places."""
    defined = drawn[~np.isnan(drawn).any(axis=1)]
    low, high = np.full((2, len(values)), np.nan)
    if len(defined):
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Curve(places, *(tuple(float(number) for number in numbers) for numbers in (values, low, high)))
