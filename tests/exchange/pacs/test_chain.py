"""The whole chain: a study and its CAD report arrive, a second opinion comes back into a real archive and is read."""

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from exchange import ExchangeError
from exchange.pacs.fetching import fetch
from exchange.pacs.listener import Listener
from exchange.pacs.query import Query
from exchange.pacs.storing import store
from exchange.reportreading import read_opinions
from exchange.secondreader import SecondReader
from exchange.studytriage import StudyTriage, open_triage
from tests.exchange.caddocuments import CadDocument, Mark, Shown, build

BOX = (1200, 1900, 1620, 2300)


@pytest.fixture(scope="module")
def reader(synthetic_manifest, tiny_network, tiny_preparation, tmp_path_factory) -> SecondReader:
    folder = tmp_path_factory.mktemp("chain")
    pretrained_model(folder / "model", tiny_network, tiny_preparation)
    new_gallery(synthetic_manifest(22), folder / "model", folder / "gallery", device="cpu", workers=1)
    return SecondReader(folder / "gallery", device="cpu")


@pytest.fixture
def image(cbis_dicom) -> Path:
    return min(cbis_dicom, key=lambda path: path.stat().st_size)


def cad_report(image: Path, folder: Path, **changes) -> Path:
    """Write a CAD report of one mass on an image."""
    header = pydicom.dcmread(image, stop_before_pixels=True)
    shown = Shown(str(header.SOPInstanceUID), study=str(header.StudyInstanceUID))
    x0, y0, x1, y1 = map(float, BOX)
    corners = (x0, y0, x1, y0, x1, y1, x0, y1, x0, y0)
    mark = Mark(shown, outline=("POLYLINE", corners), probability=80)
    document: Dataset = build(CadDocument((mark,), (shown,), patient=str(header.PatientID)))
    document.StudyInstanceUID = header.StudyInstanceUID
    for name, value in changes.items():
        setattr(document, name, value)
    path = folder / "cad.dcm"
    document.save_as(path, enforce_file_format=True)
    return path


def errors_of(path: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        return []
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60, check=False)
    return [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]


def test_a_study_gives_its_reports_and_the_same_ones_again(reader, image, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    shutil.copy(image, study / "image.dcm")
    process = StudyTriage(reader, workers=1)
    assert process(study, tmp_path / "work") == [], "without a CAD report there is nothing to say"
    cad_report(image, study)
    (report,) = process(study, tmp_path / "work")
    said = read_opinions(pydicom.dcmread(report))
    assert said.study_uid == pydicom.dcmread(image, stop_before_pixels=True).StudyInstanceUID
    (opinion,) = said.opinions
    assert opinion.box == BOX
    assert opinion.score == pytest.approx(0.8)
    assert len(opinion.similar) == 10
    assert errors_of(report) == []
    before = report.read_bytes()
    assert StudyTriage(reader, workers=1)(study, tmp_path / "other")[0].name == report.name
    assert process(study, tmp_path / "work") == [report]
    assert (
        pydicom.dcmread(report).SOPInstanceUID
        == pydicom.dcmread(tmp_path / "other" / report.relative_to(tmp_path / "work")).SOPInstanceUID
    )
    assert len(before) == report.stat().st_size


def test_montages_go_out_as_captures_that_name_no_other_woman(reader, image, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    shutil.copy(image, study / "image.dcm")
    cad_report(image, study)
    files = StudyTriage(reader, captures=True, workers=1)(study, tmp_path / "work")
    kinds = {str(pydicom.dcmread(path).SOPClassUID): path for path in files}
    assert set(kinds) == {"1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"}
    capture = pydicom.dcmread(kinds["1.2.840.10008.5.1.4.1.1.7"])
    header = pydicom.dcmread(image, stop_before_pixels=True)
    assert (capture.PatientID, capture.StudyInstanceUID) == (header.PatientID, header.StudyInstanceUID)
    assert capture.BurnedInAnnotation == "YES"
    assert capture.pixel_array.std() > 10
    assert errors_of(kinds["1.2.840.10008.5.1.4.1.1.7"]) == []
    del capture.PixelData
    women = {str(name) for name in reader.gallery.records["patient_id"]}
    assert not any(woman in str(capture) for woman in women)


def test_a_report_of_another_woman_or_of_images_that_are_not_here_is_told(reader, image, tmp_path):
    for name, changes, copied in (("other", {"PatientID": "somebody else"}, True), ("absent", {}, False)):
        study = tmp_path / name
        study.mkdir()
        if copied:
            shutil.copy(image, study / "image.dcm")
        cad_report(image, study, **changes)
        with pytest.raises(ExchangeError, match="none of its findings can be used"):
            StudyTriage(reader, workers=1)(study, tmp_path / "work")


def test_study_and_cad_report_in_report_out_and_read_back(reader, image, orthanc, configure, free_port, tmp_path):
    cad = cad_report(image, tmp_path)
    table = {"spool": str(tmp_path / "spool"), "port": free_port(), "idle_s": 0.5, "callers": ["SENDER"]}
    config = configure(**orthanc.web, listen=table)
    lines: list[str] = []
    stop, ready = threading.Event(), threading.Event()
    options = {
        "gallery": str(reader.gallery.folder), "candidates": False, "rescorer": None, "presentation": "required",
        "name_cases": False, "captures": False, "uid_root": "2.25", "device": "cpu",
    }  # fmt: skip
    listener = Listener(config, open_triage(say=lines.append, **options), lines.append)
    thread = threading.Thread(target=listener.run, args=(stop, lambda port: ready.set()))
    thread.start()
    try:
        assert ready.wait(10)
        peer = {"host": "127.0.0.1", "port": table["port"], "called_ae": "MAMMOSEEK", "calling_ae": "SENDER"}
        assert store(configure(dimse=peer), [image, cad]).failures == []
        study = str(pydicom.dcmread(image, stop_before_pixels=True).StudyInstanceUID)
        fetched: list[Path] = []
        for _ in range(240):
            if orthanc.call("/instances"):
                result = fetch(configure(**orthanc.web), Query(study_uid=study, modality="SR"), tmp_path / "back")
                fetched = result.files
                break
            time.sleep(0.25)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert len(fetched) == 1, lines
    said = read_opinions(pydicom.dcmread(fetched[0]))
    assert said.study_uid == study
    assert said.opinions[0].box == BOX
    assert errors_of(fetched[0]) == []
    assert len(orthanc.call("/instances")) == 1, "one report, once; images are not sent on"
