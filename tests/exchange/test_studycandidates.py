"""Candidates of our own on a study that came without a CAD report, up to the report that says so."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("highdicom", reason="install mammoseek[exchange] for highdicom")

from benchmarks.listener_parts import make_instance
from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.network import NetworkConfig
from embedder.normaltissue import add_normal_tissue
from embedder.preparation import PreparationConfig
from exchange import ExchangeError
from exchange.detecting import DetectConfig, Detector
from exchange.reportreading import read_opinions
from exchange.secondreader import SecondReader
from exchange.studytriage import StudyTriage
from tests.exchange.caddocuments import CadDocument, Shown, build

PREPARATION = PreparationConfig(height=64, width=64, floor_mm=8.0, floor_pixels=33)
NETWORK = NetworkConfig(backbone="test_resnet", weights="none", embedding_dimension=None)
STUDY = "1.2.3"


@pytest.fixture(scope="module")
def gallery(tissue_manifest, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("candidates")
    pretrained_model(folder / "model", NETWORK, PREPARATION)
    rows = add_normal_tissue(tissue_manifest, per_image=2, workers=1).frame
    new_gallery(rows, folder / "model", folder / "gallery", workers=1)
    return folder / "gallery"


@pytest.fixture(scope="module")
def reader(gallery) -> SecondReader:
    return SecondReader(gallery, device="cpu")


@pytest.fixture(scope="module")
def detector(gallery) -> Detector:
    return Detector(gallery, config=DetectConfig(most=2, minimum=0.0, looks=4))


def film(folder: Path, number: int = 1, **attributes: object) -> Path:
    """Write a mammogram with a bright mass."""
    y, x = np.mgrid[:200, :200]
    image = np.where((y - 100) ** 2 + x**2 < 94**2, 90 + np.random.default_rng(number).normal(0, 10, (200, 200)), 2)
    image[(y - 120) ** 2 + (x - 35) ** 2 < 100] += 70
    dataset = make_instance(
        STUDY, f"{STUDY}.1", f"{STUDY}.1.{number}", pixels=np.clip(image, 0, 255).astype(np.uint8),
        PixelSpacing=[0.4, 0.4], ImageLaterality="L", ViewPosition="CC", PresentationIntentType="FOR PRESENTATION",
        BurnedInAnnotation="NO", PresentationLUTShape="IDENTITY",
    )  # fmt: skip
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    folder.mkdir(exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_study_without_a_cad_report_gets_a_report_that_says_who_found_what_it_is_about(reader, detector, tmp_path):
    study, told = tmp_path / "study", []
    film(study)
    film(study, 2, PresentationIntentType="FOR PROCESSING")
    process = StudyTriage(reader, detector=detector, say=told.append, workers=1)
    (report,) = process(study, tmp_path / "work")
    said = read_opinions(pydicom.dcmread(report))
    assert (said.study_uid, said.patient_id) == (STUDY, "W7")
    assert [one.detection_id for one in said.opinions] == ["1.2.3.1.1-0001", "1.2.3.1.1-0002"]
    for opinion in said.opinions:
        assert opinion.sop_uid == "1.2.3.1.1"
        assert opinion.detector == "mammoseek detect"
        assert opinion.detector_version == detector.version
        (note,) = (note for note in opinion.notes if "mammoseek detect" in note)
        assert "no CAD report came with the study" in note
        assert "1 of 2 images were not searched (1.2.3.1.2.dcm: it is a For Processing image" in note
        assert opinion.similar
    assert told == ["not searched: 1.2.3.1.2.dcm: it is a For Processing image: raw detector values"]
    # Wherever it lies, the same study has the same report.
    shutil.copytree(study, tmp_path / "elsewhere")
    (again,) = process(tmp_path / "elsewhere", tmp_path / "other work")
    assert pydicom.dcmread(again).SOPInstanceUID == pydicom.dcmread(report).SOPInstanceUID
    assert StudyTriage(reader, workers=1)(study, tmp_path / "work") == [], "nothing is searched unless asked for"


def test_a_woman_never_answers_for_herself(reader, detector, tmp_path, monkeypatch):
    barred, judges = [], detector._judges_without
    monkeypatch.setattr(detector, "_judges_without", lambda rows: barred.append(rows) or judges(rows))
    study = tmp_path / "study"
    film(study, PatientID="t3")
    (report,) = StudyTriage(reader, detector=detector, workers=1)(study, tmp_path / "work")
    hers = np.flatnonzero(detector.gallery.records["patient_id"].to_numpy() == "t3")
    assert [rows.tolist() for rows in barred] == [hers.tolist()]
    assert all(
        case.patient_id != "t3" for one in read_opinions(pydicom.dcmread(report)).opinions for case in one.similar
    )


def test_a_cad_report_that_marks_nothing_has_spoken(reader, detector, tmp_path):
    study = tmp_path / "study"
    film(study)
    document = build(CadDocument((), (Shown("1.2.3.1.1", study=STUDY),), "AllAlgorithmsSucceededWithoutFindings"))
    document.StudyInstanceUID = STUDY
    document.save_as(study / "cad.dcm", enforce_file_format=True)
    assert StudyTriage(reader, detector=detector, workers=1)(study, tmp_path / "work") == []


def test_refused_images_give_no_report_and_images_that_nobody_is_named_on_an_error(reader, detector, tmp_path):
    told: list[str] = []
    process = StudyTriage(reader, detector=detector, say=told.append, workers=1)
    study = tmp_path / "study"
    film(study, PresentationIntentType="FOR PROCESSING")
    film(study, 2, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    (study / "3.dcm").write_bytes(b"\0" * 128 + b"DICM damaged")
    assert process(study, tmp_path / "work") == []
    assert [line.split(": ")[1] for line in told] == ["1.2.3.1.1.dcm", "3.dcm"]
    film(study, 4, PatientID="")
    with pytest.raises(ExchangeError, match=r"none of its images can be searched.*does not say whose it is"):
        process(study, tmp_path / "work")
