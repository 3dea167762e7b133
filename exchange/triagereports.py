"""The structured reports of a triage: one for each study whose images are DICOM files."""

from collections.abc import Callable, Iterable
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from embedder import dicomvalues
from embedder.checkpoint import code_version
from errors import MammoseekError
from exchange import ExchangeError
from exchange.opinions import SecondOpinion, StudyOpinions
from exchange.reports import study_report
from exchange.results import ResultOptions, write_result
from exchange.secondreader import SecondReader
from exchange.triagecaptures import capture_opinions
from index.durable import make_folder, storage_error

REPORTS_FOLDER = "reports"


def write_reports(
    output: Path,
    opinions: Iterable[SecondOpinion],
    reader: SecondReader,
    options: ResultOptions | None = None,
    *,
    captures: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Write a structured report for each study into a folder `reports`.

    Args:
        output: The triage's folder.
        opinions: What there is to say.
        reader: Who formed the opinions.
        options: How reports are written.
        captures: Write a montage of each detection as a secondary capture too, for viewers that show no report.
        progress: Called with studies done and studies in all.

    Returns:
        The reports (and captures), and what has none with the reason: a detection on a picture that is no DICOM file,
        or a study.

    Raises:
        ExchangeError: The folder can't be made.
    """
    studies: dict[str, list[SecondOpinion]] = {}
    headers: dict[str, dict[str, Dataset]] = {}
    failures: list[tuple[str, str]] = []
    known: dict[str, Dataset | str] = {}
    for opinion in opinions:
        path = opinion.path or ""
        if path not in known:
            known[path] = _header(Path(path))
        header = known[path]
        if isinstance(header, str):
            failures.append((opinion.detection_id, header))
            continue
        study = dicomvalues.text(header, "StudyInstanceUID") or ""
        studies.setdefault(study, []).append(opinion)
        headers.setdefault(study, {})[path] = header
    written = []
    folder = Path(output) / REPORTS_FOLDER
    try:
        make_folder(folder)
    except OSError as error:
        reason = storage_error(folder, error)
        raise ExchangeError(folder, reason.cause, reason.remedy) from error
    for number, (study, said) in enumerate(studies.items(), start=1):
        try:
            images = list(headers[study].values())
            opinions_of = _study(study, said, images[0], reader)
            documents = [study_report(opinions_of, images, options)]
            if captures:
                documents += capture_opinions(opinions_of, images, reader, options)
            for document in documents:
                place = folder / f"{document.SOPInstanceUID}.dcm"
                write_result(document, place)
                written.append(place)
        except MammoseekError as error:
            failures.append((f"study {study}", str(error)))
        if progress is not None:
            progress(number, len(studies))
    return written, failures


def _study(study: str, said: list[SecondOpinion], image: Dataset, reader: SecondReader) -> StudyOpinions:
    return StudyOpinions(
        study_uid=study,
        model_digest=reader.embedder.digest,
        preparation_digest=reader.embedder.preparation_digest,
        gallery_digest=reader.gallery.manifest.segments_digest,
        gallery_generation=reader.gallery.generation,
        version=code_version(),
        patient_id=dicomvalues.text(image, "PatientID"),
        opinions=tuple(said),
    )


def _header(path: Path) -> Dataset | str:
    """Return an image's header, or why there can be no report of it."""
    try:
        return dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return f"{path.name} is no DICOM file, and so has no study to report to"
    except Exception as error:  # pydicom raises whatever a damaged file leads it to
        return f"{path.name}: its header can't be read ({error})"
