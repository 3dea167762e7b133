"""From marks to detections: the same rules whatever file they came from."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from embedder.findings import LATERALITIES, TERM_SEPARATOR, TERMS, VIEWS
from embedder.manifestrules import LONGEST_TEXT
from exchange import ExchangeError
from exchange.detections import Detection
from exchange.formats.marks import Mark, Parsed, ReadOptions, RowError, text_of
from exchange.formats.places import bounds, pixel_box, pixel_outline, scaled_box, scaled_outline
from exchange.images import ImageCatalogue, ImageFacts, Progress
from exchange.lesionwords import check_own_words, lesion_type
from exchange.text import LONGEST_ID

_DIGITS = 12  # hexadecimal, of a derived id: of 10,000 boxes of one image two agree by chance once in 5·10⁶ times
_SPACINGS = (0.001, 5.0)  # as in a manifest
_LONGEST_STEM = 64


def assemble(
    parsed: Parsed, catalogue: ImageCatalogue, options: ReadOptions, progress: Progress | None = None
) -> list[Detection]:
    """Check each mark against its image and make a detection of it; what is wrong is added to the problems.

    An id that the file gives is kept. Where it gives none it is made of the image, the box and the score, so that the
    same detections have the same ids in every format; marks that differ in their label alone are numbered.

    Args:
        parsed: Its problems are added to, and its notes.
        catalogue: Where the images are.
        options: What the file does not say.
        progress: Called with images read and images in all.

    Raises:
        ExchangeError: An option is wrong.
    """
    own_words = check_own_words(options.labels)
    names = {name for mark in parsed.marks for name in (mark.image, mark.sop_uid) if name}
    images = catalogue.look_up(sorted(names), progress)
    women: dict[str, tuple[str, str]] = {}
    made: list[tuple[Mark, Detection]] = []
    for mark in parsed.marks:
        try:
            facts = _image(mark, images)
            made.append((mark, _detection(mark, facts, women, own_words, options)))
        except RowError as error:
            parsed.refuse(mark.place, error)
    named = _named(made, parsed)
    lacking = sum(one.score is None for one in named)
    if lacking:
        parsed.notes.append(f"{lacking:,} of {len(named):,} detections have no score")
    return named


def _image(mark: Mark, images: dict[str, ImageFacts | ExchangeError]) -> ImageFacts:
    tried = [images[name] for name in (mark.image, mark.sop_uid) if name]
    for facts in tried:
        if isinstance(facts, ImageFacts):
            return facts
    if not tried:
        raise RowError("names no image")
    assert isinstance(tried[0], ExchangeError)
    raise RowError(f"image {tried[0]}")


def _detection(
    mark: Mark,
    facts: ImageFacts,
    women: dict[str, tuple[str, str]],
    own_words: dict[str, str],
    options: ReadOptions,
) -> Detection:
    rows, columns = _size(mark, facts)
    notes = [mark.note]
    box, outline = mark.box, mark.outline
    if mark.normalised:
        if rows is None or columns is None:
            raise RowError("the image's size is not known, and the box is given in shares of it")
        box = box and scaled_box(box, rows, columns)
        outline = outline and scaled_outline(outline, rows, columns)
    if box is None and outline:
        box = bounds(outline)
    if box is None:
        raise RowError("has no box and no outline")
    pixels, note = pixel_box(box, rows, columns)
    notes.append(note)
    if outline:
        outline, note = pixel_outline(outline, rows, columns)
        notes.append(note)
    if mark.score is not None and not 0 <= mark.score <= 1:
        raise RowError(f"the score {mark.score:g} is not in 0 to 1: scale the detector's scores")
    if mark.laterality and facts.laterality and mark.laterality != facts.laterality:
        raise RowError(f"it says the breast is {mark.laterality}, and the image shows {facts.laterality}")
    if mark.view and facts.view and mark.view != facts.view:
        notes.append(f"the file says view {mark.view}")
    if mark.frame_number is not None and not 1 <= mark.frame_number <= (facts.frames or mark.frame_number):
        raise RowError(f"the image has no frame {mark.frame_number}")
    dataset, patient = _woman(mark, facts, women)
    term = mark.term if _is_lesion_type(mark.term) else lesion_type(mark.term, own_words)
    spacing = facts.spacing_mm or mark.spacing_mm
    return Detection(
        detection_id=mark.detection_id or "",
        path=facts.path,
        dataset=dataset,
        patient_id=patient,
        x0=pixels.x0,
        y0=pixels.y0,
        x1=pixels.x1,
        y1=pixels.y1,
        outline=outline or None,
        score=mark.score,
        lesion_type=term or lesion_type(mark.word, own_words),
        native_label=mark.word,
        detector=mark.detector or options.detector,
        detector_version=mark.detector_version or options.detector_version,
        lesion_id=mark.lesion_id,
        sop_uid=facts.sop_uid or mark.sop_uid,
        study_id=facts.study_id or mark.study_id,
        laterality=facts.laterality or (mark.laterality if mark.laterality in LATERALITIES else None),
        view=facts.view or (mark.view if mark.view in VIEWS else None),
        spacing_mm=spacing if spacing is not None and _SPACINGS[0] <= spacing <= _SPACINGS[1] else None,
        image_rows=rows,
        image_columns=columns,
        frame_number=mark.frame_number,
        note=text_of("; ".join(note for note in notes if note), "the note", longest=LONGEST_TEXT),
    )


def _is_lesion_type(term: str | None) -> bool:
    return term is not None and all(part in TERMS["lesion_type"] for part in term.split(TERM_SEPARATOR))


def _size(mark: Mark, facts: ImageFacts) -> tuple[int | None, int | None]:
    """Return rows and columns; a file that was made for an image of another size has its boxes elsewhere."""
    for said, known in ((mark.rows, facts.rows), (mark.columns, facts.columns)):
        if said is not None and known is not None and said != known:
            raise RowError(
                f"the file was made for an image of {mark.columns} × {mark.rows} pixels, and"
                f" {facts.path} has {facts.columns} × {facts.rows}"
            )
    return facts.rows or mark.rows, facts.columns or mark.columns


def _woman(mark: Mark, facts: ImageFacts, women: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Return data set and woman; one image is of one woman, and none is of nobody."""
    dataset = mark.dataset if mark.dataset and facts.dataset_assumed else facts.dataset
    if mark.dataset and mark.dataset != dataset:
        raise RowError(f"it says the woman is of data set {mark.dataset}, and the image is of {dataset}")
    if facts.patient_id is not None:
        if mark.patient_id and mark.patient_id != facts.patient_id:
            raise RowError(f"it says the woman is {mark.patient_id}, and the image is of {facts.patient_id}")
        found = dataset, facts.patient_id
    elif mark.patient_id:
        found = dataset, mark.patient_id
    elif mark.whose is not None:
        found = mark.whose
    else:
        raise RowError(
            f"nothing says which woman {facts.path} is of: give a manifest, or the rule by which the name tells"
        )
    if women.setdefault(facts.path, found) != found:
        raise RowError(f"it says the woman is {found[1]}, and another row that the image is of {women[facts.path][1]}")
    return found


def _named(made: Sequence[tuple[Mark, Detection]], parsed: Parsed) -> list[Detection]:
    """Give ids to those that have none, and leave out those whose id is taken."""
    given: dict[str, str] = {}
    alike: dict[str, list[int]] = {}
    ids: list[str | None] = []
    for position, (mark, detection) in enumerate(made):
        one = mark.detection_id
        if one is None:
            alike.setdefault(derived_id(detection), []).append(position)
        elif one in given:
            parsed.refuse(mark.place, f"the id {one!r} stands in {given[one]} already")
        else:
            given[one] = mark.place
        ids.append(one if one is not None and given[one] == mark.place else None)
    for base, positions in alike.items():
        # Sorted, so that a table in another order gets the same ids.
        positions.sort(key=lambda position: _tie(made[position][1]))
        count, last, first_place = 0, None, ""
        for position in positions:
            mark, detection = made[position]
            if _tie(detection) == last:
                parsed.refuse(mark.place, f"the same place, score and label stand in {first_place} already")
                continue
            last, first_place = _tie(detection), mark.place
            count += 1
            name = base if count == 1 else f"{base}-{count}"
            while name in given:
                count += 1
                name = f"{base}-{count}"
            given[name] = mark.place
            ids[position] = name
    return [
        replace(detection, detection_id=name)
        for name, (_, detection) in zip(ids, made, strict=True)
        if name is not None
    ]


def derived_id(detection: Detection) -> str:
    """Return an id made of a detection's image, frame, box and score, and of nothing else.

    The image is known by its SOP instance UID, else by its woman and file name, so that a copy elsewhere gives the
    same; the score counts to six digits, as detectors write it.
    """
    name = detection.path.rpartition("/")[2]
    image = detection.sop_uid or "\n".join((detection.dataset, detection.patient_id, name))
    score = "" if detection.score is None else f"{detection.score:.6g}"
    corners = (detection.x0, detection.y0, detection.x1, detection.y1)
    parts = [image, str(detection.frame_number or 1), *map(str, corners), score]
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    stem = "".join(letter if letter.isprintable() else "_" for letter in name.rpartition(".")[0] or name)
    return f"{stem[:_LONGEST_STEM].strip() or 'image'}-{digest[:_DIGITS]}"[:LONGEST_ID]


def _tie(detection: Detection) -> tuple[str, str, str, str]:
    return detection.native_label or "", detection.lesion_type or "", detection.detector or "", detection.path
