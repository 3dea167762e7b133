"""Images and opinions that the tests of reports and captures share."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from pydicom.dataset import Dataset

from embedder.findings import TERM_SEPARATOR, TERMS
from exchange.dicomtext import clean_text
from exchange.opinions import Risk, SecondOpinion, SimilarCase, StudyOpinions, Vote

MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
STUDY, SERIES, IMAGE = "1.2.826.0.1.1", "1.2.826.0.1.1.1", "1.2.826.0.1.1.1.1"
ROWS, COLUMNS = 400, 300


def some_image(**attributes: object) -> Dataset:
    """Return the header of a mammogram; an attribute of None is left out."""
    image = Dataset()
    told = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": MAMMOGRAPHY,
        "SOPInstanceUID": IMAGE,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "PatientName": "Mustermann^Erika",
        "PatientID": "W7",
        "PatientBirthDate": "19600229",
        "PatientSex": "F",
        "StudyDate": "20240131",
        "StudyTime": "101500",
        "StudyID": "17",
        "AccessionNumber": "A123",
        "ReferringPhysicianName": "Arzt^Anna",
        "Modality": "MG",
        "ImageLaterality": "L",
        "Rows": ROWS,
        "Columns": COLUMNS,
        **attributes,
    }
    for keyword, value in told.items():
        if value is not None:
            setattr(image, keyword, value)
    return image


SHOWN = SimilarCase(
    similarity=0.93,
    row_id="case-1",
    dataset="reference",
    patient_id="other-woman",
    outcome="malignant",
    lesion_type="mass + calcification",
    sop_uid="1.2.9.1.1.1",
    sop_class_uid=MAMMOGRAPHY,
    series_uid="1.2.9.1.1",
    study_uid="1.2.9.1",
    may_be_shown=True,
)
NAMED = SimilarCase(0.875, "case-2", "reference", outcome="benign", sop_uid="1.2.9.2", may_be_shown=True)
WITHHELD = replace(SHOWN, similarity=0.5, row_id="secret-row", patient_id="secret-woman", may_be_shown=False)

OPINION = SecondOpinion(
    detection_id="finding 1",
    sop_uid=IMAGE,
    path="/images/left-cc.dcm",
    box=(10, 20, 110, 140),
    lesion_id="lesion A",
    lesion_type="mass",
    laterality="L",
    detector="finder",
    detector_version="2.1",
    score=0.71,
    similar=(SHOWN, NAMED, WITHHELD),
    vote=Vote(11, 9, {"benign": 0.25, "malignant": 0.75}),
    head_probabilities={"benign": 0.5, "malignant": 0.5},
    risk=Risk(0.625, "200 findings of 150 women"),
    no_close_precedent=False,
    rescored=0.8,
    notes=("The image has burnt-in text.",),
)


def some_opinions(*opinions: SecondOpinion, **fields: object) -> StudyOpinions:
    told = {
        "study_uid": STUDY,
        "model_digest": "m" * 64,
        "preparation_digest": "p" * 64,
        "gallery_digest": "g" * 64,
        "gallery_generation": 3,
        "version": "0.1.0",
        **fields,
    }
    return StudyOpinions(opinions=opinions or (OPINION,), **told)  # type: ignore[arg-type]


def dciodvfy_errors(path: Path) -> str:
    """Return what dciodvfy says of a file where it finds an error; empty where it finds none."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (dicom3tools)")
    told = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    said = told.stdout + told.stderr
    found = [line for line in said.splitlines() if line.startswith("Error")]
    return f"{path}:\n{said[:5000]}" if found or told.returncode < 0 else ""


probabilities = st.one_of(st.sampled_from([0.0, 1.0, 0, 1, 5e-324, 0.1 + 0.2]), st.floats(0, 1))
maybe = {
    "text": st.none() | st.text(max_size=40),
    "probability": st.none() | probabilities,
    "uid": st.none() | st.from_regex(r"[12]\.[0-9](\.(0|[1-9][0-9]{0,5})){1,9}", fullmatch=True),
}
terms = st.lists(st.sampled_from(TERMS["lesion_type"]), unique=True, max_size=3).map(TERM_SEPARATOR.join)
outcomes = st.sampled_from(TERMS["pathology"]) | st.text(min_size=1, max_size=20).filter(str.strip)
by_class = st.dictionaries(outcomes, probabilities, max_size=4)
cases = st.builds(
    SimilarCase,
    similarity=st.floats(-1, 1),
    row_id=maybe["text"],
    dataset=maybe["text"],
    patient_id=maybe["text"],
    outcome=st.none() | outcomes,
    lesion_type=st.none() | terms | st.text(max_size=10),
    sop_uid=maybe["uid"],
    sop_class_uid=st.none() | st.just(MAMMOGRAPHY),
    series_uid=maybe["uid"],
    study_uid=maybe["uid"],
    may_be_shown=st.booleans(),
)
boxes = st.tuples(st.integers(0, 199), st.integers(0, 199), st.integers(1, 100), st.integers(1, 200)).map(
    lambda given: (given[0], given[1], given[0] + given[2], given[1] + given[3])
)
findings = st.builds(
    SecondOpinion,
    detection_id=st.text(min_size=1, max_size=200).filter(str.strip),
    sop_uid=st.just(IMAGE),
    path=maybe["text"],
    frame_number=st.sampled_from([None, 1]),
    box=st.none() | boxes,
    outline=st.none()
    | st.lists(st.tuples(st.floats(1, 299, width=32), st.floats(1, 399, width=32)), max_size=6).map(
        lambda points: ((1.0, 1.0), (299.0, 1.0), (299.0, 399.0), *points)
    ),
    lesion_id=maybe["text"],
    lesion_type=st.none() | terms | st.text(max_size=30),
    laterality=st.sampled_from([None, "L"]),
    detector=maybe["text"],
    detector_version=maybe["text"],
    score=maybe["probability"],
    similar=st.lists(cases, max_size=3).map(tuple),
    vote=st.none()
    | st.builds(Vote, neighbours=st.integers(0, 2**31 - 1), women=st.integers(0, 99), probabilities=by_class),
    head_probabilities=st.none() | by_class,
    risk=st.none() | st.builds(Risk, probability=probabilities, basis=st.text(max_size=100)),
    no_close_precedent=st.sampled_from([None, True, False]),
    rescored=maybe["probability"],
    notes=st.lists(st.text(max_size=60), max_size=3).map(tuple),
)
studies = st.builds(
    some_opinions,
    st.just(OPINION),
    version=st.text(min_size=1, max_size=100).filter(str.strip),
    gallery_digest=st.text(min_size=1, max_size=70).filter(str.strip),
    gallery_generation=st.integers(0, 10**9),
).flatmap(
    lambda study: st.lists(findings, min_size=1, max_size=3, unique_by=lambda one: clean_text(one.detection_id)).map(
        lambda given: replace(study, opinions=tuple(given))
    )
)
