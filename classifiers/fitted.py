"""The kNN vote and the linear head of one label, fitted to the same women and each calibrated on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from classifiers import ClassificationError
from classifiers.calibration import Calibration, CalibrationConfig, Classifier, calibrate
from classifiers.heads import HeadConfig, LinearHead
from classifiers.labels import (
    MISSING,
    Array,
    encode_labels,
    encode_patients,
    order_classes,
    spread_columns,
    women_per_class,
)
from classifiers.neighbours import NeighbourVote, VoteConfig

Kind = TypeVar("Kind", bound=Classifier)

MOST_CLASSES = 100
"""A column with more different values than this is no label: an identifier, a path, an age."""


@dataclass(frozen=True)
class ClassifierConfig:
    """How the two classifiers are fitted and calibrated.

    Args:
        vote: How neighbours vote.
        head: How the linear head is fitted.
        calibration: How much data a calibration needs.
        folds: Folds of women in which probabilities for the calibration are cross-fitted.
        head_women: Women that each of at least two classes must have for a linear head.
        seed: Seed of the folds.
    """

    vote: VoteConfig = field(default_factory=VoteConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    folds: int = 5
    head_women: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Calibrated(Generic[Kind]):
    """A fitted classifier, its calibration, and the order in which it names the classes.

    Args:
        estimator: The classifier.
        calibration: Its calibration.
        classes: The classes in their order.
        held_out: (n, classes) before calibration: each fitted row as a classifier predicts it that does not know its
            woman; NaN without a label, and everywhere where there were too few women to calibrate on.
    """

    estimator: Kind
    calibration: Calibration
    classes: tuple[str, ...]
    held_out: Array

    def predict(self, vectors: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> tuple[Array, Array]:
        """Return (q, classes) probabilities before and after calibration.

        Args:
            vectors: (q, d) unit length.
            patients: (q,) women's keys, None where unknown.
        """
        raw = self.estimator.predict_proba(vectors, patients)
        both = (raw, self.calibration.transform(raw))
        before, after = (spread_columns(part, self.estimator.classes_, self.classes) for part in both)
        return before, after


@dataclass(frozen=True, eq=False)
class FittedClassifiers:
    """Both classifiers of one label.

    Args:
        classes: The classes, in their order where they have one.
        knn: The kNN vote.
        head: The linear head; None where there are too few women for one.
        no_head: Why there is no head; empty where there is one.
        findings: Labelled rows that both were fitted on.
        women: Women that these belong to.
    """

    classes: tuple[str, ...]
    knn: Calibrated[NeighbourVote]
    head: Calibrated[LinearHead] | None
    no_head: str
    findings: int
    women: int


def fit_classifiers(
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    config: ClassifierConfig | None = None,
    *,
    seen: npt.ArrayLike | None = None,
) -> FittedClassifiers:
    """Fit a kNN vote and a linear head, and calibrate each on cross-fitted probabilities of the same women.

    Args:
        vectors: (n, d) unit length.
        labels: (n,) labels; rows without one are left out.
        patients: (n,) women's keys.
        config: How they are fitted.
        seen: (n,) bool: the embedder was trained on the row's woman; None where nobody knows. See `calibrate`.

    Raises:
        ClassificationError: No row has a label, all have the same one, or the column is no label.
    """
    config = config or ClassifierConfig()
    found, codes = encode_labels(labels)
    _, women = encode_patients(patients, len(codes))
    known = codes != MISSING
    if len(found) < 2:
        cause = f"all {known.sum()} labelled findings are {found[0]!r}" if found else "no finding has one"
        raise ClassificationError("labels", f"{cause}, so there is nothing to tell apart", "add other cases")
    if len(found) > MOST_CLASSES:
        raise ClassificationError(
            "labels", f"{len(found)} different values are no classes", "choose a column of labels"
        )
    classes = order_classes(found)
    each = women_per_class(codes, women, len(found))
    rich = int((each >= config.head_women).sum())
    no_head = ""
    if rich < 2:
        no_head = f"a linear head needs two classes of {config.head_women} women or more, and {rich} is here"

    def fitted(make: Callable[[], Kind]) -> Calibrated[Kind]:
        estimator = make()
        estimator.fit(vectors, labels, patients)
        calibration, held_out = calibrate(
            make, vectors, labels, patients, config=config.calibration, folds=config.folds, seed=config.seed, seen=seen
        )
        return Calibrated(estimator, calibration, classes, spread_columns(held_out, estimator.classes_, classes))

    return FittedClassifiers(
        classes=classes,
        knn=fitted(lambda: NeighbourVote(config.vote)),
        head=None if no_head else fitted(lambda: LinearHead(config.head)),
        no_head=no_head,
        findings=int(known.sum()),
        women=len(np.unique(women[known])),
    )
