"""A triage as one page that needs nothing beside it: the worklist, and the most urgent detections with their cases."""

import base64
import html
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from classifiers.cases import row_crop
from classifiers.webpage import html_document, html_table
from embedder.crops import RoiCrop
from embedder.embedding import encode_png
from embedder.findings import Box
from embedder.preparation import PreparationConfig
from embedder.rois import read_crop
from errors import MammoseekError
from exchange import ExchangeError
from exchange.opinions import SecondOpinion, SimilarCase, count_outcomes
from exchange.secondreader import Opinion, SecondReader
from exchange.triage import read_opinions
from index.durable import storage_error, write_whole
from index.gallery import Gallery

PAGE_FILE = "index.html"

_CASES = 6  # similar cases with a picture
_MOST_ROWS = 5_000  # a browser shows no longer table well
_COLOURS = {"malignant": "#b2182b", "benign": "#2166ac", "normal": "#4d9221", "no cancer": "#4d9221"}

_STYLE = """<style>
.case { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0 1.4rem; }
figure { margin: 0; width: 150px; font-size: .78rem; line-height: 1.3; }
figure img { width: 142px; height: 142px; object-fit: contain; background: #000; border: 4px solid #888; }
figure.asked img { border-color: #f1c40f; } figcaption { overflow-wrap: anywhere; }
.none { width: 142px; height: 142px; border: 4px solid #ccc; display: flex; align-items: center;
  justify-content: center; color: #777; }
.far { color: #8a4b00; font-weight: 600; }
</style>"""


def write_triage_page(output: Path, reader: SecondReader, *, pictured: int = 40) -> Path:
    """Write the page of a triage's folder.

    Args:
        output: The folder.
        reader: Who formed the opinions: the pictures of the similar cases come from its gallery.
        pictured: How many detections, the most urgent ones, are shown with pictures.

    Returns:
        The page. It shows images and names women: patient data.

    Raises:
        ExchangeError: There is no triage in the folder, or the page can't be written.
    """
    found = sorted(read_opinions(output), key=lambda one: (-one.urgency, one.opinion.detection_id))
    shown = found[:_MOST_ROWS]
    body = [
        _STYLE,
        "<h1>Triage: a second opinion on detections</h1>"
        '<p class="warning"><strong>Not a medical device.</strong> Similar findings of other women whose outcome is '
        "known, for research and not for diagnosis. This page shows images and names women by their ids: patient "
        "data.</p>",
        f"<p>{len(found)} detections of {len({one.woman for one in found})} women, the most urgent first. Model "
        f"{reader.embedder.digest[:12]}, gallery generation {reader.gallery.generation} of {len(reader.gallery)} "
        "findings.</p>",
        html_table(
            ["", "detection", "woman", "image", "detector", "new score", "lesion", "malignancy", "nearest", "outcomes"],
            [_row(number, one) for number, one in enumerate(shown, start=1)],
        ),
    ]
    if len(found) > len(shown):
        body.append(f"<p class='note'>And {len(found) - len(shown)} more, in triage.csv.</p>")
    picture = partial(case_picture, reader.gallery, reader.embedder.preparation)
    for number, one in enumerate(found[:pictured], start=1):
        body.append(_detection(number, one, reader.embedder.preparation, picture))
    page = Path(output) / PAGE_FILE
    try:
        write_whole(page, html_document("Triage", "".join(body)).encode())
    except OSError as error:
        reason = storage_error(page, error)
        raise ExchangeError(page, reason.cause, reason.remedy) from error
    return page


def outcome_counts(similar: Sequence[SimilarCase]) -> str:
    """Return how many similar cases had which outcome, the most frequent first.

    >>> outcome_counts([SimilarCase(0.9, outcome="benign"), SimilarCase(0.8), SimilarCase(0.7, outcome="benign")])
    'benign 2, unknown 1'
    """
    ordered = sorted(count_outcomes(similar).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)


def _row(number: int, one: Opinion) -> list[str]:
    said = one.opinion
    nearest = f"{said.similar[0].similarity:.2f}" if said.similar else "none"
    if said.no_close_precedent:
        nearest += ", no close precedent"
    return [
        str(number),
        said.detection_id,
        one.woman,
        f"{Path(said.path or '').name} {said.laterality or ''} {one.view or ''}".strip(),
        _number(said.score),
        _number(said.rescored),
        _number(one.lesion),
        "" if said.risk is None else _number(said.risk.probability),
        nearest,
        outcome_counts(said.similar),
    ]


def _detection(number: int, one: Opinion, preparation: PreparationConfig, picture: Any) -> str:
    said = one.opinion
    told = [f"detector {_number(said.score)}" if said.score is not None else "no score of the detector"]
    if said.rescored is not None:
        told.append(f"new score {said.rescored:.2f}")
    if one.lesion is not None:
        told.append(f"a lesion {one.lesion:.2f}")
    if said.risk is not None:
        told.append(f"if a lesion, malignant {said.risk.probability:.2f} ({said.risk.basis})")
    if said.vote is not None:
        votes = ", ".join(f"{name} {value:.2f}" for name, value in said.vote.probabilities.items())
        told.append(f"vote of {said.vote.neighbours} findings of {said.vote.women} women: {votes}")
    far = "<p class='far'>No close precedent: don't read these as similar cases.</p>" if said.no_close_precedent else ""
    notes = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in said.notes)
    asked = _figure(own_picture(said, preparation), said.lesion_type or "detection", None, "asked")
    cases = "".join(_case(case, picture) for case in said.similar[:_CASES])
    title = f"{number}. {said.detection_id} of {one.woman}"
    return (
        f"<h2>{html.escape(title)}</h2><p>{html.escape('; '.join(told))}</p>{far}"
        f'<div class="case">{asked}{cases}</div>{notes}'
    )


def _case(case: SimilarCase, picture: Any) -> str:
    outcome = case.outcome or "outcome unknown"
    caption = f"{outcome}; {case.lesion_type or 'type unknown'}; similarity {case.similarity:.2f}; {case.row_id or ''}"
    return _figure(picture(case), caption, _COLOURS.get(outcome))


def _figure(crop: RoiCrop | None, caption: str, colour: str | None, kind: str = "") -> str:
    text = html.escape(caption)
    if crop is None:
        shown = '<div class="none">no picture</div>'
    else:
        data = base64.b64encode(encode_png(crop.pixels)).decode()
        style = f' style="border-color:{colour}"' if colour else ""
        shown = f'<img alt="{text}" src="data:image/png;base64,{data}"{style}>'
    return f'<figure class="{kind}">{shown}<figcaption>{text}</figcaption></figure>'


def own_picture(said: SecondOpinion, preparation: PreparationConfig) -> RoiCrop | None:
    """Return what the network saw of a detection; None where its image can't be read any more."""
    if said.box is None or said.path is None:
        return None
    try:
        return read_crop(Path(said.path), Box(*said.box), preparation, frame=said.frame_number)[0]
    except MammoseekError:
        return None  # the page says that there is no picture


def case_picture(gallery: Gallery, preparation: PreparationConfig, case: SimilarCase) -> RoiCrop | None:
    """Return a similar case's picture, from its image or the gallery's thumbnail; None where there is neither."""
    if case.row_id is None:
        return None
    try:
        return row_crop(gallery, gallery.record_of(case.row_id), preparation)
    except MammoseekError:
        return None  # it was taken out of the gallery since


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
