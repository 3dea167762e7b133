"""The risk of one finding as an answer: the probability, what moved it, and what became of findings like it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.fitted import FittedClassifiers
from classifiers.pooling import POSITIVE_CLASSES
from classifiers.risk import RiskConfig, RiskModel, fit_risk


@dataclass(frozen=True)
class RiskAnswer:
    """What neighbours, linear head and context say together.

    Args:
        positive: The class.
        probability: Its probability.
        parts: What moved it, in log odds: the base rate, each method and each column of the context; their sum is the
            log odds of the probability.
        support: What became of the gallery's findings whose held-out risk was about this, see `ReliabilityBin`.
        findings: Findings that the risk was fitted on.
        women: Women that they belong to.
        strength: The pull of the weights that folds of women advised.
        basis: What all this rests on.
    """

    positive: str
    probability: float
    parts: dict[str, float]
    support: dict[str, float | int]
    findings: int
    women: int
    strength: float
    basis: str

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        return asdict(self)


def fit_gallery_risk(
    fitted: FittedClassifiers,
    records: pd.DataFrame,
    keys: npt.NDArray[np.object_],
    target: str,
    *,
    seen: npt.NDArray[np.bool_] | None,
    config: RiskConfig,
) -> RiskModel | str:
    """Fit the risk of a target's positive class to a gallery's rows; return why not where it can't be.

    Args:
        fitted: The classifiers, fitted to the same rows.
        records: The rows.
        keys: Their women.
        target: The label column.
        seen: Whether the embedder was trained on each row's woman; None where nobody knows.
        config: How to fit.
    """
    positive = POSITIVE_CLASSES.get(target)
    if positive is None:
        return f"{target} has no class whose risk would be told"
    try:
        return fit_risk(
            fitted, records[target].to_numpy(dtype=object), keys, positive, context=records, seen=seen, config=config
        )
    except ClassificationError as error:
        return error.cause


def answer_risk(model: RiskModel, probabilities: Mapping[str, Any], context: Mapping[str, Any]) -> RiskAnswer:
    """Return the risk of one finding.

    Args:
        model: The fitted risk.
        probabilities: By method, (1, classes) before calibration.
        context: What is known of the finding, by column.

    Raises:
        ClassificationError: A cell of the context is none.
    """
    table = pd.DataFrame([dict(context)], dtype="object")
    probability = float(model.predict(probabilities, table)[0])
    support = model.support(probability)
    became = f"of findings with a held-out risk of {support.lowest:.2f} to {support.highest:.2f}, {support}"
    return RiskAnswer(
        model.positive,
        probability,
        {str(name): float(part) for name, part in model.parts(probabilities, table).iloc[0].items()},
        support.to_dict(),
        model.findings,
        model.women,
        model.strength,
        f"{model.basis}; {became} were {model.positive}",
    )
