"""What an evaluation of detections leaves: a page that needs nothing beside it, JSON, plain text, and every outcome."""

import html
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from classifiers.plots import svg_document
from classifiers.webpage import html_document, html_table, svg_image
from exchange import ExchangeError
from exchange.froccomparison import DetectionComparison
from exchange.frocfigures import froc_figure, precision_figure
from exchange.frocscores import DetectionScores
from exchange.froctables import Section, comparison_sections, context_section, score_sections, text_of
from index.durable import make_folder, storage_error, write_whole

PAGE, FIGURES, TEXT, OUTCOMES = "detections.html", "detections.json", "detections.txt", "outcomes.csv"
"""The files of a folder that `write_evaluation` leaves."""

EVALUATION_FORMAT = "mammoseek-detections-1"


def write_evaluation(
    folder: Path, scores: Mapping[str, DetectionScores], comparison: DetectionComparison | None = None
) -> None:
    """Write `PAGE`, `FIGURES`, `TEXT` and `OUTCOMES` into a folder, each whole or not at all.

    The last names images and what became of each detection on them; the others name neither woman nor image, but for
    an example in a note of what was left out.

    Args:
        folder: Made where it is not there; files of these names are replaced.
        scores: By the name of the set of detections.
        comparison: Of two of them.

    Raises:
        ExchangeError: It can't be written.
    """
    folder = Path(folder)
    try:
        make_folder(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    except ValueError as error:  # a zero byte in the name
        raise ExchangeError(repr(str(folder)), str(error), "name another folder") from error
    outcomes = pd.concat([one.outcomes.assign(detections=name) for name, one in scores.items()], ignore_index=True)
    content = evaluation_json(scores, comparison)
    files = {
        FIGURES: json.dumps(content, indent=1, allow_nan=False) + "\n",
        TEXT: evaluation_text(scores, comparison),
        OUTCOMES: outcomes.to_csv(index=False),
        PAGE: evaluation_page(scores, comparison),
    }
    try:
        for name, text in files.items():
            write_whole(folder / name, text.encode())
    except OSError as error:
        raise _not_written(folder, error) from error


def evaluation_json(
    scores: Mapping[str, DetectionScores], comparison: DetectionComparison | None = None
) -> dict[str, object]:
    """Return an evaluation as plain JSON values."""
    return {
        "format": EVALUATION_FORMAT,
        "scores": {name: one.to_dict() for name, one in scores.items()},
        "comparison": None if comparison is None else comparison.to_dict(),
    }


def evaluation_text(scores: Mapping[str, DetectionScores], comparison: DetectionComparison | None = None) -> str:
    """Return an evaluation as plain text: its context, the comparison, the tables of each set, the notes."""
    return text_of(_sections(scores, comparison), _notes(scores, comparison))


def evaluation_page(scores: Mapping[str, DetectionScores], comparison: DetectionComparison | None = None) -> str:
    """Return an evaluation as one HTML page that asks for nothing outside itself."""
    title = "Detections against truth"
    parts = [
        f"<h1>{title}</h1>",
        '<p class="warning"><strong>Not a medical device.</strong> Research software: figures of one data set, not of '
        "clinical use.</p>",
    ]
    first, *rest = _sections(scores, comparison)
    parts += [html_table(None, first.rows), '<div class="plots">']
    parts += [svg_image(svg, what) for what, svg in evaluation_plots(scores).items()]
    parts.append(
        '</div><p class="note">Bands are the intervals at each place. Beyond its last false positive a FROC curve '
        "stays where it is; precision is 0 at a recall that no score reaches.</p>"
    )
    parts += [_html(section) for section in rest]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in _notes(scores, comparison)]
    return html_document(title, "".join(parts))


def evaluation_plots(scores: Mapping[str, DetectionScores]) -> dict[str, str]:
    """Return the plots as SVG, by what they show: sets side by side, then the parts of each."""
    figures = {}
    if len(scores) > 1:
        both = {name: one.units["lesion"].froc for name, one in scores.items()}
        figures["FROC of lesions"] = froc_figure(both, "FROC of lesions")
        both = {name: one.units["lesion"].precision for name, one in scores.items()}
        figures["precision over recall"] = precision_figure(both, "Precision over recall, lesions")
    for name, one in scores.items():
        groups = {"what is found": one.units, "lesion type": one.lesion_types, "breast density": one.densities}
        for what, group in groups.items():
            if group:
                title = f"{name}: FROC by {what}"
                figures[title] = froc_figure({term: found.froc for term, found in group.items()}, title)
        title = f"{name}: precision over recall by rule"
        figures[title] = precision_figure(one.precision_curves, title)
    return {title: svg_document(figure) for title, figure in figures.items()}


def _not_written(folder: Path, error: OSError) -> ExchangeError:
    reason = storage_error(folder, error)
    return ExchangeError(folder, reason.cause, reason.remedy or "name another folder")


def _sections(scores: Mapping[str, DetectionScores], comparison: DetectionComparison | None) -> list[Section]:
    sections = [context_section(next(iter(scores.values())))]
    if comparison is not None:
        sections += comparison_sections(comparison)
    for name, one in scores.items():
        sections += score_sections(name, one)
    return sections


def _notes(scores: Mapping[str, DetectionScores], comparison: DetectionComparison | None) -> list[str]:
    """Return the notes, each once; one that is not of every set with the name of its set."""
    shared = [note for note in next(iter(scores.values())).notes if all(note in one.notes for one in scores.values())]
    own = [f"{name}: {note}" for name, one in scores.items() for note in one.notes if note not in shared]
    return [*shared, *own, *(comparison.notes if comparison is not None else ())]


def _html(section: Section) -> str:
    note = f'<p class="note">{html.escape(section.note)}</p>' if section.note else ""
    return f"<h3>{html.escape(section.title)}</h3>{note}{html_table(section.head or None, section.rows)}"
