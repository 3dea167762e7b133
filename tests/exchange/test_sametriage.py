"""The same marks on DICOM images as CSV, COCO, YOLO and CAD SR give the same triage."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom.uid as uid
import pytest
import torch

from classifiers.cases import Source
from classifiers.filling import new_gallery
from embedder.datasets import read_dataset
from embedder.embedding import pretrained_model
from embedder.normaltissue import add_normal_tissue
from exchange.detecting import DETECTOR, DetectConfig, Detector
from exchange.detections import Detection, detections_frame
from exchange.formats import read_detections, write_detections
from exchange.images import ImageCatalogue
from exchange.rescoring import DETECTOR as DETECTOR_SCORE
from exchange.rescoring import fit_rescorer
from exchange.secondreader import EVIDENCE, Opinion, SecondReader
from exchange.suppression import SuppressionConfig, suppress
from exchange.triage import TABLE_FILE, read_opinions, triage
from tests.conftest import mammography_dataset
from tests.exchange.report_cases import dciodvfy_errors
from tests.exchange.searching import NETWORK, PREPARATION

KINDS = {"csv": "marks.csv", "coco": "marks.json", "yolo": "marks-yolo", "cad-sr": "marks-cad"}
LOST_BY_YOLO = ("detector", "detector_version")


@dataclass(frozen=True)
class Clinic:
    """A gallery of some women, and the DICOM images of others with what was marked on them."""

    gallery: Path
    catalogue: ImageCatalogue
    marks: list[Detection]


def dicom_of(row: Any, folder: Path, study: str, number: int) -> Path:
    """Write a film as a mammogram of its own study, in a series of each side."""
    stored = cv2.imread(row.path, cv2.IMREAD_GRAYSCALE)
    dataset = mammography_dataset(stored, bits=None, syntax=uid.ExplicitVRLittleEndian)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}.1"
    dataset.PatientID, dataset.ImageLaterality, dataset.ViewPosition = row.patient_id, row.laterality, row.view
    dataset.ImagerPixelSpacing = [row.spacing_mm, row.spacing_mm]
    path = folder / f"{row.patient_id}-{row.laterality}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def false_alarms(image: np.ndarray, random: np.random.Generator) -> Iterator[tuple[int, int, int, int]]:
    """Yield three boxes in the breast."""
    rows, columns = np.nonzero(image > 40)
    for place in random.integers(len(rows), size=3):
        side = int(random.integers(max(8, min(image.shape) // 12), min(image.shape) // 6))
        x0, y0 = min(columns[place], image.shape[1] - side), min(rows[place], image.shape[0] - side)
        yield int(x0), int(y0), int(x0) + side, int(y0) + side


def clinic_of(frame: pd.DataFrame, known: list[str], asked: list[str], folder: Path) -> Clinic:
    """Return women as a gallery, and others' images with truth, false alarms and candidates of our own."""
    torch.manual_seed(0)
    pretrained_model(folder / "model", NETWORK, PREPARATION)
    rows = add_normal_tissue(frame[frame["patient_id"].isin(known)], per_image=1, workers=1).frame
    new_gallery(rows, folder / "model", folder / "gallery", workers=1)
    detector = Detector(folder / "gallery", config=DetectConfig(minimum=0.0, most=2, scales=3))
    (folder / "images").mkdir()
    random, marks = np.random.default_rng(0), []
    for woman, patient in enumerate(asked):
        films = frame[(frame["patient_id"] == patient) & (frame["granularity"] == "breast")]
        for number, film in enumerate(films.itertuples(), 1):
            path = dicom_of(film, folder / "images", f"1.2.826.0.1.{woman + 1}", number)
            common: dict[str, Any] = {"path": str(path), "dataset": frame["dataset"].iloc[0], "patient_id": patient}
            common |= {"image_rows": film.image_rows, "image_columns": film.image_columns}
            lesions = frame[(frame["path"] == film.path) & (frame["granularity"] == "finding") & frame["x0"].notna()]
            for lesion in lesions.itertuples():
                box = (int(lesion.x0), int(lesion.y0), int(lesion.x1), int(lesion.y1))
                marks.append(mark(common, box, random, lesion_type=lesion.lesion_type, detector="finder"))
            for box in false_alarms(cv2.imread(film.path, cv2.IMREAD_GRAYSCALE), random):
                kind = ("mass", "calcification", None)[int(random.integers(3))]
                marks.append(mark(common, box, random, lesion_type=kind, detector="finder", detector_version="2.1"))
            found = detector.detect(Source(path)).detections
            marks += [replace(one, **common) for one in found]
    whole = [replace(one, detection_id=f"mark {number}") for number, one in enumerate(marks)]
    catalogue = ImageCatalogue(folders=[folder / "images"], dataset=str(frame["dataset"].iloc[0]))
    return Clinic(folder / "gallery", catalogue, whole)


def mark(common: dict[str, Any], box: tuple[int, ...], random: np.random.Generator, **told: Any) -> Detection:
    whole = {"detection_id": "", "score": float(random.random()), **common, **told}
    x0, y0, x1, y1 = box
    return Detection(**whole, x0=x0, y0=y0, x1=x1, y1=y1)


@pytest.fixture(scope="module")
def synthetic(tissue_manifest: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    women = [f"t{number}" for number in range(10)]
    return clinic_of(tissue_manifest, women[:7], women[7:], tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="module")
def real(mini_mias: Path, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    frame = read_dataset("mini-mias", mini_mias).frame
    women = frame.loc[frame["x0"].notna(), "patient_id"].unique().tolist()
    return clinic_of(frame, women[::12], women[1:3], tmp_path_factory.mktemp("real"))


def rescoring_reader(gallery: Path) -> SecondReader:
    """Return who forms opinions, with new scores from the detector's and all of the gallery's evidence."""
    random = np.random.default_rng(0)
    hits = np.tile([True, False], 30)
    evidence = pd.DataFrame({name: np.clip(random.normal(0.4 + 0.2 * hits, 0.2), 0.01, 0.99) for name in EVIDENCE})
    digest = SecondReader(gallery, device="cpu").embedder.digest
    fitted = fit_rescorer(evidence, hits, np.repeat(np.arange(30), 2).astype(str).astype(object), model_digest=digest)
    assert (fitted.stack.weights > 0).all()
    return SecondReader(gallery, rescorer=fitted, device="cpu")


def opinions_of(reader: SecondReader, clinic: Clinic, kind: str, folder: Path) -> list[Opinion]:
    """Write the marks, read them, and return the opinions in the order of the triage's table."""
    file = folder / KINDS[kind]
    write_detections(file, detections_frame(clinic.marks), kind)
    reading = read_detections(file, clinic.catalogue)
    assert (reading.kind.removesuffix("-results"), reading.problems) == (kind, ())
    assert len(reading.detections) == len(clinic.marks)
    report = triage(reader, suppress(reading.frame(), SuppressionConfig(0.5)), folder / f"triage-{kind}", workers=1)
    assert report.failures == []
    opinions = {one.opinion.detection_id: one for one in read_opinions(folder / f"triage-{kind}")}
    table = pd.read_csv(folder / f"triage-{kind}" / TABLE_FILE)
    return [opinions[name] for name in table["detection_id"]]


def told(opinion: Opinion, kind: str) -> dict[str, Any]:
    """Return all that an opinion says but scores, the names of detection and lesion, and notes on the file."""
    said = asdict(opinion)
    said["evidence"] = {name: value for name, value in opinion.evidence.items() if name != DETECTOR_SCORE}
    for name in ("detection_id", "notes", "lesion_id", "score", "rescored", *(LOST_BY_YOLO if kind == "yolo" else ())):
        del said["opinion"][name]
    return said


def scores(opinions: list[Opinion]) -> list[tuple[float, ...]]:
    return [(one.opinion.score, one.opinion.rescored, one.urgency, one.evidence[DETECTOR_SCORE]) for one in opinions]  # type: ignore[misc]


@pytest.mark.parametrize("which", ["synthetic", "real"])
def test_four_formats_give_the_same_triage(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    clinic: Clinic = request.getfixturevalue(which)
    kinds = {one.detector for one in clinic.marks}
    assert kinds == {"finder", DETECTOR}
    assert len({round(one.score or 0, 6) for one in clinic.marks}) == len(clinic.marks)  # an order without ties
    reader = rescoring_reader(clinic.gallery)
    opinions = {kind: opinions_of(reader, clinic, kind, tmp_path) for kind in KINDS}
    for file in (tmp_path / KINDS["cad-sr"]).iterdir():
        assert (errors := dciodvfy_errors(file)) == "", errors
    expected = opinions.pop("csv")
    assert len({one.woman for one in expected}) == len({one.patient_id for one in clinic.marks})
    assert all(len(one.opinion.similar) > 3 and one.opinion.rescored is not None for one in expected)
    for kind, found in opinions.items():
        assert [told(one, kind) for one in found] == [told(one, kind) for one in expected], kind
        # In percent, as CAD SR has it, one in four doubles has a neighbour only.
        np.testing.assert_allclose(scores(found), scores(expected), rtol=1e-12 if kind == "cad-sr" else 0)
