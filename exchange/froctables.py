"""The scores of detections as tables, for a page and for plain text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from classifiers.tables import signed, table
from exchange.froccomparison import DetectionComparison
from exchange.frocscores import DetectionScores, UnitScores
from index.metrics import Estimate

_DIGEST_LETTERS = 12
_PER_IMAGE = "false positives an image"


@dataclass(frozen=True)
class Section:
    """A table with what it is of.

    Args:
        title: Its heading.
        head: Cells above the columns; empty where none are needed.
        rows: Cells.
        note: How it is to be read.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def score_sections(name: str, scores: DetectionScores) -> list[Section]:
    """Return the tables of one set of detections.

    Args:
        name: Of the set.
        scores: Its scores.
    """
    rates = list(scores.thresholds)
    thresholds = tuple("-" if each is None else f"{each:.4g}" for each in scores.thresholds.values())
    units = [_sensitivity_row(unit, found) for unit, found in scores.units.items()]
    sections = [
        Section(f"{name}: what was judged", (), tuple(_count_rows(scores.counts))),
        Section(
            f"{name}: sensitivity",
            _head("found", rates),
            (*units, ("least score", "", "", *thresholds, "")),
            f"By {_PER_IMAGE}, over all images. An image or a woman is found when any of her lesions is.",
        ),
        Section(
            f"{name}: average precision",
            ("rule", "lesions", "average precision"),
            tuple((rule, str(found.items), str(found)) for rule, found in scores.average_precision.items()),
            "Of lesions; all-point interpolation.",
        ),
    ]
    if scores.lesion_types:
        sections.append(
            Section(
                f"{name}: sensitivity by lesion type",
                _head("lesion type", rates),
                tuple(_sensitivity_row(term, found) for term, found in scores.lesion_types.items()),
                f"By {_PER_IMAGE}, of whatever type, over all images.",
            )
        )
    if scores.densities:
        rows = tuple((*_sensitivity_row(term, it), str(it.average_precision)) for term, it in scores.densities.items())
        sections.append(
            Section(
                f"{name}: sensitivity by breast density",
                (*_head("density", rates), f"average precision ({scores.context['rule']})"),
                rows,
                f"Of lesions, by {_PER_IMAGE}, over the images of that density.",
            )
        )
    return sections


def comparison_sections(comparison: DetectionComparison) -> list[Section]:
    """Return the tables of a comparison."""
    first, second = comparison.first, comparison.second
    rates = list(comparison.false_positives)
    gains = tuple(
        (
            unit,
            str(comparison.mean_sensitivity[unit].items),
            str(comparison.mean_sensitivity[unit].women),
            *(signed(estimate) for estimate in found.values()),
            signed(comparison.mean_sensitivity[unit]),
        )
        for unit, found in comparison.sensitivity.items()
    )
    return [
        Section(
            f"False positives at equal sensitivity: {first} and {second}",
            ("at", "sensitivity", first, second, "saved an image", "reduction"),
            tuple(
                (
                    f"{rate:g}",
                    str(it.sensitivity),
                    str(it.first),
                    str(it.second),
                    signed(it.saved),
                    percent(it.reduction),
                )
                for rate, it in comparison.false_positives.items()
            ),
            f"The {_PER_IMAGE} that each needs for the sensitivity that {first} has at the rate named first.",
        ),
        Section(
            f"Sensitivity: {second} minus {first}",
            _head("found", rates),
            gains,
            f"By {_PER_IMAGE}; paired intervals.",
        ),
        Section(
            f"Average precision: {second} minus {first}",
            ("rule", "lesions", "difference"),
            tuple((rule, str(it.items), signed(it)) for rule, it in comparison.average_precision.items()),
            "Paired intervals.",
        ),
    ]


def context_section(scores: DetectionScores) -> Section:
    """Return what all figures rest on."""
    context = scores.context
    interval = context["interval"]
    resampling = f"{interval['method']}, {interval['resamples']} resamples, seed {interval['seed']}"
    rows = [
        ("rule", f"{context['rule']}; duplicates {context['duplicates']}"),
        ("data", f"{', '.join(context['datasets'])}; manifest {context['manifest_digest'][:_DIGEST_LETTERS]}"),
        ("detectors", ", ".join(context["detectors"]) or "not named"),
        ("sensitivity", str(context["sensitivity"])),
        ("intervals", f"{interval['level']:.0%}, {resampling}"),
    ]
    return Section("Detections against truth", (), tuple(rows))


def text_of(sections: Sequence[Section], notes: Sequence[str]) -> str:
    """Return tables as plain text."""
    lines: list[str] = []
    for section in sections:
        rows = [section.head, *section.rows] if section.head else list(section.rows)
        lines += [section.title, *table(rows)]
        lines += [f"  {section.note}", ""] if section.note else [""]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)]).rstrip() + "\n"


def percent(estimate: Estimate) -> str:
    """Return a share in per cent.

    >>> percent(Estimate(0.8, 0.756, 0.84, 0.95, 60, 40, 2000))
    '80 % [76, 84]'
    """
    if estimate.value != estimate.value:
        return "undefined"
    low, high = 100 * estimate.low, 100 * estimate.high
    ends = "no interval" if low != low else f"{low:.0f}, {high:.0f}"
    return f"{100 * estimate.value:.0f} % [{ends}]"


def _head(first: str, rates: Sequence[float]) -> tuple[str, ...]:
    return (first, "number", "women", *(f"{rate:g}" for rate in rates), "mean")


def _sensitivity_row(name: str, found: UnitScores) -> tuple[str, ...]:
    cells = (str(estimate) for estimate in found.sensitivity.values())
    return (name, str(found.mean.items), str(found.mean.women), *cells, str(found.mean))


def _count_rows(counts: Mapping[str, float]) -> list[tuple[str, str]]:
    def whole(name: str) -> str:
        return f"{counts[name]:.0f}"

    return [
        (
            "images",
            f"{whole('images')} of {whole('women')} women; {whole('images_without_lesion')} without a lesion,"
            f" {whole('images_without_detection')} without a detection",
        ),
        ("lesions", f"{whole('lesions')}, of which {whole('lesions_found')} are found at some score"),
        (
            "detections",
            f"{whole('detections_judged')} of {whole('detections')} judged: {whole('true_positives')} true,"
            f" {whole('false_positives')} false ({counts['false_positives_per_image']:.2f} an image),"
            f" {whole('duplicates')} duplicates",
        ),
    ]
