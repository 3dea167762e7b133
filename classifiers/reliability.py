"""Do probabilities come true? The data of a reliability diagram, in bins of equally many findings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from classifiers import ClassificationError
from classifiers.labels import MISSING, Array, encode_labels, encode_patients

LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class ReliabilityBin:
    """Findings of similar predicted probability, and how many of them turned out positive.

    Args:
        lowest: The lowest probability in the bin.
        highest: The highest.
        predicted: Their mean.
        observed: The share that is positive.
        low: Lower end of the 95 % interval of `observed`.
        high: Upper end.
        findings: How many findings.
        positives: How many of them are positive.
        women: How many women they belong to.
    """

    lowest: float
    highest: float
    predicted: float
    observed: float
    low: float
    high: float
    findings: int
    positives: int
    women: int

    def __str__(self) -> str:
        share = f"{self.observed:.2f} [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.positives} of {self.findings} findings of {self.women} women, {share}"

    def to_dict(self) -> dict[str, float | int]:
        """Return the bin as plain JSON values."""
        return asdict(self)


def reliability(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    positive: str,
    bins: int = 10,
) -> tuple[ReliabilityBin, ...]:
    """Bin findings by their predicted probability and count the positives of each bin.

    Bins hold about equally many findings (Nguyen and O'Connor, EMNLP 2015), so that none is too small to say
    anything; findings of one probability are never torn apart, and there are fewer bins where many are alike or few
    are given. The interval is Wilson's (JASA 22, 1927), which a bin without a single positive does not shrink to
    nothing as a bootstrap does, with women in place of findings as its number, because findings of one woman are alike.

    Args:
        labels: (n,) labels, missing where unknown, which are left out: unknown is not negative.
        probabilities: (n,) predicted probability of the positive class; may be NaN where there is no label. They must
            come from models and calibrations that did not see the findings' women.
        patients: (n,) women's keys.
        positive: The class that is predicted; any other is negative.
        bins: How many bins at most.

    Returns:
        The bins, lowest probabilities first.

    Raises:
        ClassificationError: No finding has a label, a labelled one has no probability, or there is less than one bin.
    """
    classes, codes = encode_labels(labels)
    women = encode_patients(patients, len(codes))[1]
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != codes.shape:
        raise ClassificationError(
            "probabilities", f"the shape is {values.shape} for {len(codes)} labels", "pass one of the positive class"
        )
    if bins < 1:
        raise ClassificationError("bins", f"{bins} hold nothing", "10 are usual")
    known = np.flatnonzero(codes != MISSING)
    if not known.size:
        raise ClassificationError("reliability", "no finding has a label", "choose a column that has labels")
    values, women = values[known], women[known]
    if not ((values >= 0) & (values <= 1)).all():  # NaN included
        raise ClassificationError("probabilities", "a labelled finding's is not between 0 and 1", "predict it again")
    positives = codes[known] == (classes.index(positive) if positive in classes else len(classes))
    order = np.argsort(values, kind="stable")
    return tuple(_bin(values[part], positives[part], women[part]) for part in _parts(values, order, bins))


def calibration_gap(table: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error over equal-count bins: the mean |predicted - observed| of findings."""
    findings = np.array([each.findings for each in table], dtype=np.float64)
    gaps = np.array([abs(each.predicted - each.observed) for each in table])
    return float(findings @ gaps / findings.sum())


def bin_of(table: Sequence[ReliabilityBin], probability: float) -> ReliabilityBin:
    """Return the bin that a probability falls in; between two of them, the nearer one."""
    return min(table, key=lambda each: max(each.lowest - probability, probability - each.highest, 0.0))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval of a share of `count` independent trials.

    >>> [round(end, 3) for end in wilson(0.0, 10)]
    [0.0, 0.278]
    """
    z = float(norm.ppf((1 + LEVEL) / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def _parts(values: Array, order: Array, bins: int) -> list[Array]:
    """Cut sorted rows into bins of about one size, between different values only."""
    ranked = values[order]
    ends = np.flatnonzero(np.append(ranked[1:] > ranked[:-1], True)) + 1  # where a bin may end
    wanted = np.arange(1, bins + 1) * len(order) / bins
    cuts = sorted({int(ends[np.argmin(np.abs(ends - place))]) for place in wanted if place >= 1} | {len(order)})
    return [part for part in np.split(order, cuts[:-1]) if part.size]


def _bin(values: Array, positives: Array, women: Array) -> ReliabilityBin:
    share, count = float(positives.mean()), len(np.unique(women))
    return ReliabilityBin(
        float(values.min()),
        float(values.max()),
        float(values.mean()),
        share,
        *wilson(share, count),
        findings=len(values),
        positives=int(positives.sum()),
        women=count,
    )
