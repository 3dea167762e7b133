"""CAD reports as the command line writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from exchange.cadreport import CadReport
from exchange.cadsr import read_cad_sr
from tests.commandline import Outcome, assert_clear, run
from tests.exchange.test_detecting import film

__all__ = ["run"]  # a fixture

Run = Callable[..., Outcome]


@pytest.fixture
def images(tmp_path: Path, write_dicom: Callable[..., Path]) -> list[Path]:
    """Two images of two studies of one woman."""
    stored = cv2.imread(str(film(tmp_path)), cv2.IMREAD_GRAYSCALE)
    (tmp_path / "images").mkdir()
    return [
        write_dicom(
            stored if number == 1 else stored[::-1].copy(),
            name=f"images/{number}.dcm",
            SOPInstanceUID=f"1.2.3.{number}",
            StudyInstanceUID=f"1.2.{number}",
            ImageLaterality="L",
            ViewPosition="CC",
            ImagerPixelSpacing=[0.4, 0.4],
        )
        for number in (1, 2)
    ]


@pytest.fixture
def marks(images: list[Path], tmp_path: Path) -> Path:
    path = tmp_path / "marks.csv"
    path.write_text("image,x0,y0,x1,y1,score,label\n1.dcm,25,110,45,130,0.7,mass\n1.dcm,5,60,25,80,0.1,calcification\n")
    return path


def reports(folder: Path) -> list[CadReport]:
    return sorted((read_cad_sr(path) for path in folder.iterdir()), key=lambda one: one.study_uid or "")


def test_marks_become_reports_that_are_read_again(run: Run, images: list[Path], marks: Path, tmp_path: Path) -> None:
    convert = (
        "detections",
        "convert",
        marks,
        "--images",
        tmp_path / "images",
        "--detector",
        "finder",
        "--to",
        "cad-sr",
    )
    outcome = run(*convert, "-o", tmp_path / "reports", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["written"] == [str(tmp_path / "reports")]
    (report,) = reports(tmp_path / "reports")
    assert [one.certainty for one in report.findings] == [0.7, 0.1]
    shown = run("detections", "show", tmp_path / "reports", "--images", tmp_path / "images", "--json")
    assert [(one["score"], one["detector"]) for one in json.loads(shown.out)["rows"]] == [
        (0.7, "finder"),
        (0.1, "finder"),
    ]
    again = run(*convert, "-o", tmp_path / "reports")
    assert again.code == 1
    assert_clear(again, "is there already")
    outcome = run(*convert, "-o", tmp_path / "both", "--examined", tmp_path / "images")
    assert outcome.code == 0, outcome.err
    assert [len(one.findings) for one in reports(tmp_path / "both")] == [2, 0]


def test_no_report_says_that_there_is_nothing_where_a_row_was_left_out(
    run: Run, images: list[Path], marks: Path, tmp_path: Path
) -> None:
    marks.write_text(marks.read_text() + "2.dcm,25,110,45,130,70,mass\n")
    convert = ("detections", "convert", marks, "--images", tmp_path / "images", "-o", tmp_path / "out")
    outcome = run(*convert, "--to", "cad-sr", "--examined", tmp_path / "images")
    assert outcome.code == 1
    assert_clear(outcome, "correct them, or omit --examined")
    assert not (tmp_path / "out").exists()
    assert run(*convert, "--to", "cad-sr").code == 3
    assert [one.study_uid for one in reports(tmp_path / "out")] == ["1.2.1"]


def test_what_can_not_be_written_is_one_clear_message(
    run: Run, images: list[Path], marks: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    picture = tmp_path / "picture.csv"
    picture.write_text("image,x0,y0,x1,y1,score\nnew.png,25,110,45,130,0.7\n")
    given = ("--images", tmp_path, "--patient-from-name", "(new)")
    for arguments, says in (
        ((marks, *given, "--to", "csv", "--examined", tmp_path / "images"), "it is for --to cad-sr"),
        ((marks, *given, "--to", "cad-sr", "--examined", tmp_path / "empty"), "holds no images"),
        ((marks, *given, "--to", "cad-sr", "--examined", tmp_path / "nothing"), "can't be read"),
        ((picture, *given, "--to", "cad-sr"), "write csv, json or coco"),
    ):
        outcome = run("detections", "convert", *arguments, "-o", tmp_path / "out")
        assert_clear(outcome, says)
    assert not (tmp_path / "out").exists()


def test_candidates_of_our_own_become_reports(
    run: Run, images: list[Path], detect_gallery: Path, tmp_path: Path
) -> None:
    search = ("detect", *images, "--gallery", detect_gallery, "--most", 2)
    outcome = run(*search, "--minimum", 0, "-o", tmp_path / "a.csv", "--cad-reports", tmp_path / "reports")
    assert outcome.code == 0, outcome.err
    found = [finding for report in reports(tmp_path / "reports") for finding in report.findings]
    assert {one.algorithm.name for one in found if one.algorithm is not None} == {"mammoseek detect"}
    table = json.loads(run("detections", "show", tmp_path / "a.csv", "--json").out)["rows"]
    assert len(table) == 4
    assert [one.certainty for one in found] == pytest.approx([one["score"] for one in table], rel=1e-12)
    again = run(*search, "--cad-reports", tmp_path / "reports")
    assert_clear(again, "is there already")


def test_a_search_that_finds_nothing_says_so_of_what_it_looked_at_alone(
    run: Run, images: list[Path], detect_gallery: Path, write_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    blank = write_dicom(np.zeros((50, 50), np.uint8), SOPInstanceUID="1.2.3.9", StudyInstanceUID="1.2.9")
    search = ("detect", *images, blank, "--gallery", detect_gallery, "--minimum", 1)
    assert run(*search, "--cad-reports", tmp_path / "reports").code == 3
    empty = reports(tmp_path / "reports")
    assert [one.study_uid for one in empty] == ["1.2.1", "1.2.2"]
    for one in empty:
        assert (one.findings, str(one.summary)) == ((), "All algorithms succeeded; without findings")
        assert [algorithm.name for algorithm in one.algorithms] == ["mammoseek detect"]
